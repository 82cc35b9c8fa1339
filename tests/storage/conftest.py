"""Fixtures of the store contract; see `tests/support/store_contract.py`."""

from collections.abc import AsyncIterator

import pytest

from storage.mapping import MappingStore
from tests.support.store_contract import WRAPPERS, OpenStore
from upstream.deadline import deadline


@pytest.fixture(params=list(WRAPPERS))
def wrapper(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def repeats(wrapper: str) -> bool:
    return wrapper == "guarded"


@pytest.fixture
def open_store(open_back_end: OpenStore, wrapper: str) -> OpenStore:
    async def open_wrapped() -> MappingStore:
        return WRAPPERS[wrapper](await open_back_end())

    return open_wrapped


@pytest.fixture
async def store(open_store: OpenStore) -> AsyncIterator[MappingStore]:
    """One store, used inside a request's deadline that is far away."""
    opened = await open_store()
    with deadline(600):
        yield opened
    await opened.aclose()
