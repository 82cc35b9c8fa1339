"""The store in memory, on which the service's own tests stand, is a true store."""

import pytest

from storage.mapping import MappingStore
from tests.storage import contract
from tests.storage.contract import OpenStore
from tests.storage.memory import MemoryMappingStore


@pytest.fixture
def open_back_end() -> OpenStore:
    async def open_new() -> MappingStore:
        return MemoryMappingStore()

    return open_new


class TestPlainUse(contract.PlainUse): ...


class TestConcurrency(contract.Concurrency): ...


class TestFaults(contract.FaultsAroundTheStore): ...


class TestStateMachine(contract.StateMachine): ...
