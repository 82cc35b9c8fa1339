"""`acs-auth reconcile --departed` erases users who are gone from Entra ID, and never for want of an answer."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from local_azure.environment import LocalAzure
from local_azure.faults import Fault
from quart_app.operations.departures import Departures, Standing
from quart_app.operations.directory import DirectoryUnavailable
from storage.mapping import UNKNOWN_CREATION, IdentityMapping, MappingStore, UserKey
from tests.quart_app.cli.conftest import AcsAuth
from tests.support.acs_ids import acs_id
from upstream.retrying import RetryPolicy

NOW = datetime(2026, 11, 26, tzinfo=UTC)
LONG_AGO = datetime(2024, 2, 29, tzinfo=UTC)
NAMES = ("alex", "megan", "zoe")


@pytest.fixture
async def store(local_azure: LocalAzure, sqlite_store: MappingStore) -> MappingStore:
    """Alex is there, Megan was deleted a moment ago, Zoe is gone for good."""
    users = local_azure.entra.users
    for name in NAMES:
        user = users[name]
        await sqlite_store.create(UserKey(user.tenant_id, user.object_id), local_azure.acs.mint(), LONG_AGO)
    local_azure.user_states.delete(users["megan"])
    local_azure.user_states.purge(users["zoe"])
    return sqlite_store


async def left(local_azure: LocalAzure, store: MappingStore) -> set[str]:
    names = {local_azure.entra.users[name].object_id: name for name in NAMES}
    return {names[mapping.user.subject] async for mapping in store.mappings() if mapping.user}


async def test_who_is_gone_is_reported_and_erased_only_by_repair(
    local_azure: LocalAzure, store: MappingStore, acs_auth: AcsAuth
) -> None:
    result = await acs_auth("reconcile", "--departed", "--json")
    report = json.loads(result.stdout)
    assert (result.exit_code, report["live"], report["departed"], report["restorable"]) == (1, 1, 1, 1)
    assert await left(local_azure, store) == set(NAMES)
    repaired = await acs_auth("reconcile", "--departed", "--repair")
    assert repaired.exit_code == 0, repaired.output
    assert await left(local_azure, store) == {"alex", "megan"}
    assert len(local_azure.acs.live_identities()) == 2
    local_azure.user_states.restore(local_azure.entra.users["megan"])
    again = json.loads((await acs_auth("reconcile", "--departed", "--json")).stdout)
    assert (again["live"], again["departed"], again["clean"]) == (2, 0, True)


async def test_without_the_option_entra_id_is_not_asked(
    local_azure: LocalAzure, store: MappingStore, acs_auth: AcsAuth
) -> None:
    result = await acs_auth("reconcile", "--repair", "--json")
    assert (result.exit_code, json.loads(result.stdout)["live"]) == (0, 3)
    assert local_azure.graph.faults.counts["get_by_ids"] == 0


DENIED = {"error": {"code": "Authorization_RequestDenied", "message": "Insufficient privileges."}}
SOMEBODY = "00000000-0000-4000-8000-000000000001"
SILENT = "Microsoft Graph did not say who exists in Entra ID."


@pytest.mark.parametrize(
    ("operation", "fault", "reason"),
    [
        (
            "get_by_ids",
            Fault(status=200, body={"value": []}, times=None),
            "Entra ID's answer lacks the API's own service principal, so it says nothing about users.",
        ),
        ("get_by_ids", Fault(status=200, body={"value": [SOMEBODY]}, times=None), SILENT),
        ("get_by_ids", Fault(status=302, body={"error": {"code": "Moved"}}, times=None), SILENT),
        (
            "get_by_ids",
            Fault(status=403, body=DENIED, times=None),
            "Microsoft Graph refused to say who exists in Entra ID (403 Authorization_RequestDenied). Grant the API "
            "registration the Microsoft Graph permission Directory.Read.All (application) and consent to it.",
        ),
        ("get_by_ids", Fault(status=404, body="<h1>Not Found</h1>", content_type="text/html", times=None), SILENT),
        (
            "get_by_ids",
            Fault(status=429, body={"error": {"code": "TooManyRequests"}}, times=None),
            "Microsoft Graph is throttling requests.",
        ),
        ("get_by_ids", Fault(reset=True, times=None), SILENT),
        (
            "get_deleted_item",
            Fault(status=404, body={"error": {"code": "NotWhatGraphSays"}}, times=None),
            "Microsoft Graph refused to say who exists in Entra ID (404 NotWhatGraphSays).",
        ),
        ("get_deleted_item", Fault(status=200, body={"id": SOMEBODY}, times=None), SILENT),
        (
            "get_service_principal",
            Fault(status=403, body=DENIED, times=None),
            "Microsoft Graph refused to say who exists in Entra ID (403 Authorization_RequestDenied). Grant the API "
            "registration the Microsoft Graph permission Directory.Read.All (application) and consent to it.",
        ),
        ("get_service_principal", Fault(status=200, body={"id": "not an id"}, times=None), SILENT),
    ],
    ids=[
        "no service principal in the answer",
        "no objects in the answer",
        "elsewhere",
        "no permission",
        "a stranger answers",
        "too busy",
        "no answer",
        "another code",
        "somebody else",
        "not known",
        "known by no id",
    ],
)
async def test_what_is_not_answered_decides_nothing(
    operation: str,
    fault: Fault,
    reason: str,
    local_azure: LocalAzure,
    store: MappingStore,
    acs_auth: AcsAuth,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("quart_app.operations.upstreams.PATIENT", RetryPolicy(attempts=1))
    local_azure.graph.faults.script(operation, fault)
    result = await acs_auth("reconcile", "--departed", "--repair", "--json")
    report = json.loads(result.stdout)
    assert (result.exit_code, report["departed"], report["restorable"], report["unknown"]) == (3, 0, 0, 3)
    (trouble,) = report["trouble"]
    assert trouble["upstream"] == "directory"
    assert trouble["reason"] == f"it is not known whether its user exists: {reason}"
    assert await left(local_azure, store) == set(NAMES)


async def test_most_users_gone_at_once_are_not_believed_without_their_number(
    local_azure: LocalAzure, sqlite_store: MappingStore, acs_auth: AcsAuth
) -> None:
    tenant = local_azure.entra.users["alex"].tenant_id
    for number in range(11):
        user = UserKey(tenant, f"00000000-0000-4000-8000-{number:012d}")
        await sqlite_store.create(user, local_azure.acs.mint(), LONG_AGO)
    refused = await acs_auth("reconcile", "--departed", "--repair")
    assert refused.exit_code == 1
    assert "--remove-up-to 11" in refused.stderr
    assert len([each async for each in sqlite_store.mappings()]) == 11
    assert (await acs_auth("reconcile", "--departed", "--repair", "--remove-up-to", "11")).exit_code == 0
    assert [each async for each in sqlite_store.mappings()] == []


async def test_microsoft_graph_is_refused_with_the_reason(acs_auth: AcsAuth) -> None:
    result = await acs_auth("reconcile", "--departed", "--store", "graph")
    assert (result.exit_code, "goes with its user" in result.stderr) == (2, True)


@pytest.mark.parametrize("missing", ["the credential", "Entra ID"])
async def test_without_what_entra_id_is_asked_with_it_is_refused(
    missing: str,
    local_azure: LocalAzure,
    store: MappingStore,
    environment: dict[str, str | None],
    acs_auth: AcsAuth,
) -> None:
    if missing == "the credential":
        environment["ENTRA_CLIENT_SECRET"] = None
        fault = "Asking Entra ID needs exactly one of ENTRA_CLIENT_SECRET, "
    else:
        environment.update({name: None for name in environment if name.startswith(("ENTRA_", "TEAMS_", "DOCS_"))})
        environment.update(local_azure.entra.oidc_issuer.service_environment())
        fault = "Only users of Microsoft Entra ID can be looked up there: set the ENTRA_ settings."
    result = await acs_auth("reconcile", "--departed", "--repair")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(f"The settings can't be used:\n- {fault}")
    assert await left(local_azure, store) == set(NAMES)


class ScriptedDirectory:
    """Says what each user is; some questions are not answered, and some users are restored between two questions."""

    tenants: Sequence[str] = ("tenant",)

    def __init__(self, kinds: dict[str, str], failing: set[int]) -> None:
        self._kinds = kinds
        self._failing = failing
        self._questions = 0

    async def existing(self, tenant_id: str, object_ids: Sequence[str]) -> frozenset[str]:
        self._count()
        found = frozenset(each for each in object_ids if self._kinds[each] == "present")
        for each in object_ids:
            if self._kinds[each] == "being restored":
                self._kinds[each] = "present"
        return found

    async def is_restorable(self, tenant_id: str, object_id: str) -> bool:
        self._count()
        return self._kinds[object_id] == "restorable"

    def _count(self) -> None:
        self._questions += 1
        if self._questions in self._failing:
            raise DirectoryUnavailable("No answer.")


KINDS = ("present", "restorable", "gone", "being restored")


@settings(derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(kinds=st.lists(st.sampled_from(KINDS), max_size=12), failing=st.sets(st.integers(1, 12), max_size=4))
async def test_only_who_is_gone_departs_whatever_is_not_answered(kinds: list[str], failing: set[int]) -> None:
    named = {f"00000000-0000-4000-8000-{number:012d}": kind for number, kind in enumerate(kinds)}
    departures = Departures(ScriptedDirectory(dict(named), failing), lambda: NOW)
    for subject in named:
        await departures.add(mapping_of(subject))
    await departures.finish()
    for subject, kind in named.items():
        found: Any = departures.standing(UserKey("tenant", subject))
        standing = found[0] if found else None
        if standing is Standing.DEPARTED:
            assert kind == "gone"
        elif standing is Standing.RESTORABLE:
            assert kind == "restorable"
        elif standing is None:
            assert kind in ("present", "being restored")


def mapping_of(subject: str, issuer: str = "tenant", created_at: datetime = LONG_AGO) -> IdentityMapping:
    return IdentityMapping(UserKey(issuer, subject), acs_id("x"), created_at, deleting=False, version="1")


async def test_a_new_mapping_another_issuer_and_another_tenant_are_not_asked_for() -> None:
    gone = "00000000-0000-4000-8000-000000000000"
    departures = Departures(ScriptedDirectory({gone: "gone"}, {1}), lambda: NOW)
    await departures.add(mapping_of(gone, created_at=NOW - timedelta(hours=23)))
    await departures.add(mapping_of("auth0|x", issuer="https://issuer.example"))
    await departures.add(mapping_of(gone, issuer="another tenant"))
    await departures.add(mapping_of("not an object id"))
    await departures.finish()
    assert departures.standing(UserKey("tenant", gone)) is None
    assert departures.standing(UserKey("https://issuer.example", "auth0|x")) is None
    for user in (UserKey("another tenant", gone), UserKey("tenant", "not an object id")):
        found = departures.standing(user)
        assert found is not None
        assert found[0] is Standing.UNDECIDED


class Silent:
    """Fulfils `Directory`: a tenant whose directory never answers."""

    tenants = ("7f2b5a10-3c4d-4e8f-9a61-0d5c8e2b7a11",)

    def __init__(self) -> None:
        self.asked = 0

    async def existing(self, tenant_id: str, object_ids: Sequence[str]) -> frozenset[str]:
        self.asked += 1
        raise DirectoryUnavailable("Microsoft Graph did not say who exists in Entra ID.")

    async def is_restorable(self, tenant_id: str, object_id: str) -> bool:
        raise AssertionError("Nobody is known to be missing.")


async def test_a_directory_that_never_answers_is_asked_three_times_only_and_decides_nothing() -> None:
    directory = Silent()
    departures = Departures(directory, lambda: datetime(2026, 11, 26, tzinfo=UTC))
    users = [UserKey(directory.tenants[0], f"{number:08x}-0000-4000-8000-000000000000") for number in range(5 * 999)]
    for user in users:
        await departures.add(IdentityMapping(user, acs_id("one"), UNKNOWN_CREATION, deleting=False, version="1"))
    await departures.finish()
    assert directory.asked == 3
    assert {(departures.standing(user) or ("none",))[0] for user in users} == {Standing.UNDECIDED}
