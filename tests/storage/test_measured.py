"""Measuring a store: what is told of each call, and where in the order of decorators it is told."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

import pytest

from storage.deadline import DeadlineStore, deadline
from storage.factory import SqliteSettings, open_store
from storage.mapping import MappingExists, StoreThrottled, StoreUnavailable
from storage.measured import MeasuredStore
from storage.retrying import RetryingStore, RetryPolicy
from tests.storage import virtual_time
from tests.storage.contract import ALICE
from tests.storage.memory import MemoryMappingStore
from tests.storage.scripted import FailBefore, Hang, ScriptedStore


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
    store = MeasuredStore(inner, journal.measure)
    created = await store.create(ALICE, "8:acs:one")
    assert await store.get(ALICE) == created
    with pytest.raises(MappingExists):
        await store.create(ALICE, "8:acs:two")
    marked = await store.mark_deleting(created)
    assert [mapping async for mapping in store.mappings()] == [marked]
    await store.remove(marked)
    await store.ping()
    assert journal.outcomes == [
        ("create", None),
        ("get", None),
        ("create", "MappingExists"),
        ("mark_deleting", None),
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
        store = MeasuredStore(DeadlineStore(RetryingStore(scripted, policy)), journal.measure)
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


async def test_the_factory_measures_outside_of_the_deadline_and_the_retries(tmp_path: Path) -> None:
    journal = Journal()
    store = await open_store(SqliteSettings(tmp_path / "mappings.sqlite"), RetryPolicy(), journal.measure)
    try:
        assert isinstance(store, MeasuredStore)
        assert isinstance(store._store, DeadlineStore)
        assert isinstance(store._store._store, RetryingStore)
        with deadline(0), pytest.raises(StoreUnavailable):
            await store.ping()
        assert journal.outcomes == [("ping", "StoreUnavailable")]
    finally:
        await store.aclose()


async def test_without_a_measure_nothing_is_put_around_the_store(tmp_path: Path) -> None:
    store = await open_store(SqliteSettings(tmp_path / "mappings.sqlite"))
    try:
        assert isinstance(store, DeadlineStore)
    finally:
        await store.aclose()
