"""`acs-auth reconcile` finds every mapping that can't be used, and changes only what it is told to."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from hypothesis import given
from hypothesis import strategies as st

from local_azure.acs import IDENTITY_OPERATIONS
from local_azure.entra.directory import HOME_TENANT
from local_azure.environment import LocalAzure
from local_azure.faults import Fault
from quart_app.acs.absence import AbsenceUnproven
from quart_app.acs.interface import (
    AcsToken,
    AcsUnavailable,
    IdentityGone,
    IdentityNotOwned,
    TokenRequest,
    UnexpectedAnswer,
)
from quart_app.operations.reconciliation import MappingState, ReconciliationOptions, Repair, reconcile
from storage.cosmos import open_cosmos_store
from storage.cosmos_options import CosmosOptions
from storage.mapping import (
    IdentityMapping,
    MappingStore,
    StoreUnavailable,
    Unreadable,
    UnreadableMapping,
    UserKey,
)
from tests.quart_app.cli.conftest import AcsAuth, extend
from tests.support.memory_acs import MemoryAcsClient
from tests.support.memory_store import MemoryMappingStore
from upstream.errors import Cause

LIVE, BEGUN, GONE, FOREIGN = (UserKey("tenant", name) for name in ("live", "begun", "gone", "foreign"))


@pytest.fixture
async def store(local_azure: LocalAzure, sqlite_store: MappingStore) -> MappingStore:
    """Two mappings in order and one of every kind that is not."""
    store = sqlite_store
    await store.create(LIVE, local_azure.acs.mint())
    await store.create(UserKey("tenant", "live too"), local_azure.acs.mint())
    await store.change(await store.create(BEGUN, local_azure.acs.mint()), deleting=True)
    gone = local_azure.acs.mint()
    local_azure.acs.forget(gone)
    await store.create(GONE, gone)
    await store.create(FOREIGN, local_azure.acs.foreign_id())
    return store


async def proven() -> None:
    """Stands in for the canary where ACS is one in memory."""


async def left(store: MappingStore) -> set[UserKey | None]:
    return {mapping.user async for mapping in store.mappings()}


def counts(result: Result) -> dict[str, Any]:
    report = json.loads(result.stdout)
    return {name: report[name] for name in ("live", "in_deletion", "gone", "other_resource", "unknown")}


FOUND = {"live": 2, "in_deletion": 1, "gone": 1, "other_resource": 1, "unknown": 0}


async def test_a_dry_run_only_looks(local_azure: LocalAzure, store: MappingStore, acs_auth: AcsAuth) -> None:
    before = local_azure.acs.live_identities()
    result = await acs_auth("reconcile", "--dry-run", "--json")
    assert (result.exit_code, counts(result)) == (1, FOUND)
    assert len(await left(store)) == 5
    assert local_azure.acs.live_identities() == before


@pytest.mark.parametrize("option", [("--repair",), ("--remove-up-to", "5")])
async def test_a_dry_run_that_repairs_is_refused(
    option: tuple[str, ...], store: MappingStore, acs_auth: AcsAuth
) -> None:
    result = await acs_auth("reconcile", "--dry-run", *option)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "--dry-run changes nothing, so it can't go with --repair." in result.stderr
    assert len(await left(store)) == 5


async def test_by_itself_it_finishes_deletions_and_leaves_the_rest(
    local_azure: LocalAzure, store: MappingStore, acs_auth: AcsAuth
) -> None:
    result = await acs_auth("reconcile", "--json")
    assert (result.exit_code, counts(result)) == (1, FOUND)
    assert json.loads(result.stdout)["repairs"] == {"removed": 1, "changed": 0, "failed": 0}
    assert BEGUN not in await left(store)
    assert len(await left(store)) == 4
    assert len(local_azure.acs.live_identities()) == 2


async def test_repair_removes_what_can_not_be_used_and_a_second_run_finds_nothing(
    local_azure: LocalAzure, store: MappingStore, acs_auth: AcsAuth, tmp_path: Path
) -> None:
    result = await acs_auth("reconcile", "--repair", "--json", "--report", str(tmp_path / "report.json"))
    assert result.exit_code == 0
    assert await left(store) == {LIVE, UserKey("tenant", "live too")}
    entries = json.loads((tmp_path / "report.json").read_text())["mappings"]
    assert {(each["subject"], each["state"], each["repair"]) for each in entries} == {
        ("begun", "in_deletion", "removed"),
        ("gone", "gone", "removed"),
        ("foreign", "other_resource", "removed"),
    }
    again = await acs_auth("reconcile")
    assert again.exit_code == 0
    assert "foreign" not in result.output


async def test_a_users_own_tokens_stay_good(local_azure: LocalAzure, store: MappingStore, acs_auth: AcsAuth) -> None:
    mapping = await store.get(LIVE)
    assert mapping is not None
    token = local_azure.acs.issue_token(mapping.acs_user_id, ["chat"], 60)
    await acs_auth("reconcile", "--repair")
    assert local_azure.acs.verify_token(token)


async def test_the_wrong_acs_resource_in_the_settings_repairs_nothing(
    local_azure: LocalAzure, sqlite_store: MappingStore, acs_auth: AcsAuth
) -> None:
    store = sqlite_store
    for number in range(11):
        await store.create(UserKey("tenant", str(number)), local_azure.acs.foreign_id())
    result = await acs_auth("reconcile", "--repair")
    assert result.exit_code == 1
    assert "11 of 11 mappings would be removed" in result.stderr
    assert "--remove-up-to 11" in result.stderr
    assert len(await left(store)) == 11
    assert (await acs_auth("reconcile", "--repair", "--remove-up-to", "10")).exit_code == 1
    assert len(await left(store)) == 11
    assert (await acs_auth("reconcile", "--repair", "--remove-up-to", "11")).exit_code == 0
    assert await left(store) == set()


@pytest.mark.parametrize(("lost", "live", "removed"), [(10, 0, 10), (11, 98, 0), (11, 99, 11)])
async def test_more_than_ten_and_more_than_a_tenth_are_not_removed(lost: int, live: int, removed: int) -> None:
    store, acs = MemoryMappingStore(), MemoryAcsClient()
    for number in range(lost):
        await store.create(UserKey("lost", str(number)), f"8:acs:foreign_{number}")
    for number in range(live):
        await store.create(UserKey("live", str(number)), await acs.create_identity())
    report = await reconcile(store, acs, ReconciliationOptions(repair=True), proven)
    assert report.repairs[Repair.REMOVED] == removed
    assert bool(report.refused) is not bool(removed)


async def test_marked_deletions_do_not_count_for_the_limit() -> None:
    store, acs = MemoryMappingStore(), MemoryAcsClient()
    for number in range(30):
        await store.change(
            await store.create(UserKey("begun", str(number)), await acs.create_identity()), deleting=True
        )
    await store.create(FOREIGN, "8:acs:foreign_1")
    report = await reconcile(store, acs, ReconciliationOptions(repair=True), proven)
    assert (report.repairs[Repair.REMOVED], report.refused) == (31, None)


async def test_without_proof_nothing_is_removed_but_marked_deletions_are_finished() -> None:
    async def unproven() -> None:
        raise AbsenceUnproven("ACS is odd.")

    store, acs = MemoryMappingStore(), MemoryAcsClient()
    await store.create(FOREIGN, "8:acs:foreign_1")
    report = await reconcile(store, acs, ReconciliationOptions(repair=True, remove_up_to=1000), unproven)
    assert (report.repairs[Repair.REMOVED], report.refused) == (0, "ACS is odd. Nothing was repaired.")
    assert await left(store) == {FOREIGN}


async def test_an_endpoint_that_knows_no_identity_at_all_costs_no_mapping(
    local_azure: LocalAzure, store: MappingStore, acs_auth: AcsAuth
) -> None:
    """A deleted resource's endpoint, or a gateway, that answers 404 with a code."""
    unknown = {"error": {"code": "ResourceNotFound", "message": "x"}}
    for operation in IDENTITY_OPERATIONS:
        local_azure.acs.faults.script(operation, Fault(status=404, body=unknown, times=None))
    before = await left(store)
    result = await acs_auth("reconcile", "--repair", "--remove-up-to", "1000", "--json")
    assert (result.exit_code, counts(result)["unknown"]) == (3, 4)
    assert json.loads(result.stdout)["repairs"]["removed"] == 0
    assert await left(store) == before


async def test_what_acs_does_not_answer_is_unknown_and_not_repaired(
    local_azure: LocalAzure, store: MappingStore, acs_auth: AcsAuth
) -> None:
    denied = {"error": {"code": "Denied", "message": "Denied by the resource provider."}}
    local_azure.acs.faults.script("issue_access_token", Fault(status=401, body=denied, times=None))
    result = await acs_auth("reconcile", "--repair", "--json")
    assert (result.exit_code, counts(result)["unknown"]) == (3, 4)
    assert len(await left(store)) == 4


async def test_graph_is_reconciled_by_application_permission(
    local_azure: LocalAzure, environment: dict[str, str | None], acs_auth: AcsAuth
) -> None:
    alex, megan = local_azure.entra.users["alex"], local_azure.entra.users["megan"]
    extend(local_azure, alex.tenant_id, alex.object_id, local_azure.acs.mint(), acsUserIdentityDeleting=True)
    extend(local_azure, megan.tenant_id, megan.object_id, local_azure.acs.mint())
    result = await acs_auth("reconcile", "--store", "graph", "--json")
    assert (result.exit_code, counts(result)["live"]) == (0, 1)
    assert local_azure.graph.extensions.of(HOME_TENANT.tenant_id, alex.object_id) == []
    assert len(local_azure.acs.live_identities()) == 1


async def test_a_mapping_that_someone_replaced_meanwhile_is_left_alone() -> None:
    store, acs = MemoryMappingStore(), MemoryAcsClient()
    dead = await acs.create_identity()
    await acs.delete_identity(dead)
    mapping = await store.create(LIVE, dead)

    class Meanwhile(MemoryAcsClient):
        """The user deletes and signs up again right after ACS was asked."""

        async def issue_token(self, acs_user_id: str, request: TokenRequest | None = None) -> AcsToken:
            try:
                return await acs.issue_token(acs_user_id)
            finally:
                await store.remove(mapping)
                await store.create(LIVE, await acs.create_identity())

    report = await reconcile(store, Meanwhile(), ReconciliationOptions(repair=True), proven)
    assert (report.states[MappingState.GONE], report.repairs[Repair.CHANGED]) == (1, 1)
    assert await left(store) == {LIVE}
    assert not report.clean


async def test_a_store_that_can_not_be_read_to_the_end_is_told() -> None:
    class Breaking(MemoryMappingStore):
        def mappings(self) -> AsyncIterator[IdentityMapping]:
            async def none() -> AsyncIterator[IdentityMapping]:
                raise StoreUnavailable
                yield

            return none()

    report = await reconcile(Breaking(), MemoryAcsClient(), ReconciliationOptions(), proven)
    assert report.stopped == "The store can't be read to the end: The mapping store is unavailable."
    assert (report.clean, report.partial, report.unlisted) == (False, True, True)
    assert [(each.upstream, count) for each, count in report.trouble.items()] == [("store", 0)]


@pytest.mark.parametrize("storage", ["sqlite", "cosmos"])
async def test_an_identity_at_two_users_is_told_and_neither_is_touched(
    local_azure: LocalAzure,
    sqlite_store: MappingStore,
    acs_auth: AcsAuth,
    environment: dict[str, str | None],
    tmp_path: Path,
    storage: str,
) -> None:
    identity, other = local_azure.acs.mint(), local_azure.acs.mint()
    await sqlite_store.create(LIVE, identity)
    await sqlite_store.change(await sqlite_store.create(BEGUN, identity), deleting=True)
    await sqlite_store.create(GONE, other)
    if storage == "cosmos":
        sources = [(LIVE, identity, False), (BEGUN, identity, True), (GONE, other, False)]
        given = local_azure.service_environment()
        options = CosmosOptions(
            given["COSMOS_ENDPOINT"], given["COSMOS_DATABASE"], given["COSMOS_CONTAINER"], key=given["COSMOS_KEY"]
        )
        async with aclosing(await open_cosmos_store(options)) as cosmos:
            for user, acs_user_id, deleting in sources:
                await cosmos.change(await cosmos.create(user, acs_user_id), deleting=deleting)
    report = tmp_path / "report.json"
    command = ("reconcile", "--store", storage, "--repair", "--json", "--report", str(report))
    result = await acs_auth(*command)
    found = json.loads(result.stdout)
    assert (result.exit_code, found["mappings"], found["shared"], found["live"]) == (3, 3, 2, 1)
    assert found["repairs"] == {"removed": 0, "changed": 0, "failed": 0}
    assert set(local_azure.acs.live_identities()) == {identity, other}
    entries = json.loads(report.read_text())["mappings"]
    assert {(each["subject"], each["state"]) for each in entries} == {("live", "shared"), ("begun", "shared")}


async def test_what_can_not_be_read_is_counted_named_and_left() -> None:
    store, acs = MemoryMappingStore(), MemoryAcsClient()
    await store.create(LIVE, await acs.create_identity())
    store.unreadable[BEGUN] = UnreadableMapping(BEGUN, "1", Unreadable.UNSEALED, key="begun")
    store.unreadable[GONE] = UnreadableMapping(None, "2", Unreadable.DAMAGED, "it is a note", key="a-note")
    report = await reconcile(store, acs, ReconciliationOptions(repair=True), proven)
    assert (report.mappings, report.states[MappingState.LIVE], report.states[MappingState.UNREADABLE]) == (1, 1, 2)
    assert (report.partial, report.clean) == (True, False)
    assert {(entry.key, entry.reason) for entry in report.entries} == {
        ("begun", "unsealed"),
        ("a-note", "damaged: it is a note"),
    }
    assert len(store.unreadable) == 2


async def test_a_store_that_breaks_off_while_mappings_are_looked_at_leaves_the_rest_undecided() -> None:
    class Breaking(MemoryMappingStore):
        listings = 0

        def mappings(self) -> AsyncIterator[IdentityMapping | UnreadableMapping]:
            self.listings += 1
            whole = super().mappings()
            if self.listings == 1:
                return whole

            async def one() -> AsyncIterator[IdentityMapping | UnreadableMapping]:
                yield await anext(whole)
                raise StoreUnavailable

            return one()

    store, acs = Breaking(), MemoryAcsClient()
    for number in range(3):
        await store.create(UserKey("tenant", str(number)), await acs.create_identity())
    report = await reconcile(store, acs, ReconciliationOptions(concurrency=1), proven)
    assert (report.mappings, report.undecided, report.unlisted) == (3, 2, False)
    assert (report.clean, report.partial) == (False, True)


class Out(MemoryAcsClient):
    """ACS in an outage that begins after `answers` calls about tokens or deletions."""

    def __init__(self, answers: int) -> None:
        super().__init__()
        self.answers = answers
        self.asked = 0

    def _ask(self) -> None:
        self.asked += 1
        if self.asked > self.answers:
            raise AcsUnavailable().because(Cause(503, advice="It passes."))

    async def issue_token(self, acs_user_id: str, request: TokenRequest | None = None) -> AcsToken:
        self._ask()
        return await super().issue_token(acs_user_id, request)

    async def delete_identity(self, acs_user_id: str) -> None:
        self._ask()
        await super().delete_identity(acs_user_id)


async def test_an_outage_stops_the_run_early_and_nothing_is_acted_on() -> None:
    store, acs = MemoryMappingStore(), Out(20)
    for number in range(10):
        begun = await store.create(UserKey("begun", str(number)), await acs.create_identity())
        await store.change(begun, deleting=True)
    for number in range(200):
        await store.create(UserKey("tenant", str(number)), await acs.create_identity())
    report = await reconcile(store, acs, ReconciliationOptions(repair=True), proven)
    assert report.stopped == "10 mappings in a row failed, the last one like this: ACS is unavailable. It passes."
    assert 30 <= acs.asked < 30 + ReconciliationOptions().concurrency
    assert (report.mappings, report.undecided) == (210, 180)
    assert [(each.upstream, each.reason) for each in report.trouble] == [("acs", "ACS is unavailable. It passes.")]
    assert (report.repairs.total(), report.partial, report.clean) == (0, True, False)
    assert len(await left(store)) == 210


async def test_an_outage_while_repairing_stops_the_repair() -> None:
    store, acs = MemoryMappingStore(), Out(5)
    for number in range(100):
        begun = await store.create(UserKey("begun", str(number)), await acs.create_identity())
        await store.change(begun, deleting=True)
    report = await reconcile(store, acs, ReconciliationOptions(), proven)
    assert (report.repairs[Repair.REMOVED], report.undecided) == (5, 0)
    assert acs.asked < 5 + 10 + ReconciliationOptions().concurrency
    assert (report.partial, len(await left(store))) == (True, 95)
    assert report.stopped is not None


ANSWERS = st.lists(st.sampled_from(["live", "gone", "foreign", "begun", "silent", "odd"]), max_size=40)


@given(answers=ANSWERS, repair=st.booleans(), remove_up_to=st.sampled_from([None, 1, 100]))
def test_what_could_not_be_looked_at_is_never_removed_and_every_mapping_is_accounted_for(
    answers: list[str], repair: bool, remove_up_to: int | None
) -> None:
    class Answering(MemoryAcsClient):
        async def issue_token(self, acs_user_id: str, request: TokenRequest | None = None) -> AcsToken:
            match kinds[acs_user_id]:
                case "silent":
                    raise AcsUnavailable
                case "odd":
                    raise UnexpectedAnswer(418)
                case "gone":
                    raise IdentityGone
                case "foreign":
                    raise IdentityNotOwned
            return AcsToken("x", "")

    kinds: dict[str, str] = {}

    async def run() -> None:
        store, acs = MemoryMappingStore(), Answering()
        for number, kind in enumerate(answers):
            identity = await acs.create_identity()
            kinds[identity] = kind
            mapping = await store.create(UserKey("tenant", str(number)), identity)
            if kind == "begun":
                await store.change(mapping, deleting=True)
        options = ReconciliationOptions(repair=repair, remove_up_to=remove_up_to, concurrency=1)
        report = await reconcile(store, acs, options, proven)
        kept = {kinds[each.acs_user_id] async for each in store.mappings() if isinstance(each, IdentityMapping)}
        gone = len(answers) - len(await left(store))
        decided = sum(report.states[each] for each in MappingState) - report.states[MappingState.UNKNOWN]
        assert (report.mappings, report.undecided) == (len(answers), len(answers) - decided)
        assert report.repairs[Repair.REMOVED] == gone
        assert {"live", "silent", "odd"} & set(answers) <= kept
        assert not gone or report.stopped is None
        assert report.clean == (not await left(store) or kept == {"live"})

    asyncio.run(run())


async def test_an_outage_is_told_with_its_upstream_and_no_advice_to_repair(
    local_azure: LocalAzure, sqlite_store: MappingStore, acs_auth: AcsAuth, tmp_path: Path
) -> None:
    for number in range(30):
        await sqlite_store.create(UserKey("tenant", str(number)), local_azure.acs.mint())
    denied = {"error": {"code": "Denied", "message": "Denied by the resource provider."}}
    local_azure.acs.faults.script("issue_access_token", Fault(status=401, body=denied, times=None))
    result = await acs_auth("reconcile")
    assert result.exit_code == 3
    assert "       30  could not be checked" in result.stdout
    assert "Stopped early. 10 mappings in a row failed, the last one like this: ACS refused" in result.stderr
    assert "Nothing was decided about 30 mappings, because of Azure Communication Services." in result.stderr
    assert "--repair" not in result.stderr
    assert "--report" not in result.stderr
    document = json.loads((await acs_auth("reconcile", "--repair", "--json")).stdout)
    assert (document["unknown"], document["removable"], document["stopped"][:10]) == (30, 0, "10 mapping")
    [trouble] = document["trouble"]
    assert (trouble["upstream"], trouble["reason"][:12]) == ("acs", "ACS refused ")
    assert 10 <= trouble["mappings"] < 18


async def test_a_store_that_can_not_be_listed_decides_nothing_about_any_mapping(
    local_azure: LocalAzure, acs_auth: AcsAuth
) -> None:
    denied = {"error": {"code": "Authorization_RequestDenied", "message": "Insufficient privileges."}}
    local_azure.graph.faults.script("list_users", Fault(status=403, body=denied, times=None))
    result = await acs_auth("reconcile", "--store", "graph")
    assert result.exit_code == 3
    assert "Nothing was decided about any mapping of the store, because of the mapping store." in result.stderr
    assert "--repair" not in result.stderr


async def test_repair_is_advised_only_for_what_it_would_delete(
    local_azure: LocalAzure, store: MappingStore, acs_auth: AcsAuth
) -> None:
    result = await acs_auth("reconcile")
    assert "Mappings that --repair would delete: 2." in result.stderr
    assert "--report FILE says which mappings are not in order, and why." in result.stderr
    assert (await acs_auth("reconcile", "--repair")).stderr == ""


async def test_waits_are_told_while_they_last(
    local_azure: LocalAzure, sqlite_store: MappingStore, acs_auth: AcsAuth
) -> None:
    await sqlite_store.create(LIVE, local_azure.acs.mint())
    local_azure.acs.faults.script("issue_access_token", Fault(status=429, headers={"Retry-After": "0"}, times=2))
    result = await acs_auth("reconcile")
    assert result.exit_code == 0
    assert result.stderr.startswith("Waiting and trying again (1 so far): ACS is throttling requests.")


async def test_a_store_that_can_not_be_opened_is_told_in_json_too(
    local_azure: LocalAzure, environment: dict[str, str | None], acs_auth: AcsAuth
) -> None:
    environment["COSMOS_CONTAINER"] = "none"
    for command in (("reconcile", "--store", "cosmos"), ("migrate", "--from", "cosmos", "--to", "sqlite")):
        result = await acs_auth(*command, "--json")
        document = json.loads(result.stdout)
        assert (result.exit_code, document["upstream"]) == (1, "store")
        assert document["error"] == result.stderr.strip()
