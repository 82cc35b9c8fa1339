"""The store in memory, on which the service's own tests stand, is a true store."""

import pytest

from storage.mapping import MappingStore
from tests.support import store_contract as contract
from tests.support.memory_store import MemoryMappingStore
from tests.support.store_contract import OpenStore


@pytest.fixture
def open_back_end() -> OpenStore:
    async def open_new() -> MappingStore:
        return MemoryMappingStore()

    return open_new


class TestPlainUse(contract.PlainUse): ...


class TestConcurrency(contract.Concurrency): ...


class TestFaults(contract.FaultsAroundTheStore): ...


class TestStateMachine(contract.StateMachine): ...
