"""The guarded store: what is measured of each call, when it ends, and what is repeated."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress

import pytest

from storage.guarded import GuardedStore
from storage.mapping import (
    ExtensionLimitReached,
    MappingChanged,
    MappingExists,
    MappingStore,
    StoreError,
    StoreMisconfigured,
    StoreThrottled,
    StoreUnavailable,
)
from tests.support import virtual_time
from tests.support.acs_ids import acs_id
from tests.support.memory_store import MemoryMappingStore
from tests.support.scripted import FailAfter, FailBefore, Hang, ScriptedStore
from tests.support.store_contract import ALICE, listed, no_wait
from upstream.deadline import deadline
from upstream.retrying import RetryPolicy


class Journal:
    """Notes for each measured call its operation, the error's type and the seconds of event-loop time."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str | None, float]] = []

    def measure(self, operation: str) -> AbstractContextManager[None]:
        return self._measure(operation)

    @contextmanager
    def _measure(self, operation: str) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        started, error = loop.time(), None
        try:
            yield
        except BaseException as raised:
            error = type(raised).__name__
            raise
        finally:
            self.calls.append((operation, error, loop.time() - started))

    @property
    def outcomes(self) -> list[tuple[str, str | None]]:
        return [(operation, error) for operation, error, _ in self.calls]


async def test_every_call_is_told_with_its_outcome_and_passes_unchanged() -> None:
    journal, inner = Journal(), MemoryMappingStore()
    store = GuardedStore(inner, measure=journal.measure)
    created = await store.create(ALICE, acs_id("one"))
    assert await store.get(ALICE) == created
    with pytest.raises(MappingExists):
        await store.create(ALICE, acs_id("two"))
    marked = await store.change(created, deleting=True)
    assert [mapping async for mapping in store.mappings()] == [marked]
    await store.remove(marked)
    await store.ping()
    assert journal.outcomes == [
        ("create", None),
        ("get", None),
        ("create", "MappingExists"),
        ("change", None),
        ("remove", None),
        ("ping", None),
    ]
    await store.aclose()
    assert inner.closed


def in_virtual_time(script: Callable[[ScriptedStore], None], seconds: float) -> list[tuple[str, str | None, float]]:
    """What is told of one `get` through all decorators, in the order that the factory makes."""

    async def main() -> list[tuple[str, str | None, float]]:
        journal, scripted = Journal(), ScriptedStore(MemoryMappingStore())
        script(scripted)
        policy = RetryPolicy(attempts=3)
        store = GuardedStore(scripted, policy, journal.measure)
        with deadline(seconds), suppress(StoreThrottled, StoreUnavailable):
            await store.get(ALICE)
        return journal.calls

    return virtual_time.run(main())


def test_a_call_that_was_repeated_is_told_once_with_its_waits() -> None:
    told = in_virtual_time(lambda store: store.script("get", FailBefore(StoreThrottled(2)), times=2), seconds=60)
    assert told == [("get", None, 4)]


def test_a_call_that_hangs_is_told_with_the_time_that_the_deadline_left_it() -> None:
    told = in_virtual_time(lambda store: store.script("get", Hang()), seconds=5)
    assert told == [("get", "StoreUnavailable", 5)]


def _calls(store: MappingStore) -> dict[str, Callable[[], Awaitable[object]]]:
    async def mapping_calls(name: str) -> None:
        mapping = await MemoryMappingStore().create(ALICE, acs_id("one"))
        await (store.change(mapping, deleting=True) if name == "change" else store.remove(mapping))

    return {
        "get": lambda: store.get(ALICE),
        "create": lambda: store.create(ALICE, acs_id("one")),
        "change": lambda: mapping_calls("change"),
        "remove": lambda: mapping_calls("remove"),
        "mappings": lambda: listed(store),
        "ping": store.ping,
    }


OPERATIONS = list(_calls(MemoryMappingStore()))


@pytest.mark.parametrize("operation", OPERATIONS)
def test_a_call_that_hangs_ends_at_the_deadline_as_unavailable(operation: str) -> None:
    async def main() -> float:
        scripted = ScriptedStore(MemoryMappingStore())
        scripted.script("*", Hang())
        with deadline(5), pytest.raises(StoreUnavailable):
            await _calls(GuardedStore(scripted))[operation]()
        return asyncio.get_running_loop().time()

    assert virtual_time.run(main()) == 5


@pytest.mark.parametrize("operation", OPERATIONS)
def test_after_the_deadline_the_store_is_not_called(operation: str) -> None:
    async def main() -> int:
        scripted = ScriptedStore(MemoryMappingStore())
        with deadline(5):
            await asyncio.sleep(5)
            with pytest.raises(StoreUnavailable):
                await _calls(GuardedStore(scripted))[operation]()
        return scripted.counts.total()

    assert virtual_time.run(main()) == 0


async def test_in_time_answers_and_errors_pass_unchanged() -> None:
    scripted = ScriptedStore(MemoryMappingStore())
    store = GuardedStore(scripted)
    with deadline(60):
        created = await store.create(ALICE, acs_id("one"))
        assert await store.get(ALICE) == created
        with pytest.raises(MappingExists):
            await store.create(ALICE, acs_id("two"))
        failure = TimeoutError("someone else's")
        scripted.script("get", FailBefore(failure))
        with pytest.raises(TimeoutError) as passed:
            await store.get(ALICE)
        assert passed.value is failure


def test_without_a_deadline_a_slow_call_is_waited_for() -> None:
    async def main() -> bool:
        scripted = ScriptedStore(MemoryMappingStore())
        scripted.script("ping", Hang())
        ping = asyncio.create_task(GuardedStore(scripted).ping())
        await asyncio.sleep(1_000_000)
        waiting = not ping.done()
        ping.cancel()
        await asyncio.gather(ping, return_exceptions=True)
        return waiting

    assert virtual_time.run(main())


async def test_a_cancelled_caller_is_cancelled_and_not_told_unavailable() -> None:
    scripted = ScriptedStore(MemoryMappingStore())
    scripted.script("get", Hang())
    with deadline(60):
        get = asyncio.create_task(GuardedStore(scripted).get(ALICE))
    await asyncio.sleep(0)
    get.cancel()
    with pytest.raises(asyncio.CancelledError):
        await get


async def test_closing_is_not_bound_by_a_deadline() -> None:
    inner = MemoryMappingStore()
    with deadline(0):
        await GuardedStore(inner).aclose()
    assert inner.closed


class TestWhatIsRepeated:
    """What `GuardedStore` adds to the contract that it passes: which errors, and how often the store is called."""

    @pytest.fixture
    def scripted(self) -> ScriptedStore:
        return ScriptedStore(MemoryMappingStore())

    @pytest.fixture
    def store(self, scripted: ScriptedStore) -> MappingStore:
        return GuardedStore(scripted, RetryPolicy(attempts=3, sleep=no_wait))

    @pytest.mark.parametrize("error", [StoreThrottled(1), StoreUnavailable()], ids=["throttled", "unavailable"])
    async def test_transient_errors_are_retried_up_to_the_limit(
        self, scripted: ScriptedStore, store: MappingStore, error: StoreError
    ) -> None:
        scripted.script("get", FailBefore(error), times=None)
        with pytest.raises(StoreError) as last:
            await store.get(ALICE)
        assert last.value is error
        assert scripted.counts["get"] == 3

    @pytest.mark.parametrize(
        "error",
        [StoreMisconfigured("Fix it."), MappingChanged(), ExtensionLimitReached(), RuntimeError("a bug")],
        ids=lambda error: type(error).__name__,
    )
    async def test_other_errors_are_not(self, scripted: ScriptedStore, store: MappingStore, error: Exception) -> None:
        scripted.script("create", FailBefore(error), times=None)
        with pytest.raises(type(error)):
            await store.create(ALICE, acs_id("one"))
        assert scripted.counts["create"] == 1

    async def test_a_listing_repeats_only_the_step_that_failed(
        self, scripted: ScriptedStore, store: MappingStore
    ) -> None:
        created = await store.create(ALICE, acs_id("one"))
        pages = store.mappings()
        scripted.script("mappings", FailAfter(StoreUnavailable()), times=2)
        assert await anext(pages) == created
        assert scripted.counts["mappings"] == 3
        assert await anext(pages, None) is None
        assert scripted.counts["mappings"] == 4
