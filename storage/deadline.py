"""The request's deadline: a point in event-loop time that every call made for the request must keep.

It travels in a context variable, so tasks started for the request inherit it and no signature has to carry it.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

from storage.mapping import IdentityMapping, MappingStore, StoreUnavailable, UserKey

T = TypeVar("T")


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Give everything inside `seconds` from now, or what an outer deadline leaves if that is less.

    Needs a running event loop, whose `time()` is the clock. It does not interrupt anything by itself: callers ask
    `remaining` and bound what they do.
    """
    expires_at = asyncio.get_running_loop().time() + seconds
    outer = _expires_at.get()
    reset = _expires_at.set(expires_at if outer is None else min(outer, expires_at))
    try:
        yield
    finally:
        _expires_at.reset(reset)


def remaining() -> float | None:
    """Seconds until the deadline, zero or negative when it has passed; `None` when there is none."""
    expires_at = _expires_at.get()
    return None if expires_at is None else expires_at - asyncio.get_running_loop().time()


class DeadlineStore:
    """`MappingStore` whose calls end at the deadline with `StoreUnavailable`: a write may or may not have happened.

    When the deadline has passed already, the store is not called. `aclose` belongs to no request and is not bounded.
    """

    def __init__(self, store: MappingStore) -> None:
        self._store = store

    async def get(self, user: UserKey) -> IdentityMapping | None:
        """See `MappingStore.get`."""
        return await _bounded(lambda: self._store.get(user))

    async def create(self, user: UserKey, acs_user_id: str) -> IdentityMapping:
        """See `MappingStore.create`."""
        return await _bounded(lambda: self._store.create(user, acs_user_id))

    async def mark_deleting(self, mapping: IdentityMapping) -> IdentityMapping:
        """See `MappingStore.mark_deleting`."""
        return await _bounded(lambda: self._store.mark_deleting(mapping))

    async def remove(self, mapping: IdentityMapping) -> None:
        """See `MappingStore.remove`."""
        await _bounded(lambda: self._store.remove(mapping))

    def mappings(self) -> AsyncIterator[IdentityMapping]:
        """See `MappingStore.mappings`; each step is bounded."""
        return _BoundedIterator(self._store.mappings())

    async def ping(self) -> None:
        """See `MappingStore.ping`."""
        await _bounded(self._store.ping)

    async def aclose(self) -> None:
        """See `MappingStore.aclose`."""
        await self._store.aclose()


_expires_at: ContextVar[float | None] = ContextVar("deadline", default=None)


async def _bounded(operation: Callable[[], Awaitable[T]]) -> T:
    seconds = remaining()
    if seconds is not None and seconds <= 0:
        raise StoreUnavailable
    scope = asyncio.timeout_at(_expires_at.get())
    try:
        async with scope:
            return await operation()
    except TimeoutError as error:
        if scope.expired():
            raise StoreUnavailable from error
        raise


class _BoundedIterator(AsyncIterator[IdentityMapping]):
    def __init__(self, mappings: AsyncIterator[IdentityMapping]) -> None:
        self._mappings = mappings

    async def __anext__(self) -> IdentityMapping:
        return await _bounded(lambda: anext(self._mappings))
