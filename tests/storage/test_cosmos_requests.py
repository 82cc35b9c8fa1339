"""How many requests one call of the Cosmos DB store costs when things fail: no layer below it multiplies them.

`pytest tests/storage/test_cosmos_requests.py -s` prints the table.
"""

import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import nullcontext

import pytest

from local_azure.cosmos import Cosmos, throttled
from local_azure.faults import Fault
from storage.cosmos import CosmosMappingStore, open_cosmos_store
from storage.cosmos_options import CosmosOptions
from storage.guarded import GuardedStore
from storage.mapping import StoreThrottled, StoreUnavailable, UserKey
from tests.support.acs_ids import acs_id
from tests.support.held_time import time_running_out
from tests.support.store_contract import ALICE, BOB, listed, no_wait
from upstream.retrying import RetryPolicy

READ_TIMEOUT = 3.0

FAULTS = {
    "429 + x-ms-retry-after-ms": throttled(5000, times=None),
    "429": throttled(None, times=None),
    "449": Fault(status=449, times=None),
    "503": Fault(status=503, times=None),
    "500": Fault(status=500, times=None),
    "408": Fault(status=408, times=None),
    "403 write forbidden": Fault(status=403, headers={"x-ms-substatus": "3"}, times=None),
    "reset": Fault(reset=True, times=None),
    "hang": Fault(hang=True, times=None),
}

OPERATIONS = {
    "get": "read_item",
    "create": "create_item",
    "change": "replace_item",
    "remove": "delete_item",
    "mappings": "query_items",
    "ping": "read_item",
}

# aiohttp sends an idempotent request once more when a kept-alive connection breaks before an answer.
REPEATED_AFTER_RESET = {"get", "change", "remove", "ping"}


@pytest.fixture
async def store(cosmos: Cosmos) -> AsyncIterator[CosmosMappingStore]:
    environment = cosmos.service_environment()
    opened = await open_cosmos_store(
        CosmosOptions(
            environment["COSMOS_ENDPOINT"],
            environment["COSMOS_DATABASE"],
            environment["COSMOS_CONTAINER"],
            key=environment["COSMOS_KEY"],
            read_timeout=READ_TIMEOUT,
        )
    )
    yield opened
    await opened.aclose()


@pytest.fixture
async def calls(store: CosmosMappingStore) -> dict[str, Callable[[], Awaitable[object]]]:
    mapping = await store.create(ALICE, acs_id("one"))
    return {
        "get": lambda: store.get(ALICE),
        "create": lambda: store.create(BOB, acs_id("two")),
        "change": lambda: store.change(mapping, deleting=True),
        "remove": lambda: store.remove(mapping),
        "mappings": lambda: listed(store),
        "ping": store.ping,
    }


async def test_a_failing_call_is_one_wire_request(
    cosmos: Cosmos, calls: dict[str, Callable[[], Awaitable[object]]]
) -> None:
    rows = [f"{'fault':<26} {'operation':<14} requests  outcome"]
    unexpected = []
    for name, fault in FAULTS.items():
        for operation, wire_operation in OPERATIONS.items():
            cosmos.faults.script(wire_operation, fault)
            before, hangs = cosmos.counts[wire_operation], name == "hang"
            async with time_running_out(cosmos.faults, wire_operation, READ_TIMEOUT) if hangs else nullcontext():
                with pytest.raises((StoreThrottled, StoreUnavailable)) as caught:
                    await calls[operation]()
            requests = cosmos.counts[wire_operation] - before
            cosmos.faults.clear()
            rows.append(f"{name:<26} {operation:<14} {requests:>8}  {type(caught.value).__name__}")
            most = 2 if name == "reset" and operation in REPEATED_AFTER_RESET else 1
            if not 1 <= requests <= most:
                unexpected.append(rows[-1])
    sys.stdout.write("\n" + "\n".join(rows) + "\n")
    assert not unexpected


async def test_a_healthy_call_is_one_wire_request(cosmos: Cosmos, store: CosmosMappingStore) -> None:
    cosmos.counts.clear()
    created = await store.create(ALICE, acs_id("one"))
    await store.get(ALICE)
    await store.get(BOB)
    marked = await store.change(created, deleting=True)
    await store.remove(marked)
    await store.ping()
    assert {name: count for name, count in cosmos.counts.items() if name != "get_account"} == {
        "create_item": 1,
        "read_item": 3,
        "replace_item": 1,
        "delete_item": 1,
    }


@pytest.mark.parametrize("fault", [fault for name, fault in FAULTS.items() if name not in ("reset", "hang")])
async def test_the_retry_layer_alone_decides_how_often_a_call_is_sent(
    cosmos: Cosmos, store: CosmosMappingStore, fault: Fault
) -> None:
    retrying = GuardedStore(store, RetryPolicy(attempts=3, sleep=no_wait))
    cosmos.faults.script("*", fault)
    cosmos.counts.clear()
    with pytest.raises((StoreThrottled, StoreUnavailable)):
        await retrying.get(ALICE)
    with pytest.raises((StoreThrottled, StoreUnavailable)):
        await retrying.create(UserKey("tenant", "carol"), acs_id("three"))
    # A create that may have happened is not repeated: who creates must look first.
    creates = 3 if fault.status in (429, 449) else 1
    assert (cosmos.counts["read_item"], cosmos.counts["create_item"]) == (3, creates)
