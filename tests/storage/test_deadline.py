"""The deadline: when calls made for a request must have ended."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage.deadline import DeadlineStore, deadline, remaining
from storage.mapping import MappingExists, MappingStore, StoreUnavailable
from tests.storage import virtual_time
from tests.storage.contract import ALICE, listed
from tests.storage.memory import MemoryMappingStore
from tests.storage.scripted import FailBefore, Hang, ScriptedStore

# The same examples every time, however slow the machine is.
deterministic = settings(derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
seconds = st.floats(0.001, 1000)


async def test_without_a_deadline_nothing_is_known_to_remain() -> None:
    assert remaining() is None


async def test_after_the_block_the_outer_state_is_back() -> None:
    with deadline(5):
        pass
    assert remaining() is None


def test_what_remains_shrinks_as_time_passes_and_turns_negative() -> None:
    async def main() -> list[float | None]:
        with deadline(5):
            at_first = remaining()
            await asyncio.sleep(3)
            later = remaining()
            await asyncio.sleep(3)
            return [at_first, later, remaining()]

    assert virtual_time.run(main()) == [5, 2, -1]


@deterministic
@given(outer=seconds, inner=seconds)
def test_an_inner_deadline_never_extends_an_outer_one(outer: float, inner: float) -> None:
    async def main() -> list[float | None]:
        with deadline(outer):
            with deadline(inner):
                inside = remaining()
            return [inside, remaining()]

    assert virtual_time.run(main()) == [min(outer, inner), outer]


def test_tasks_started_inside_inherit_the_deadline_and_others_do_not() -> None:
    async def main() -> list[float | None]:
        async def look() -> float | None:
            return remaining()

        outside = asyncio.create_task(look())
        with deadline(5):
            inside = asyncio.create_task(look())
        return [await outside, await inside]

    assert virtual_time.run(main()) == [None, 5]


def _calls(store: MappingStore) -> dict[str, Callable[[], Awaitable[object]]]:
    async def mapping_calls(name: str) -> None:
        mapping = await MemoryMappingStore().create(ALICE, "8:acs:one")
        await (store.mark_deleting(mapping) if name == "mark_deleting" else store.remove(mapping))

    return {
        "get": lambda: store.get(ALICE),
        "create": lambda: store.create(ALICE, "8:acs:one"),
        "mark_deleting": lambda: mapping_calls("mark_deleting"),
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
            await _calls(DeadlineStore(scripted))[operation]()
        return asyncio.get_running_loop().time()

    assert virtual_time.run(main()) == 5


@pytest.mark.parametrize("operation", OPERATIONS)
def test_after_the_deadline_the_store_is_not_called(operation: str) -> None:
    async def main() -> int:
        scripted = ScriptedStore(MemoryMappingStore())
        with deadline(5):
            await asyncio.sleep(5)
            with pytest.raises(StoreUnavailable):
                await _calls(DeadlineStore(scripted))[operation]()
        return scripted.counts.total()

    assert virtual_time.run(main()) == 0


async def test_in_time_answers_and_errors_pass_unchanged() -> None:
    scripted = ScriptedStore(MemoryMappingStore())
    store = DeadlineStore(scripted)
    with deadline(60):
        created = await store.create(ALICE, "8:acs:one")
        assert await store.get(ALICE) == created
        with pytest.raises(MappingExists):
            await store.create(ALICE, "8:acs:two")
        failure = TimeoutError("someone else's")
        scripted.script("get", FailBefore(failure))
        with pytest.raises(TimeoutError) as passed:
            await store.get(ALICE)
        assert passed.value is failure


def test_without_a_deadline_a_slow_call_is_waited_for() -> None:
    async def main() -> bool:
        scripted = ScriptedStore(MemoryMappingStore())
        scripted.script("ping", Hang())
        ping = asyncio.create_task(DeadlineStore(scripted).ping())
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
        get = asyncio.create_task(DeadlineStore(scripted).get(ALICE))
    await asyncio.sleep(0)
    get.cancel()
    with pytest.raises(asyncio.CancelledError):
        await get


async def test_closing_is_not_bound_by_a_deadline() -> None:
    inner = MemoryMappingStore()
    with deadline(0):
        await DeadlineStore(inner).aclose()
    assert inner.closed
