"""Reads in a preferred region of the account: what goes where, and how many requests one call costs when things fail.

`pytest tests/storage/test_cosmos_regions.py -s` prints the table.
"""

import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from azure.cosmos.aio import _retry_utility_async

from local_azure.cosmos import Cosmos, forbidden, throttled
from local_azure.cosmos.faults import DATABASE_ACCOUNT_NOT_FOUND
from local_azure.faults import Fault
from storage.cosmos import CosmosMappingStore, open_cosmos_store
from storage.cosmos_options import CosmosOptions
from storage.mapping import MappingExists, StoreError, StoreMisconfigured, StoreUnavailable
from tests.support.acs_ids import acs_id
from tests.support.running_cosmos import running_cosmos, running_read_region
from tests.support.store_contract import ALICE, BOB, listed, no_wait

FAULTS = {
    "429": throttled(None, times=None),
    "449": Fault(status=449, times=None),
    "503": Fault(status=503, times=None),
    "500": Fault(status=500, times=None),
    "408": Fault(status=408, times=None),
    "reset": Fault(reset=True, times=None),
    "403/1008": forbidden(DATABASE_ACCOUNT_NOT_FOUND, times=None),
}
READ: dict[str, tuple[int, int, bool]] = {
    "429": (1, 0, False),
    "449": (1, 0, False),
    "503": (1, 1, True),
    "500": (1, 1, True),
    "408": (1, 1, True),
    "reset": (1, 1, True),
    "403/1008": (2, 1, True),
}
"""Requests of one read to the region that fails and to the other one, and whether it was answered.

429 and 449 say nothing against a region: the caller waits and asks again.
"""
OPERATIONS = {
    "get": "read_item",
    "create": "create_item",
    "change": "replace_item",
    "remove": "delete_item",
    "mappings": "query_items",
}


@pytest.fixture(autouse=True)
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK waits for half a second before another region, and for a second after a 403: here it does not."""
    monkeypatch.setattr(_retry_utility_async, "asyncio", SimpleNamespace(sleep=no_wait))


@pytest.fixture
async def near(cosmos: Cosmos, state_directory: Path) -> AsyncIterator[Cosmos]:
    """The region that is read from; `cosmos` is the one that is written to."""
    async with running_read_region(cosmos, state_directory) as region:
        yield region


def options_for(cosmos: Cosmos, *regions: str) -> CosmosOptions:
    environment = cosmos.service_environment()
    return CosmosOptions(
        environment["COSMOS_ENDPOINT"],
        environment["COSMOS_DATABASE"],
        environment["COSMOS_CONTAINER"],
        key=environment["COSMOS_KEY"],
        preferred_regions=regions,
    )


@pytest.fixture
async def store(cosmos: Cosmos, near: Cosmos) -> AsyncIterator[CosmosMappingStore]:
    opened = await open_cosmos_store(options_for(cosmos, "northeurope"))
    cosmos.counts.clear()
    near.counts.clear()
    yield opened
    await opened.aclose()


def calls_of(region: Cosmos) -> dict[str, int]:
    return {name: count for name, count in region.counts.items() if name != "get_account"}


async def test_reads_go_to_the_preferred_region_and_everything_else_to_the_one_that_is_written_to(
    cosmos: Cosmos, near: Cosmos, store: CosmosMappingStore
) -> None:
    created = await store.create(ALICE, acs_id("one"))
    assert await store.get(ALICE) == created
    assert await store.get(BOB) is None
    await store.ping()
    assert await listed(store) == [created]
    await store.remove(await store.change(created, deleting=True))
    assert calls_of(near) == {"read_item": 3}
    assert calls_of(cosmos) == {"create_item": 1, "query_items": 1, "replace_item": 1, "delete_item": 1}


async def test_who_loses_a_race_reads_the_winner_where_it_was_written(
    cosmos: Cosmos, near: Cosmos, store: CosmosMappingStore
) -> None:
    winner = await store.create(ALICE, acs_id("one"))
    with pytest.raises(MappingExists) as caught:
        await store.create(ALICE, acs_id("two"))
    assert caught.value.existing == winner
    assert calls_of(near) == {}
    assert calls_of(cosmos) == {"create_item": 2, "read_item": 1}


@pytest.mark.parametrize("name", FAULTS)
async def test_a_read_that_fails_goes_to_the_other_region_and_anything_else_stays_one_request(
    cosmos: Cosmos, near: Cosmos, store: CosmosMappingStore, name: str
) -> None:
    mapping = await store.create(ALICE, acs_id("one"))
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "get": lambda: store.get(ALICE),
        "create": lambda: store.create(BOB, acs_id("two")),
        "change": lambda: store.change(mapping, deleting=True),
        "remove": lambda: store.remove(mapping),
        "mappings": lambda: listed(store),
    }
    rows, requests = [f"{'fault':<9} {'operation':<10} near  far  outcome"], {}
    for operation, wire_operation in OPERATIONS.items():
        failing = near if operation == "get" else cosmos
        failing.faults.script(wire_operation, FAULTS[name])
        before = near.counts[wire_operation], cosmos.counts[wire_operation]
        try:
            await calls[operation]()
            outcome = "answered"
        except StoreError as error:
            outcome = type(error).__name__
        failing.faults.clear()
        here, there = near.counts[wire_operation] - before[0], cosmos.counts[wire_operation] - before[1]
        rows.append(f"{name:<9} {operation:<10} {here:>4}  {there:>3}  {outcome}")
        requests[operation] = (here, there, outcome == "answered")
    sys.stdout.write("\n" + "\n".join(rows) + "\n")
    assert requests.pop("get") == READ[name]
    assert set(requests.values()) == {(0, 1, False)}


@pytest.mark.parametrize("name", ["503", "500", "408", "reset"])
async def test_a_read_that_fails_everywhere_ends_after_three_requests_at_most(
    cosmos: Cosmos, near: Cosmos, store: CosmosMappingStore, name: str
) -> None:
    for region in (near, cosmos):
        region.faults.script("read_item", FAULTS[name])
    with pytest.raises(StoreUnavailable):
        await store.get(ALICE)
    assert (near.counts["read_item"], cosmos.counts["read_item"]) in ((1, 1), (2, 1))


async def test_reads_go_on_while_the_region_that_is_written_to_is_lost(
    cosmos: Cosmos, store: CosmosMappingStore
) -> None:
    created = await store.create(ALICE, acs_id("one"))
    cosmos.faults.script("*", Fault(reset=True, times=None))
    assert await store.get(ALICE) == created
    await store.ping()
    with pytest.raises(StoreUnavailable):
        await store.change(created, deleting=True)


async def test_a_read_region_is_no_substitute_for_the_one_that_is_written_to(
    cosmos: Cosmos, near: Cosmos, store: CosmosMappingStore
) -> None:
    cosmos.faults.script("create_item", Fault(status=503, times=None))
    with pytest.raises(StoreError):
        await store.create(ALICE, acs_id("one"))
    assert calls_of(near) == {}
    assert cosmos.items() == []


@pytest.mark.parametrize("consistency", ["BoundedStaleness", "Session", "ConsistentPrefix", "Eventual"])
async def test_a_consistency_that_lets_another_region_lag_is_refused(state_directory: Path, consistency: str) -> None:
    async with running_cosmos(state_directory, consistency=consistency) as cosmos:
        with pytest.raises(StoreMisconfigured, match=f"default consistency is Strong, and this one's is {consistency}"):
            await open_cosmos_store(options_for(cosmos, "northeurope"))


async def test_a_region_that_the_account_does_not_have_is_told_and_nothing_else_changes(
    cosmos: Cosmos, near: Cosmos
) -> None:
    store = await open_cosmos_store(options_for(cosmos, "nortneurope"))
    try:
        created = await store.create(ALICE, acs_id("one"))
        assert await store.get(ALICE) == created
    finally:
        await store.aclose()
    assert [warning.partition(":")[0] for warning in store.warnings] == [
        "COSMOS_PREFERRED_REGIONS names nortneurope, which is no region of this Cosmos DB account (Local, North Europe)"
    ]
    assert near.counts["read_item"] == 0


async def test_without_preferred_regions_nothing_is_read_elsewhere(cosmos: Cosmos, near: Cosmos) -> None:
    store = await open_cosmos_store(replace(options_for(cosmos), preferred_regions=()))
    try:
        await store.get(ALICE)
        await store.ping()
    finally:
        await store.aclose()
    assert not near.counts
