"""The Graph store fulfils the store contract, over the wire; and what is its own."""

import asyncio
import base64
import dataclasses
import hashlib
import hmac
import json
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, nullcontext
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import aiohttp
import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from local_azure.faults import Fault
from local_azure.graph import DirectoryUser, Graph, OpenExtension
from storage.graph import GraphMappingStore, UserNotChangeable, open_graph_store
from storage.graph_options import GraphOptions
from storage.guarded import GuardedStore
from storage.mapping import (
    UNKNOWN_CREATION,
    ExtensionLimitReached,
    MappingChanged,
    MappingExists,
    MappingStore,
    MappingUnreadable,
    StoreAccessDenied,
    StoreError,
    StoreMisconfigured,
    StoreThrottled,
    StoreUnavailable,
    StoreUnexpectedAnswer,
    Unreadable,
    UnreadableMapping,
    UserKey,
)
from storage.seal import SealKey, Seals
from tests.support import store_contract as contract
from tests.support.acs_ids import acs_id
from tests.support.held_time import time_running_out
from tests.support.running_graph import SEAL_KEYS, RunningGraph, running_graph
from tests.support.store_contract import ALICE, BOB, WRAPPERS, OpenStore, listed, no_wait
from upstream.retrying import RetryPolicy

NAME = "com.contoso.identityMapping"
EXTENSION = {"@odata.type": "microsoft.graph.openTypeExtension", "extensionName": NAME}
READ = "/me?$expand=extensions&$select=id"  # as the Node.js sample asks


class UserTokens:
    """A delegated token for every user whom the store asks for, who is in the directory from then on."""

    def __init__(self, running: RunningGraph, scopes: str = "User.ReadWrite") -> None:
        self._running = running
        self._scopes = scopes
        self._tokens: dict[UserKey, str] = {}

    def refused(self, user: UserKey) -> None:
        self._tokens.pop(user, None)

    async def access_token(self, user: UserKey) -> str:
        if user not in self._tokens:
            entry = DirectoryUser(user.issuer, user.subject, "")
            if entry not in self._running.users:
                self._running.users.append(entry)
            self._tokens[user] = self._running.user_token(entry, self._scopes)
        return self._tokens[user]


class AppTokens:
    """App-only tokens for all tenants of the directory."""

    def __init__(self, running: RunningGraph, *roles: str) -> None:
        self._running = running
        self._roles = roles or ("User.ReadWrite.All",)
        self._tokens: dict[str, str] = {}

    @property
    def tenants(self) -> Sequence[str]:
        return sorted({user.tenant_id for user in self._running.users})

    async def access_token(self, tenant_id: str) -> str:
        return self._tokens.setdefault(tenant_id, self._running.app_token(*self._roles, tid=tenant_id))


async def open_for(running: RunningGraph, **changes: Any) -> GraphMappingStore:
    settings = GraphOptions(SEAL_KEYS, base_url=running.url, page_size=5, **changes)
    return await open_graph_store(settings, UserTokens(running), AppTokens(running))


class WithServer:
    """A store that closes the stand-in behind it too."""

    def __init__(self, store: MappingStore, stack: AsyncExitStack) -> None:
        self._stack = stack
        self._store = store
        self.get, self.create, self.change = store.get, store.create, store.change
        self.remove, self.mappings, self.page, self.ping = store.remove, store.mappings, store.page, store.ping

    async def aclose(self) -> None:
        await self._store.aclose()
        await self._stack.aclose()


@pytest.fixture
def directories(state_directory: Path) -> Callable[[], Path]:
    """Directories for new stand-ins, with the certificate authority that this process trusts."""

    def new() -> Path:
        directory = Path(tempfile.mkdtemp(dir=state_directory))
        for name in ("ca.pem", "ca-key.pem"):
            (directory / name).write_bytes((state_directory / name).read_bytes())
        return directory

    return new


@pytest.fixture
async def running(state_directory: Path) -> AsyncIterator[RunningGraph]:
    async with running_graph(state_directory) as running:
        yield running


@pytest.fixture
def graph(running: RunningGraph) -> Graph:
    return running.graph


@pytest.fixture
def open_back_end(directories: Callable[[], Path]) -> OpenStore:
    async def open_new() -> MappingStore:
        stack = AsyncExitStack()
        running = await stack.enter_async_context(running_graph(directories()))
        return WithServer(await open_for(running), stack)

    return open_new


class TestPlainUse(contract.PlainUse): ...


class TestConcurrency(contract.Concurrency): ...


class TestFaults(contract.Faults):
    @pytest.fixture
    async def store(self, running: RunningGraph, wrapper: str) -> AsyncIterator[MappingStore]:
        store = WRAPPERS[wrapper](await open_for(running))
        yield store
        await store.aclose()

    @pytest.fixture
    def faults(self, graph: Graph) -> "WireFaults":
        return WireFaults(graph)


class TestStateMachine(contract.StateMachine):
    def test_any_sequence_of_calls_does_what_the_model_does(self, open_store: OpenStore) -> None:
        run_state_machine_as_test(
            lambda: contract.StoreMachine(open_store),  # type: ignore[arg-type]  # Anything that makes a machine will do.
            # Fewer examples than for stores without a wire: every step is several requests.
            settings=settings(max_examples=5, stateful_step_count=15, deadline=None, derandomize=True),
        )


class WireFaults:
    """The faults of the store contract, scripted on the stand-in, below the client."""

    def __init__(self, graph: Graph) -> None:
        self._faults = graph.faults

    def throttle(self, operation: str, *, retry_after: float, times: int | None = 1) -> None:
        fault = Fault(status=429, headers={"Retry-After": str(round(retry_after))}, times=times)
        self._faults.script(FIRST_REQUESTS[operation], fault)

    def fail(self, operation: str, *, times: int | None = 1) -> None:
        self._faults.script(FIRST_REQUESTS[operation], Fault(status=503, times=times))

    def lose_answer(self, operation: str, *, times: int | None = 1) -> None:
        self._faults.script(WRITES.get(operation, FIRST_REQUESTS[operation]), Fault(drop_answer=True, times=times))

    def clear(self) -> None:
        self._faults.clear()


WRITES = {"create": "create_extension", "change": "update_extension", "remove": "delete_extension"}
FIRST_REQUESTS = {
    "get": "get_me",
    "create": "create_extension",
    "change": "get_me",
    "remove": "get_me",
    "mappings": "list_users",
    "ping": "get_me",
}


class Sample:
    """Microsoft's Node.js sample, as far as it speaks to Graph."""

    def __init__(self, running: RunningGraph, user: UserKey) -> None:
        entry = DirectoryUser(user.issuer, user.subject, "")
        running.users.append(entry)
        self._root = f"{running.url}/v1.0"
        self._headers = {"Authorization": f"Bearer {running.user_token(entry)}"}

    async def request(self, method: str, path: str, body: Any = None) -> Any:
        async with (
            aiohttp.ClientSession() as session,
            session.request(method, self._root + path, json=body, headers=self._headers) as answer,
        ):
            assert answer.ok, await answer.text()
            return await answer.json() if answer.status != 204 else None

    async def identity(self) -> Any:
        for extension in (await self.request("GET", READ))["extensions"]:
            if extension["extensionName"] == NAME:
                return extension["acsUserIdentity"]
        return None

    async def add(self, acs_user_id: str, **more: Any) -> None:
        await self.request("POST", "/me/extensions", {**EXTENSION, "acsUserIdentity": acs_user_id, **more})


@pytest.fixture
async def graph_store(running: RunningGraph) -> AsyncIterator[GraphMappingStore]:
    store = await open_for(running)
    yield store
    await store.aclose()


@pytest.fixture
def sample(running: RunningGraph) -> Sample:
    return Sample(running, ALICE)


def stored(graph: Graph, user: UserKey = ALICE) -> dict[str, Any]:
    found = graph.extensions.get(user.issuer, user.subject, NAME)
    assert found is not None
    return found.properties


def tamper(graph: Graph, user: UserKey = ALICE, **changes: Any) -> None:
    """Change properties of the extension as its user can; `...` takes one away."""
    properties = {name: value for name, value in {**stored(graph, user), **changes}.items() if value is not ...}
    assert graph.extensions.replace(user.issuer, user.subject, OpenExtension(NAME, properties))


async def test_the_samples_read_what_the_store_wrote_also_while_it_is_being_deleted(
    graph_store: GraphMappingStore, sample: Sample
) -> None:
    created = await graph_store.create(ALICE, acs_id("one"))
    assert await sample.identity() == acs_id("one")
    await graph_store.change(created, deleting=True)
    assert await sample.identity() == acs_id("one")


async def test_the_store_reads_and_deletes_what_a_sample_wrote_once_it_is_sealed(
    graph_store: GraphMappingStore, sample: Sample
) -> None:
    await sample.add(acs_id("sample"))
    with pytest.raises(MappingUnreadable):
        await graph_store.get(ALICE)
    extension = await graph_store.extension(ALICE)
    assert extension is not None
    await graph_store.seal(extension)
    await graph_store.seal(extension)  # as after a lost answer
    assert await sample.identity() == acs_id("sample")
    found = await graph_store.get(ALICE)
    assert found is not None
    assert (found.acs_user_id, found.deleting, found.created_at) == (acs_id("sample"), False, UNKNOWN_CREATION)
    await graph_store.remove(await graph_store.change(found, deleting=True))
    assert await sample.identity() is None


async def test_extensions_of_other_names_are_neither_read_nor_touched(
    graph_store: GraphMappingStore, sample: Sample
) -> None:
    other = {**EXTENSION, "extensionName": "com.example.other", "acsUserIdentity": acs_id("other")}
    await sample.request("POST", "/me/extensions", other)
    assert await graph_store.get(ALICE) is None
    assert await listed(graph_store) == []
    await graph_store.remove(await graph_store.create(ALICE, acs_id("one")))
    assert len((await sample.request("GET", READ))["extensions"]) == 1


async def test_the_extensions_name_is_a_setting(running: RunningGraph, graph: Graph) -> None:
    store = await open_for(running, extension_name="com.example.mapping")
    marked = await store.change(await store.create(ALICE, acs_id("one")), deleting=True)
    assert await store.get(ALICE) == marked
    assert [found.name for found in graph.extensions.of(ALICE.issuer, ALICE.subject)] == ["com.example.mapping"]
    await store.remove(marked)
    await store.aclose()


async def test_marking_erases_no_property_whoever_wrote_it(
    graph_store: GraphMappingStore, graph: Graph, sample: Sample
) -> None:
    seal = Seals(SEAL_KEYS, NAME).seal(ALICE, acs_id("one"))
    await sample.add(acs_id("one"), note="kept", count=3, acsUserIdentitySeal=seal)
    found = await graph_store.get(ALICE)
    assert found is not None
    await graph_store.change(found, deleting=True)
    assert stored(graph) == {
        "acsUserIdentity": acs_id("one"),
        "note": "kept",
        "count": 3,
        "acsUserIdentitySeal": seal,
        "acsUserIdentityDeleting": True,
    }


async def test_the_third_extension_of_the_app_is_a_limit(graph_store: GraphMappingStore, sample: Sample) -> None:
    for name in ("one", "two"):
        await sample.request("POST", "/me/extensions", {**EXTENSION, "extensionName": name})
    with pytest.raises(ExtensionLimitReached):
        await graph_store.create(ALICE, acs_id("one"))


async def test_a_read_that_does_not_see_a_create_yet_is_repeated_and_the_winner_reported(
    graph_store: GraphMappingStore, graph: Graph
) -> None:
    graph.extensions.lag_reads = 1
    created = await graph_store.create(ALICE, acs_id("one"))
    with pytest.raises(MappingExists) as conflict:
        await graph_store.create(ALICE, acs_id("two"))
    assert conflict.value.existing == created


async def test_a_longer_lag_is_trouble_and_never_absence(graph_store: GraphMappingStore, graph: Graph) -> None:
    graph.extensions.lag_reads = 3
    created = await graph_store.create(ALICE, acs_id("one"))
    with pytest.raises(StoreThrottled) as error:
        await graph_store.create(ALICE, acs_id("two"))
    assert error.value.retry_after == 1
    assert graph.faults.counts["create_extension"] == 1 + 3
    assert await graph_store.get(ALICE) == created


async def test_the_retry_layer_waits_a_lag_out(graph_store: GraphMappingStore, graph: Graph) -> None:
    graph.extensions.lag_reads = 4
    await graph_store.create(ALICE, acs_id("one"))
    with pytest.raises(MappingExists):
        await GuardedStore(graph_store, RetryPolicy(sleep=no_wait)).create(ALICE, acs_id("two"))


async def test_a_user_with_more_extensions_than_an_expansion_shows_is_read_directly(
    running: RunningGraph, graph_store: GraphMappingStore, graph: Graph
) -> None:
    created = await graph_store.create(ALICE, acs_id("one"))
    others = [{"extensionName": f"com.example.{number}", "id": f"com.example.{number}"} for number in range(20)]
    cut_short = Fault(status=200, body={"id": ALICE.subject, "extensions": others}, times=None)
    graph.faults.script("get_me", cut_short)
    assert await graph_store.get(ALICE) == created
    graph.extensions.delete(ALICE.issuer, ALICE.subject, NAME)
    assert await graph_store.get(ALICE) is None


@pytest.mark.parametrize(
    "body",
    ["not json", [], {}, {"id": ALICE.subject}, {"id": ALICE.subject, "extensions": None}],
)
async def test_an_answer_that_is_not_graphs_is_never_absence(
    graph_store: GraphMappingStore, graph: Graph, body: Any
) -> None:
    graph.faults.script("get_me", Fault(status=200, body=body))
    with pytest.raises(StoreUnavailable):
        await graph_store.get(ALICE)


@pytest.mark.parametrize("body", ["<html>Not Found</html>", "", {}, {"error": "not_found"}], ids=repr)
async def test_a_strangers_404_is_neither_a_removal_nor_a_change_nor_absence(
    graph_store: GraphMappingStore, graph: Graph, body: Any
) -> None:
    created = await graph_store.create(ALICE, acs_id("one"))
    strangers = Fault(status=404, body=body, times=None)
    for operation in ("delete_extension", "update_extension"):
        graph.faults.script(operation, strangers)
    with pytest.raises(StoreUnavailable):
        await graph_store.remove(created)
    with pytest.raises(StoreUnavailable):
        await graph_store.change(created, deleting=True)
    others = [{"extensionName": f"com.example.{number}", "id": f"com.example.{number}"} for number in range(20)]
    graph.faults.script("get_me", Fault(status=200, body={"id": ALICE.subject, "extensions": others}, times=None))
    graph.faults.script("get_extension", strangers)
    with pytest.raises(StoreUnavailable):
        await graph_store.get(ALICE)
    graph.faults.clear()
    assert await graph_store.get(ALICE) == created


async def test_a_create_whose_answer_is_unreadable_is_settled_by_reading(
    graph_store: GraphMappingStore, graph: Graph
) -> None:
    graph.faults.script("create_extension", Fault(status=201, body="<html>"))
    with pytest.raises(StoreUnavailable):
        await graph_store.create(ALICE, acs_id("one"))


@pytest.mark.parametrize(
    "changes",
    [
        {"acsUserIdentity": ...},
        *[{"acsUserIdentity": value} for value in contract.NO_ACS_USER_IDS.values() if value is not None],
        *[{"acsUserIdentityDeleting": value} for value in [*contract.NO_DELETION_MARKS.values(), 0, 1]],
        *[{"acsUserIdentitySignedOutAt": value} for value in contract.NO_SIGN_OUTS.values()],
    ],
    ids=lambda value: repr(value)[:100],
)
async def test_a_value_that_is_not_of_its_form_is_no_mapping_and_no_absence(
    graph_store: GraphMappingStore, graph: Graph, changes: dict[str, Any]
) -> None:
    bob = await graph_store.create(BOB, acs_id("two"))
    await graph_store.create(ALICE, acs_id("one"))
    tamper(graph, **changes)
    with pytest.raises(MappingUnreadable) as error:
        await graph_store.get(ALICE)
    with pytest.raises(MappingUnreadable):
        await graph_store.create(ALICE, acs_id("two"))
    unreadable = error.value.unreadable
    assert (unreadable.user, unreadable.reason, unreadable.users_may_write) == (ALICE, Unreadable.DAMAGED, True)
    found = [stored async for stored in graph_store.mappings()]
    assert len(found) == 2
    assert bob in found
    assert unreadable in found
    await graph_store.remove(unreadable)
    assert await graph_store.get(ALICE) is None
    await graph_store.remove(unreadable)
    created = await graph_store.create(ALICE, acs_id("three"))
    with pytest.raises(MappingChanged):
        await graph_store.remove(unreadable)
    assert await graph_store.get(ALICE) == created


@pytest.mark.parametrize("time", [*list(contract.UNKNOWN_TIMES.values())[1:], ..., 5, True, []], ids=repr)
async def test_a_time_that_is_none_is_an_unknown_creation(
    graph_store: GraphMappingStore, graph: Graph, time: object
) -> None:
    await graph_store.create(ALICE, acs_id("one"))
    tamper(graph, acsUserIdentityCreatedAt=time)
    found = await graph_store.get(ALICE)
    assert found is not None
    assert (found.acs_user_id, found.created_at) == (acs_id("one"), UNKNOWN_CREATION)


SOUND = Seals(SEAL_KEYS, NAME)


def flipped(seal: str) -> list[str]:
    """Seals that differ from this one in one character, or in how they are written."""
    return [
        *(seal[:n] + ("0" if seal[n] != "0" else "1") + seal[n + 1 :] for n in (9, 30, len(seal) - 1)),
        seal[:-1],
        seal + "=",
        seal + "A",
        seal.upper(),
        " " + seal,
        seal + "\n",
        seal.replace(".", ":"),
        seal.partition(".")[2],
    ]


FOREIGN_SEALS: dict[str, object] = {
    "another user's": SOUND.seal(BOB, acs_id("one")),
    "another identity's": SOUND.seal(ALICE, acs_id("two")),
    "another tenant's": SOUND.seal(UserKey("other", ALICE.subject), acs_id("one")),
    "tenant and user exchanged": SOUND.seal(UserKey(ALICE.subject, ALICE.issuer), acs_id("one")),
    "parts shifted": SOUND.seal(UserKey(ALICE.issuer + ALICE.subject[0], ALICE.subject[1:]), acs_id("one")),
    "another extension's": Seals(SEAL_KEYS, "com.example.other").seal(ALICE, acs_id("one")),
    "by another key under a held key's name": SEAL_KEYS[0].id
    + Seals([SealKey(b"x" * 32)], NAME).seal(ALICE, acs_id("one"))[8:],
    "empty": "",
    "number": 5,
    "truth value": True,
    "list": [SOUND.seal(ALICE, acs_id("one"))],
    "object": {},
    **{f"changed {n}": seal for n, seal in enumerate(flipped(SOUND.seal(ALICE, acs_id("one"))))},
}


class TestSeals:
    async def test_what_the_store_writes_bears_a_seal_that_every_change_keeps(
        self, graph_store: GraphMappingStore, graph: Graph
    ) -> None:
        created = await graph_store.create(ALICE, acs_id("one"))
        seal = stored(graph)["acsUserIdentitySeal"]
        assert seal == SOUND.seal(ALICE, acs_id("one"))
        await graph_store.change(await graph_store.change(created, signed_out_at=contract.NOON), deleting=True)
        assert stored(graph)["acsUserIdentitySeal"] == seal

    def test_a_seal_is_what_is_documented(self) -> None:
        key = SealKey(bytes(range(32)))
        parts = [b"1", NAME.encode(), b"tenant", b"alice", acs_id("one").encode()]
        message = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
        digest = base64.urlsafe_b64encode(hmac.digest(key.secret, message, "sha256")).decode().rstrip("=")
        assert Seals([key], NAME).seal(ALICE, acs_id("one")) == f"{hashlib.sha256(key.secret).hexdigest()[:8]}.{digest}"

    @pytest.mark.parametrize("case", FOREIGN_SEALS)
    async def test_a_seal_of_anything_else_is_no_seal(
        self, graph_store: GraphMappingStore, graph: Graph, case: str
    ) -> None:
        created = await graph_store.create(ALICE, acs_id("one"))
        tamper(graph, acsUserIdentitySeal=FOREIGN_SEALS[case])
        with pytest.raises(MappingUnreadable) as error:
            await graph_store.get(ALICE)
        unreadable = error.value.unreadable
        assert (unreadable.reason, unreadable.acs_user_id) == (Unreadable.FOREIGN_SEAL, None)
        for change in (graph_store.change(created, deleting=True), graph_store.remove(created)):
            with pytest.raises(MappingChanged):
                await change
        assert await contract.unreadable_in(graph_store) == [unreadable]
        await graph_store.remove(unreadable)
        assert await graph_store.get(ALICE) is None

    async def test_without_a_seal_it_is_no_mapping(self, graph_store: GraphMappingStore, graph: Graph) -> None:
        await graph_store.create(ALICE, acs_id("one"))
        tamper(graph, acsUserIdentitySeal=...)
        with pytest.raises(MappingUnreadable) as error:
            await graph_store.get(ALICE)
        assert (error.value.unreadable.reason, error.value.unreadable.acs_user_id) == (Unreadable.UNSEALED, None)

    @pytest.mark.parametrize("value", ["yes", 1])
    async def test_the_seal_is_judged_before_what_the_user_says_of_the_mapping(
        self, graph_store: GraphMappingStore, graph: Graph, value: object
    ) -> None:
        await graph_store.create(ALICE, acs_id("one"))
        tamper(graph, acsUserIdentityDeleting=value)
        (damaged,) = await contract.unreadable_in(graph_store)
        assert (damaged.reason, damaged.acs_user_id) == (Unreadable.DAMAGED, acs_id("one"))
        tamper(graph, acsUserIdentitySeal=SOUND.seal(BOB, acs_id("one")))
        (foreign,) = await contract.unreadable_in(graph_store)
        assert (foreign.reason, foreign.acs_user_id) == (Unreadable.FOREIGN_SEAL, None)

    async def test_every_key_that_is_held_verifies_and_another_one_is_named_as_missing(
        self, running: RunningGraph, graph: Graph
    ) -> None:
        older = await open_graph_store(GraphOptions(SEAL_KEYS[1:], running.url), UserTokens(running))
        created = await older.create(ALICE, acs_id("one"))
        both = await open_graph_store(GraphOptions(SEAL_KEYS, running.url), UserTokens(running))
        assert await both.get(ALICE) == created
        marked = await both.change(created, deleting=True)
        assert stored(graph)["acsUserIdentitySeal"].startswith(SEAL_KEYS[1].id + ".")
        newer = await open_graph_store(GraphOptions(SEAL_KEYS[:1], running.url), UserTokens(running))
        with pytest.raises(MappingUnreadable) as error:
            await newer.get(ALICE)
        unreadable = error.value.unreadable
        assert (unreadable.reason, unreadable.acs_user_id) == (Unreadable.SEAL_KEY_NOT_HELD, None)
        assert await older.get(ALICE) == marked
        for store in (older, both, newer):
            await store.aclose()

    def test_object_ids_have_no_case(self) -> None:
        upper = UserKey(ALICE.issuer.upper(), ALICE.subject.upper())
        assert SOUND.seal(upper, acs_id("one")) == SOUND.seal(ALICE, acs_id("one"))

    async def test_one_without_a_seal_is_taken_as_such_through_the_day_that_is_set_and_never_sealed_by_a_change(
        self, running: RunningGraph, graph: Graph
    ) -> None:
        now = datetime(2026, 11, 30, 23, 59, 59, tzinfo=UTC)
        options = GraphOptions(SEAL_KEYS, running.url, accept_unsealed_until=date(2026, 11, 30))
        store = await open_graph_store(options, UserTokens(running), now=lambda: now)
        await store.create(ALICE, acs_id("one"))
        tamper(graph, acsUserIdentitySeal=...)
        found = await store.get(ALICE)
        assert found is not None
        assert found.unsealed
        marked = await store.change(found, deleting=True)
        assert marked.unsealed
        assert "acsUserIdentitySeal" not in stored(graph)
        now += timedelta(seconds=1)
        with pytest.raises(MappingUnreadable):
            await store.get(ALICE)
        await store.aclose()

    def test_nothing_shows_a_key(self) -> None:
        assert "the key that seals" not in f"{SEAL_KEYS!r} {GraphOptions(SEAL_KEYS)!r} {SOUND!r}"

    async def test_what_changed_since_it_was_read_is_not_sealed(
        self, graph_store: GraphMappingStore, graph: Graph
    ) -> None:
        await graph_store.create(ALICE, acs_id("one"))
        tamper(graph, acsUserIdentitySeal=...)
        extension = await graph_store.extension(ALICE)
        assert extension is not None
        tamper(graph, acsUserIdentity=acs_id("bobs"))
        with pytest.raises(MappingChanged):
            await graph_store.seal(extension)
        assert "acsUserIdentitySeal" not in stored(graph)


@pytest.mark.parametrize("status", [400, 409])
async def test_a_duplicate_is_known_by_its_message_or_by_a_conflict(
    graph_store: GraphMappingStore, graph: Graph, status: int
) -> None:
    created = await graph_store.create(ALICE, acs_id("one"))
    message = "An extension already exists with given id." if status == 400 else "Conflict."
    body = {"error": {"code": "Request_BadRequest", "message": message}}
    graph.faults.script("create_extension", Fault(status=status, body=body))
    with pytest.raises(MappingExists) as conflict:
        await graph_store.create(ALICE, acs_id("one"))
    assert conflict.value.existing == created


async def test_a_patch_may_also_be_answered_with_the_extension(graph_store: GraphMappingStore, graph: Graph) -> None:
    created = await graph_store.create(ALICE, acs_id("one"))
    graph.faults.script("update_extension", Fault(status=200, body={"id": NAME}))
    assert (await graph_store.change(created, deleting=True)).deleting


async def test_a_mapping_that_goes_between_the_reading_and_the_writing_is_not_marked(
    graph_store: GraphMappingStore, graph: Graph
) -> None:
    created = await graph_store.create(ALICE, acs_id("one"))
    graph.faults.script("update_extension", Fault(status=404, body={"error": {"code": "ResourceNotFound"}}))
    with pytest.raises(MappingChanged):
        await graph_store.change(created, deleting=True)


async def test_a_missing_permission_is_named(running: RunningGraph) -> None:
    store = await open_graph_store(GraphOptions(SEAL_KEYS, base_url=running.url), UserTokens(running, "User.Read"))
    assert await store.get(ALICE) is None
    with pytest.raises(StoreMisconfigured, match=r"User\.ReadWrite \(delegated\)"):
        await store.create(ALICE, acs_id("one"))
    await store.aclose()


async def test_a_refused_token_is_access_denied(running: RunningGraph, graph: Graph) -> None:
    class Garbage(UserTokens):
        refusals: ClassVar[list[UserKey]] = []

        async def access_token(self, user: UserKey) -> str:
            return "garbage"

        def refused(self, user: UserKey) -> None:
            self.refusals.append(user)

    store = await open_graph_store(GraphOptions(SEAL_KEYS, base_url=running.url), Garbage(running))
    with pytest.raises(StoreAccessDenied) as error:
        await store.get(ALICE)
    assert error.value.claims is None
    assert Garbage.refusals == [ALICE]
    await store.aclose()


@pytest.mark.parametrize("status", [401, 403])
async def test_a_claims_challenge_is_handed_on(graph_store: GraphMappingStore, graph: Graph, status: int) -> None:
    claims = json.dumps({"access_token": {"nbf": {"essential": True, "value": "1604106651"}}})
    encoded = base64.b64encode(claims.encode()).decode().rstrip("=")
    challenge = f'Bearer realm="", error="insufficient_claims", claims="{encoded}"'
    graph.faults.script("get_me", Fault(status=status, headers={"WWW-Authenticate": challenge}))
    with pytest.raises(StoreAccessDenied) as error:
        await graph_store.get(ALICE)
    assert error.value.claims == claims


@pytest.mark.parametrize(
    "claims", [json.dumps({"access_token": {"x": "y" * 70_000}}), "[]", "not JSON", "{}", json.dumps("x"), "[" * 5_000]
)
async def test_a_challenge_that_is_not_fit_for_a_header_is_none(
    graph_store: GraphMappingStore, graph: Graph, claims: str
) -> None:
    encoded = base64.b64encode(claims.encode()).decode()
    if len(encoded) > 8_000:  # aiohttp takes no longer header: what is too long is an answer that can't be read
        encoded = encoded[:8_000]
    challenge = f'Bearer realm="", error="insufficient_claims", claims="{encoded}"'
    body = {"error": {"code": "InvalidAuthenticationToken", "message": "?"}}
    graph.faults.script("get_me", Fault(status=401, headers={"WWW-Authenticate": challenge}, body=body))
    with pytest.raises(StoreError) as error:
        await graph_store.get(ALICE)
    assert getattr(error.value, "claims", None) is None


@pytest.mark.parametrize("encoded", ["%%%", "A", base64.b64encode(b"\xff").decode()])
async def test_a_challenge_that_is_not_base64_of_a_text_is_none(
    graph_store: GraphMappingStore, graph: Graph, encoded: str
) -> None:
    challenge = f'Bearer realm="", error="insufficient_claims", claims="{encoded}"'
    body = {"error": {"code": "InvalidAuthenticationToken", "message": "?"}}
    graph.faults.script("get_me", Fault(status=401, headers={"WWW-Authenticate": challenge}, body=body))
    with pytest.raises(StoreAccessDenied) as error:
        await graph_store.get(ALICE)
    assert error.value.claims is None


@pytest.mark.parametrize("odd", [AttributeError(), TypeError(), KeyError("x"), RecursionError(), ValueError("url")])
async def test_nothing_that_the_sdk_raises_leaves_untyped(
    graph_store: GraphMappingStore, odd: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    created = await graph_store.create(ALICE, acs_id("one"))

    async def never_should(*_: object, **__: object) -> None:
        raise odd

    monkeypatch.setattr("azure.core.pipeline.transport.AioHttpTransport.send", never_should)
    for call in (
        graph_store.get(ALICE),
        graph_store.create(ALICE, acs_id("one")),
        graph_store.change(created, deleting=True),
        graph_store.remove(created),
        graph_store.ping(),
        listed(graph_store),
    ):
        with pytest.raises(StoreUnavailable) as error:
            await call
        assert error.value.cause is not None
        assert error.value.cause.code == type(odd).__name__


async def test_a_token_of_another_user_is_noticed_and_changes_nothing(running: RunningGraph, graph: Graph) -> None:
    tokens = UserTokens(running)

    class Mixed(UserTokens):
        async def access_token(self, user: UserKey) -> str:
            return await tokens.access_token(BOB)

    store = await open_for(running)
    created = await store.create(BOB, acs_id("bob"))
    mixed = await open_graph_store(GraphOptions(SEAL_KEYS, base_url=running.url), Mixed(running))
    with pytest.raises(StoreMisconfigured, match="a user other than"):
        await mixed.get(ALICE)
    with pytest.raises(StoreMisconfigured, match="a user other than"):
        await mixed.remove(dataclasses.replace(created, user=ALICE))
    assert await store.get(BOB) == created
    await store.aclose()
    await mixed.aclose()


async def test_what_a_token_provider_raises_passes_through(running: RunningGraph) -> None:
    class ConsentMissing(Exception):
        pass

    class Refusing:
        async def access_token(self, user: UserKey) -> str:
            raise ConsentMissing

        def refused(self, user: UserKey) -> None:
            raise AssertionError

    store = await open_graph_store(GraphOptions(SEAL_KEYS, base_url=running.url), Refusing())
    with pytest.raises(ConsentMissing):
        await store.get(ALICE)
    await store.aclose()


async def test_listing_needs_application_tokens(running: RunningGraph) -> None:
    store = await open_graph_store(GraphOptions(SEAL_KEYS, base_url=running.url), UserTokens(running))
    with pytest.raises(StoreMisconfigured, match=r"User\.Read\.All"):
        await listed(store)
    await store.aclose()


async def test_listing_never_follows_a_link_to_another_address(graph_store: GraphMappingStore, graph: Graph) -> None:
    await graph_store.create(ALICE, acs_id("one"))
    body = {"value": [], "@odata.nextLink": "https://graph.example/v1.0/users?$skiptoken=x"}
    graph.faults.script("list_users", Fault(status=200, body=body))
    with pytest.raises(StoreUnavailable):
        await listed(graph_store)


@pytest.mark.parametrize("users", [..., None, {}, ["alice"], [{}], [{"id": None}], [{"id": ""}]], ids=repr)
async def test_a_page_without_users_as_graph_writes_them_is_an_outage_and_not_the_end(
    graph_store: GraphMappingStore, graph: Graph, users: Any
) -> None:
    created = await graph_store.create(ALICE, acs_id("one"))
    graph.faults.script("list_users", Fault(status=200, body={} if users is ... else {"value": users}))
    mappings = graph_store.mappings()
    with pytest.raises(StoreUnavailable):
        await anext(mappings)
    assert [mapping async for mapping in mappings] == [created]


async def test_where_no_tenant_is_named_there_is_nothing_to_list(running: RunningGraph, graph: Graph) -> None:
    class NoTenants(AppTokens):
        tenants: ClassVar[Sequence[str]] = ()

    store = await open_graph_store(GraphOptions(SEAL_KEYS, base_url=running.url), None, NoTenants(running))
    assert await listed(store) == []
    assert not graph.faults.counts
    await store.aclose()


@pytest.mark.parametrize(
    "name",
    [
        "",
        "page",
        "{}",
        "[]",
        '"tenant"',
        '["tenant"]',
        '["tenant", null]',
        '["tenant", null, "1"]',
        '["tenant", 7, 1]',
        "[7, null, 1]",
        '["tenant", "https://graph.example/v1.0/users", 1]',
        '["tenant", "https://graph.microsoft.com.example/v1.0/users", 1]',
    ],
)
async def test_a_page_of_another_name_is_refused_and_nothing_sent(
    graph_store: GraphMappingStore, graph: Graph, name: str
) -> None:
    with pytest.raises(ValueError, match=r"page|JSON|Expecting"):
        await graph_store.page(name)
    assert not graph.faults.counts


async def test_without_anybodys_tokens_nobodys_mapping_is_reached(running: RunningGraph, graph: Graph) -> None:
    store = await open_graph_store(GraphOptions(SEAL_KEYS, base_url=running.url), None)
    with pytest.raises(StoreMisconfigured, match="needs access tokens"):
        await store.get(ALICE)
    assert not graph.faults.counts
    await store.aclose()


async def test_what_has_no_user_is_not_in_this_store_and_not_removed(
    graph_store: GraphMappingStore, graph: Graph
) -> None:
    with pytest.raises(MappingChanged):
        await graph_store.remove(UnreadableMapping(None, "1.1", Unreadable.DAMAGED, key="row 1"))
    assert not graph.faults.counts


async def test_an_operator_without_users_works_on_all_mappings_as_the_application(
    running: RunningGraph, graph_store: GraphMappingStore
) -> None:
    strange = UserKey("tenant", "auth0|1?#/%2F x")
    users = [ALICE, BOB, strange]
    for user in users:
        await graph_store.create(user, acs_id(f"{user.subject}"))
    operator = await open_graph_store(GraphOptions(SEAL_KEYS, base_url=running.url), None, AppTokens(running))
    for mapping in await listed(operator):
        assert await operator.get(mapping.user) == mapping
        await operator.remove(await operator.change(mapping, deleting=True))
    assert [await graph_store.get(user) for user in users] == [None] * 3
    created = await operator.create(ALICE, acs_id("new"))
    assert await graph_store.get(ALICE) == created
    await operator.aclose()


@pytest.mark.parametrize("code", ["Authorization_RequestDenied", "AccessDenied", "Forbidden", "Zone_Denied"])
async def test_only_a_user_whom_no_application_may_change_is_no_fault_of_the_set_up(
    running: RunningGraph, graph_store: GraphMappingStore, graph: Graph, code: str
) -> None:
    """The application's permission does not reach administrators: that says nothing about the other users."""
    created = await graph_store.create(ALICE, acs_id("one"))
    operator = await open_graph_store(GraphOptions(SEAL_KEYS, base_url=running.url), None, AppTokens(running))
    for store, is_users_own in ((operator, code == "Authorization_RequestDenied"), (graph_store, False)):
        graph.faults.script("*", Fault(status=403, body={"error": {"code": code, "message": "?"}}))
        with pytest.raises(StoreMisconfigured) as error:
            await store.change(created, deleting=True)
        assert isinstance(error.value, UserNotChangeable) is is_users_own
    await operator.aclose()


async def test_every_request_can_be_traced_at_graph_and_names_no_user(
    running: RunningGraph, graph_store: GraphMappingStore, graph: Graph
) -> None:
    await graph_store.remove(await graph_store.change(await graph_store.create(ALICE, acs_id("one")), deleting=True))
    calls = list(graph.faults.calls)
    ids = {call.headers["client-request-id"] for call in calls}
    assert len(ids) == len(calls) == 5
    assert all(ALICE.subject not in call.path for call in calls)


async def test_an_error_message_names_no_user_and_no_upstream_text(
    graph_store: GraphMappingStore, graph: Graph
) -> None:
    body = {"error": {"code": "Odd <b>", "message": f"Resource '{ALICE.subject}' is odd."}}
    graph.faults.script("get_me", Fault(status=404, body=body))
    with pytest.raises(StoreUnexpectedAnswer) as error:
        await graph_store.get(ALICE)
    assert ALICE.subject not in str(error.value)
    assert "<b>" not in str(error.value)


async def test_mappings_in_several_processes_are_one_truth(running: RunningGraph) -> None:
    one, other = await open_for(running), await open_for(running)
    outcomes = await asyncio.gather(
        *(contract.create_or_existing(store, ALICE, acs_id(f"{n}")) for n in range(10) for store in (one, other))
    )
    assert sum(made for _, made in outcomes) == 1
    assert len({mapping for mapping, _ in outcomes}) == 1
    await one.aclose()
    await other.aclose()


async def test_a_mapping_keeps_the_time_of_its_creation(running: RunningGraph) -> None:
    noon = datetime(2026, 11, 22, 12, 0, 0, 123456, tzinfo=UTC)
    store = await open_graph_store(GraphOptions(SEAL_KEYS, base_url=running.url), UserTokens(running), now=lambda: noon)
    created = await store.create(ALICE, acs_id("one"))
    assert (await store.change(created, deleting=True)).created_at == created.created_at == noon
    await store.aclose()


@pytest.mark.parametrize("url", ["http://graph.microsoft.com", "https://graph.microsoft.com/v1.0", "graph", ""])
async def test_only_an_https_host_is_accepted(url: str) -> None:
    with pytest.raises(StoreMisconfigured):
        await open_graph_store(GraphOptions(SEAL_KEYS, base_url=url), None)


async def test_a_ping_needs_no_token_and_fails_when_graph_is_away(graph_store: GraphMappingStore, graph: Graph) -> None:
    await graph_store.ping()
    assert "Authorization" not in graph.faults.calls[-1].headers
    for fault in (Fault(status=503), Fault(reset=True), Fault(status=200)):
        graph.faults.script("get_me", fault)
        with pytest.raises(StoreUnavailable):
            await graph_store.ping()


# What one call of the bare store costs on the wire, and what it raises, for each thing that can go wrong.
TIMEOUT = 5.0
WRONG = {
    "429": (Fault(status=429, times=None), StoreThrottled, None),
    "429 with Retry-After": (Fault(status=429, headers={"Retry-After": "3"}, times=None), StoreThrottled, 3),
    "408": (Fault(status=408, times=None), StoreUnavailable, None),
    "500": (Fault(status=500, times=None), StoreUnavailable, None),
    "503": (Fault(status=503, headers={"Retry-After": "3"}, times=None), StoreUnavailable, 3),
    "504": (Fault(status=504, times=None), StoreUnavailable, None),
    "redirect": (Fault(status=307, headers={"Location": "/v1.0/me"}, times=None), StoreUnavailable, None),
    "hang": (Fault(hang=True, times=None), StoreUnavailable, None),
    "reset": (Fault(reset=True, times=None), StoreUnavailable, None),
}


@pytest.mark.parametrize("operation", ["get", "create", "change", "remove", "mappings"])
@pytest.mark.parametrize("case", list(WRONG))
async def test_each_attempt_is_one_request(running: RunningGraph, graph: Graph, operation: str, case: str) -> None:
    fault, raised, retry_after = WRONG[case]
    store = await open_for(running, timeout=TIMEOUT)
    created = await store.create(ALICE, acs_id("one"))
    request = WRITES.get(operation, FIRST_REQUESTS[operation])
    graph.faults.script(request, fault)
    graph.faults.counts.clear()
    retrying = GuardedStore(store, RetryPolicy(attempts=3, sleep=no_wait))
    async with time_running_out(graph.faults, request, TIMEOUT) if case == "hang" else nullcontext():
        with pytest.raises(raised) as error:
            await contract.call(retrying, operation, created)
    assert getattr(error.value, "retry_after", None) == retry_after
    in_doubt = operation == "create" and raised is StoreUnavailable  # who creates must look before repeating
    attempts = 1 if raised is StoreMisconfigured or in_doubt else 3
    assert graph.faults.counts[request] == attempts
    await store.aclose()
