"""`acs-auth seal` seals what can be known to be right, and says what an operator must decide."""

import asyncio
import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from click.testing import Result

from local_azure.entra.directory import COMMAND_LINE, User
from local_azure.environment import LocalAzure
from local_azure.faults import Fault
from local_azure.user_states import Mark
from storage.graph_extensions import SEAL
from storage.mapping import UserKey
from storage.seal import Seals, parse_seal_keys
from tests.quart_app.cli.conftest import EXTENSION, AcsAuth, extend, seals_of
from tests.support.acs_ids import acs_id

Environment = dict[str, str | None]
NEW_KEY = "bmV3IGtleSwgbmV3IGtleSwgbmV3IGtleSwgbmV3IGtleQ=="


def told(result: Result) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def properties(local_azure: LocalAzure, user: User) -> dict[str, Any]:
    found = local_azure.graph.extensions.get(user.tenant_id, user.object_id, EXTENSION)
    assert found is not None
    return found.properties


@pytest.fixture
def people(local_azure: LocalAzure) -> dict[str, User]:
    return {name: local_azure.entra.users[name] for name in ("alex", "megan", "pradeep", "zoe")}


def give(local_azure: LocalAzure, user: User, name: str, **more: Any) -> None:
    extend(local_azure, user.tenant_id, user.object_id, acs_id(name), **{"sealed": False, **more})


async def test_what_the_samples_wrote_is_sealed_and_left_as_it_is_otherwise(
    local_azure: LocalAzure, people: dict[str, User], acs_auth: AcsAuth
) -> None:
    for name, user in people.items():
        give(local_azure, user, name, note=name)
    dry = await acs_auth("seal", "--dry-run", "--json")
    assert (dry.exit_code, told(dry)["sealed"]) == (0, 4)
    assert SEAL not in properties(local_azure, people["alex"])
    wet = await acs_auth("seal", "--json")
    assert (wet.exit_code, told(wet)["sealed"], told(wet)["complete"]) == (0, 4, True)
    seals = seals_of(local_azure)
    for name, user in people.items():
        assert properties(local_azure, user) == {
            "acsUserIdentity": acs_id(name),
            "note": name,
            SEAL: seals.seal(UserKey(user.tenant_id, user.object_id), acs_id(name)),
        }
    again = await acs_auth("seal", "--json")
    assert (told(again)["sealed"], told(again)["already"], told(again)["keys"]) == (0, 4, {seals.key_id: 4})
    assert (await acs_auth("migrate", "--from", "graph", "--to", "sqlite")).exit_code == 0


async def test_an_identity_at_two_users_is_sealed_for_neither_until_an_operator_decides(
    local_azure: LocalAzure, people: dict[str, User], acs_auth: AcsAuth, tmp_path: Any
) -> None:
    alex, megan, zoe = (people[name] for name in ("alex", "megan", "zoe"))
    for user in (alex, megan):
        give(local_azure, user, "alex")
    give(local_azure, zoe, "zoe")
    report = tmp_path / "report.json"
    result = await acs_auth("seal", "--json", "--report", str(report))
    assert (result.exit_code, told(result)["sealed"], told(result)["shared"]) == (3, 1, 2)
    assert alex.object_id not in result.output
    named = {each["subject"]: each["outcome"] for each in json.loads(report.read_text())["mappings"]}
    assert named == {alex.object_id: "shared", megan.object_id: "shared"}
    assert SEAL not in properties(local_azure, alex)
    decided = await acs_auth("seal", "--user", alex.object_id, "--json")
    assert (decided.exit_code, told(decided)["sealed"]) == (0, 1)
    after = await acs_auth("seal", "--json")
    assert (after.exit_code, told(after)["already"], told(after)["shared"]) == (3, 2, 1)
    assert SEAL not in properties(local_azure, megan)


async def test_another_spelling_of_an_identity_is_the_same_identity(
    local_azure: LocalAzure, people: dict[str, User], acs_auth: AcsAuth
) -> None:
    give(local_azure, people["alex"], "abc")
    give(local_azure, people["megan"], "ABC")
    result = await acs_auth("seal", "--json")
    assert (result.exit_code, told(result)["shared"]) == (3, 2)


async def test_what_bears_another_seal_or_none_that_can_be_verified_is_told_and_left(
    local_azure: LocalAzure, people: dict[str, User], acs_auth: AcsAuth
) -> None:
    lost = Seals(parse_seal_keys(NEW_KEY), EXTENSION)
    pradeep = people["pradeep"]
    give(local_azure, people["alex"], "alex", **{SEAL: seals_of(local_azure).seal(UserKey("x", "y"), acs_id("alex"))})
    give(local_azure, people["megan"], "megan", **{SEAL: "nonsense"})
    give(
        local_azure,
        pradeep,
        "pradeep",
        **{SEAL: lost.seal(UserKey(pradeep.tenant_id, pradeep.object_id), acs_id("pradeep"))},
    )
    extend(local_azure, people["zoe"].tenant_id, people["zoe"].object_id, "", sealed=False)
    before = {name: properties(local_azure, user) for name, user in people.items()}
    result = await acs_auth("seal", "--renew", "--json")
    found = told(result)
    assert (result.exit_code, found["foreign_seal"], found["key_not_held"], found["damaged"]) == (3, 2, 1, 1)
    assert found["keys_not_held"] == {lost.key_id: 1}
    assert {name: properties(local_azure, user) for name, user in people.items()} == before


async def test_keys_are_changed_one_after_the_other(
    local_azure: LocalAzure, people: dict[str, User], acs_auth: AcsAuth, environment: Environment
) -> None:
    old = environment["GRAPH_SEAL_KEYS"]
    for name, user in people.items():
        give(local_azure, user, name, sealed=True)
    environment["GRAPH_SEAL_KEYS"] = f"{old},{NEW_KEY}"
    assert told(await acs_auth("seal", "--renew", "--json"))["renewed"] == 0
    environment["GRAPH_SEAL_KEYS"] = f"{NEW_KEY},{old}"
    (new_id, old_id) = (key.id for key in parse_seal_keys(str(environment["GRAPH_SEAL_KEYS"])))
    assert told(await acs_auth("seal", "--json"))["keys"] == {old_id: 4}
    local_azure.graph.faults.script("update_user_extension", Fault(status=503), Fault(drop_answer=True))
    renewed = await acs_auth("seal", "--renew", "--json")
    assert (renewed.exit_code, told(renewed)["renewed"], told(renewed)["keys"]) == (0, 4, {new_id: 4})
    environment["GRAPH_SEAL_KEYS"] = NEW_KEY
    alone = await acs_auth("seal", "--json")
    assert (alone.exit_code, told(alone)["already"], told(alone)["key_not_held"]) == (0, 4, 0)


async def test_whom_no_application_may_change_is_given_the_request_to_send(
    local_azure: LocalAzure, people: dict[str, User], acs_auth: AcsAuth
) -> None:
    megan = people["megan"]
    give(local_azure, megan, "megan")
    give(local_azure, people["alex"], "alex")
    local_azure.user_states.mark(megan, Mark.DIRECTORY_ROLE)
    text = await acs_auth("seal")
    assert megan.object_id in text.stdout
    assert "PATCH https://" in text.stdout
    result = await acs_auth("seal", "--json")
    assert (result.exit_code, told(result)["refused"], told(result)["already"]) == (3, 1, 1)
    (entry,) = told(result)["requests"]
    assert entry["subject"] == megan.object_id
    request = entry["request"]
    token = local_azure.entra.graph_token("megan", client=COMMAND_LINE, scope="User.ReadWrite")
    async with (
        aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}) as http,
        http.request(request["method"], request["url"], json=request["body"]) as answer,
    ):
        assert answer.status == 204
    assert (await acs_auth("seal", "--json")).exit_code == 0


async def test_a_list_that_can_not_be_read_to_its_end_seals_nothing(
    local_azure: LocalAzure, people: dict[str, User], acs_auth: AcsAuth
) -> None:
    give(local_azure, people["alex"], "alex")
    denied = {"error": {"code": "Authorization_RequestDenied", "message": "Insufficient privileges."}}
    local_azure.graph.faults.script("list_users", Fault(status=403, body=denied, times=None))
    result = await acs_auth("seal", "--json")
    assert result.exit_code == 3
    assert "can't be read" in told(result)["stopped"]
    assert SEAL not in properties(local_azure, people["alex"])


async def test_a_user_without_a_mapping_and_a_user_who_is_none_are_told(
    local_azure: LocalAzure, people: dict[str, User], acs_auth: AcsAuth, environment: Environment
) -> None:
    assert (await acs_auth("seal", "--user", people["alex"].object_id)).exit_code == 1
    assert (await acs_auth("seal", "--user", "alex")).exit_code == 2
    environment["GRAPH_SEAL_KEYS"] = None
    refused = await acs_auth("seal")
    assert refused.exit_code == 2
    assert "openssl rand -base64 32" in refused.stderr


async def test_one_users_mapping_is_sealed_once_and_anew_only_when_asked_to(
    local_azure: LocalAzure, people: dict[str, User], acs_auth: AcsAuth, environment: Environment
) -> None:
    alex, old = people["alex"], environment["GRAPH_SEAL_KEYS"]
    give(local_azure, alex, "alex", sealed=True)
    environment["GRAPH_SEAL_KEYS"] = f"{NEW_KEY},{old}"
    (new_id, old_id) = (key.id for key in parse_seal_keys(str(environment["GRAPH_SEAL_KEYS"])))
    before = properties(local_azure, alex)
    kept = await acs_auth("seal", "--user", alex.object_id, "--json")
    assert (kept.exit_code, told(kept)["already"], told(kept)["keys"]) == (0, 1, {old_id: 1})
    assert properties(local_azure, alex) == before
    renewed = await acs_auth("seal", "--user", alex.object_id, "--renew", "--json")
    assert (renewed.exit_code, told(renewed)["renewed"], told(renewed)["keys"]) == (0, 1, {new_id: 1})
    assert properties(local_azure, alex) != before


async def test_one_users_mapping_without_an_identity_is_damaged_and_left(
    local_azure: LocalAzure, people: dict[str, User], acs_auth: AcsAuth
) -> None:
    alex = people["alex"]
    extend(local_azure, alex.tenant_id, alex.object_id, "not an identity", sealed=False)
    result = await acs_auth("seal", "--user", alex.object_id, "--json")
    assert (result.exit_code, told(result)["damaged"], told(result)["sealed"]) == (3, 1, 0)
    assert SEAL not in properties(local_azure, alex)


async def test_a_mapping_that_its_user_replaces_meanwhile_is_not_sealed(
    local_azure: LocalAzure, people: dict[str, User], acs_auth: AcsAuth
) -> None:
    alex = people["alex"]
    give(local_azure, alex, "alex")
    listed = asyncio.Event()
    local_azure.graph.faults.script("get_user", Fault(until=listed))
    sealing = acs_auth("seal", "--json")
    await local_azure.graph.faults.arrived("get_user")
    local_azure.graph.extensions.delete(alex.tenant_id, alex.object_id, EXTENSION)
    give(local_azure, alex, "another")
    listed.set()
    result = await sealing
    assert (result.exit_code, told(result)["changed"], told(result)["sealed"]) == (3, 1, 0)
    assert properties(local_azure, alex) == {"acsUserIdentity": acs_id("another")}


async def test_a_seal_that_is_not_taken_is_told_and_the_old_one_still_counts_for_its_key(
    local_azure: LocalAzure, people: dict[str, User], acs_auth: AcsAuth, environment: Environment, tmp_path: Path
) -> None:
    for name in ("alex", "megan"):
        give(local_azure, people[name], name, sealed=True)
    environment["GRAPH_SEAL_KEYS"] = f"{NEW_KEY},{environment['GRAPH_SEAL_KEYS']}"
    (new_id, old_id) = (key.id for key in parse_seal_keys(str(environment["GRAPH_SEAL_KEYS"])))
    full = {"error": {"code": "Directory_QuotaExceeded", "message": "The directory is full."}}
    local_azure.graph.faults.script("update_user_extension", Fault(status=403, body=full))
    report = tmp_path / "report.json"
    result = await acs_auth("seal", "--renew", "--report", str(report))
    assert result.exit_code == 3
    written = json.loads(report.read_text())
    assert (written["renewed"], written["failed"], written["keys"]) == (1, 1, {new_id: 1, old_id: 1})
    (entry,) = written["mappings"]
    assert (entry["outcome"], "Directory_QuotaExceeded" in entry["reason"]) == ("failed", True)
    assert "Not every mapping is sealed: --report FILE says which are not, and why." in result.stderr
    assert "refused every change" not in result.stderr


async def test_in_words_keys_are_counted_and_a_key_that_is_not_held_is_named(
    local_azure: LocalAzure, people: dict[str, User], acs_auth: AcsAuth, environment: Environment
) -> None:
    give(local_azure, people["alex"], "alex", sealed=True)
    key = seals_of(local_azure).key_id
    complete = await acs_auth("seal")
    assert (complete.exit_code, complete.stderr) == (0, "")
    assert f"        1  by the key {key}\n" in complete.stdout
    environment["GRAPH_SEAL_KEYS"] = NEW_KEY
    result = await acs_auth("seal")
    assert result.exit_code == 3
    assert f"        1  by the key {key}, which is not in GRAPH_SEAL_KEYS\n" in result.stdout


async def test_in_words_a_list_that_breaks_off_and_a_missing_permission_are_told_with_what_to_do(
    local_azure: LocalAzure, people: dict[str, User], acs_auth: AcsAuth
) -> None:
    give(local_azure, people["alex"], "alex")
    denied = {"error": {"code": "Authorization_RequestDenied", "message": "Insufficient privileges."}}
    local_azure.graph.faults.script("list_users", Fault(status=403, body=denied))
    stopped = await acs_auth("seal")
    assert stopped.exit_code == 3
    assert stopped.stderr.startswith("Nothing was sealed. Microsoft Graph can't be read: Microsoft Graph denied access")
    local_azure.graph.faults.script("update_user_extension", Fault(status=403, body=denied))
    refused = await acs_auth("seal")
    assert refused.exit_code == 3
    assert "Microsoft Graph refused every change: does the application have the permission" in refused.stderr
