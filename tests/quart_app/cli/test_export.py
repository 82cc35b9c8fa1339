"""`acs-auth export`, `delete` and `revoke`: what a person may ask for."""

import json

import pytest

from local_azure.acs.identities import TokenStatus
from local_azure.environment import LocalAzure
from local_azure.faults import Fault
from storage.mapping import MappingStore, UserKey
from tests.quart_app.cli.conftest import AcsAuth, extend
from tests.support.acs_ids import acs_id
from tests.support.service_process import acs_auth_at_terminal


@pytest.fixture
def user(local_azure: LocalAzure) -> UserKey:
    alex = local_azure.entra.users["alex"]
    return UserKey(alex.tenant_id, alex.object_id)


@pytest.fixture
async def identity(local_azure: LocalAzure, sqlite_store: MappingStore, user: UserKey) -> str:
    """The user's identity, in SQLite and in Graph."""
    identity = local_azure.acs.mint()
    await sqlite_store.create(user, identity)
    extend(local_azure, user.issuer, user.subject, identity)
    return identity


@pytest.mark.parametrize("store", ["sqlite", "graph"])
async def test_export_prints_all_that_is_stored(store: str, user: UserKey, identity: str, acs_auth: AcsAuth) -> None:
    result = await acs_auth("export", "--store", store, "--user", f"{user.issuer.upper()}/{user.subject}")
    assert (result.exit_code, result.stderr) == (0, "")
    document = json.loads(result.stdout)
    assert document["user"] == {"issuer": user.issuer, "subject": user.subject}
    assert document["store"] == store
    assert document["mapping"]["acsUserId"] == identity
    assert document["mapping"]["deleting"] is False


async def test_export_prints_the_same_with_json(user: UserKey, identity: str, acs_auth: AcsAuth) -> None:
    command = ("export", "--user", f"{user.issuer}/{user.subject}")
    plain, for_programs = await acs_auth(*command), await acs_auth(*command, "--json")
    assert (for_programs.exit_code, for_programs.stdout) == (0, plain.stdout)
    assert json.loads(plain.stdout)["mapping"]["acsUserId"] == identity


async def test_export_of_someone_unknown_says_that_nothing_is_stored(
    sqlite_store: MappingStore, acs_auth: AcsAuth, user: UserKey
) -> None:
    result = await acs_auth("export", "--user", f"{user.issuer}/{user.subject}")
    assert (result.exit_code, json.loads(result.stdout)["mapping"]) == (0, None)


@pytest.mark.parametrize("store", ["sqlite", "graph"])
async def test_delete_removes_identity_and_mapping(
    store: str, local_azure: LocalAzure, user: UserKey, identity: str, acs_auth: AcsAuth
) -> None:
    command = ("delete", "--store", store, "--user", f"{user.issuer}/{user.subject}", "--yes", "--json")
    result = await acs_auth(*command)
    assert (result.exit_code, json.loads(result.stdout)) == (0, {"deleted": True})
    assert local_azure.acs.live_identities() == []
    exported = await acs_auth("export", "--store", store, "--user", f"{user.issuer}/{user.subject}")
    assert json.loads(exported.stdout)["mapping"] is None
    again = await acs_auth(*command)
    assert (again.exit_code, json.loads(again.stdout)) == (0, {"deleted": False})


@pytest.mark.parametrize("store", ["sqlite", "graph"])
async def test_revoke_ends_the_tokens_and_keeps_the_identity(
    store: str, local_azure: LocalAzure, user: UserKey, identity: str, acs_auth: AcsAuth
) -> None:
    token = local_azure.acs.issue_token(identity, ["chat"], 60)
    person = ("--store", store, "--user", f"{user.issuer}/{user.subject}")
    result = await acs_auth("revoke", *person, "--yes", "--json")
    assert (result.exit_code, json.loads(result.stdout)) == (0, {"revoked": True})
    assert local_azure.acs.token_status(token) is TokenStatus.REVOKED
    mapping = json.loads((await acs_auth("export", *person)).stdout)["mapping"]
    assert (mapping["acsUserId"], mapping["deleting"]) == (identity, False)
    assert mapping["signedOutAt"] is not None


async def test_revoke_for_someone_without_an_identity_says_so(
    sqlite_store: MappingStore, acs_auth: AcsAuth, user: UserKey
) -> None:
    result = await acs_auth("revoke", "--user", f"{user.issuer}/{user.subject}", "--yes")
    assert (result.exit_code, result.stdout) == (0, "The user has no identity, and so no tokens.\n")


async def test_revoke_tells_that_the_identity_is_gone(
    local_azure: LocalAzure, user: UserKey, identity: str, acs_auth: AcsAuth
) -> None:
    local_azure.acs.forget(identity)
    result = await acs_auth("revoke", "--user", f"{user.issuer}/{user.subject}", "--yes")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "no longer exists. Run acs-auth delete" in result.stderr


@pytest.mark.parametrize("command", ["delete", "revoke"])
async def test_nobody_who_is_not_there_is_asked(
    command: str, local_azure: LocalAzure, user: UserKey, identity: str, acs_auth: AcsAuth
) -> None:
    result = await acs_auth(command, "--user", f"{user.issuer}/{user.subject}", typed="y\n")
    assert result.exit_code == 2
    assert "--yes" in result.stderr
    assert local_azure.acs.live_identities() == [identity]


@pytest.mark.parametrize(("typed", "status"), [("n\n", 1), ("y\n", 0)])
async def test_who_is_there_is_asked_and_decides(
    typed: str,
    status: int,
    local_azure: LocalAzure,
    environment: dict[str, str | None],
    user: UserKey,
    identity: str,
) -> None:
    given = {name: value for name, value in environment.items() if value is not None}
    ended = await acs_auth_at_terminal(given, typed, "delete", "--user", f"{user.issuer}/{user.subject}")
    assert ended[0] == status
    assert "Delete the user's ACS identity for good?" in ended[2]
    assert local_azure.acs.live_identities() == ([] if status == 0 else [identity])


async def test_a_delete_that_acs_interrupts_is_told_without_ids_and_finished_by_the_next(
    local_azure: LocalAzure, user: UserKey, identity: str, acs_auth: AcsAuth
) -> None:
    denied = {"error": {"code": "Denied", "message": "Denied by the resource provider."}}
    local_azure.acs.faults.script("delete_identity", Fault(status=401, body=denied, times=None))
    command = ("delete", "--user", f"{user.issuer}/{user.subject}", "--yes")
    result = await acs_auth(*command)
    assert result.exit_code == 1
    assert "ACS refused the service's own credential" in result.stderr
    assert identity not in result.output
    exported = await acs_auth("export", "--user", f"{user.issuer}/{user.subject}")
    assert json.loads(exported.stdout)["mapping"]["deleting"] is True
    local_azure.acs.faults.clear()
    assert (await acs_auth(*command)).exit_code == 0
    assert local_azure.acs.live_identities() == []


@pytest.mark.parametrize(
    "user",
    ["alex", "a1e5c0de-0001-4a6b-8f21-6d0c3b9e4f01", "7f2b5a10-3c4d-4e8f-9a61-0d5c8e2b7a11/alex", "http://x/y", "/"],
)
async def test_what_is_no_user_is_refused(user: str, acs_auth: AcsAuth) -> None:
    result = await acs_auth("export", "--user", user)
    assert result.exit_code == 2
    assert "--user" in result.stderr


async def test_a_user_of_another_issuer_is_the_url_and_the_subject(
    sqlite_store: MappingStore, acs_auth: AcsAuth
) -> None:
    await sqlite_store.create(UserKey("https://issuer.example/v2", "auth0|Somebody"), acs_id("x"))
    result = await acs_auth("export", "--user", "https://issuer.example/v2/auth0|Somebody")
    assert json.loads(result.stdout)["mapping"]["acsUserId"] == acs_id("x")


async def test_what_can_not_be_read_is_exported_as_that_and_an_operator_can_delete_it(
    local_azure: LocalAzure, user: UserKey, acs_auth: AcsAuth
) -> None:
    identity = local_azure.acs._identities.create()
    extend(local_azure, user.issuer, user.subject, identity, sealed=False)
    person = ("--store", "graph", "--user", f"{user.issuer}/{user.subject}")
    exported = await acs_auth("export", *person)
    document = json.loads(exported.stdout)
    assert (exported.exit_code, document["mapping"], document["unreadable"]) == (3, None, "unsealed")
    assert identity not in exported.output
    deleted = await acs_auth("delete", *person, "--yes", "--json")
    assert (deleted.exit_code, json.loads(deleted.stdout)) == (0, {"deleted": True})
    assert (await acs_auth("export", *person)).exit_code == 0
    assert local_azure.acs.live_identities() == [identity], "Nobody knows whose it is."
