"""Measuring: tells an operator how long each call of a store took and how it ended."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, nullcontext

from storage.mapping import IdentityMapping, MappingStore, UserKey

Measure = Callable[[str], AbstractContextManager[object]]
"""Gives the context in which the named operation is carried out. It sees the error that leaves it and lets it pass."""


def unmeasured(operation: str) -> AbstractContextManager[None]:
    """The `Measure` that does nothing."""
    return nullcontext()


class MeasuredStore:
    """`MappingStore` whose every call is made inside `measure(operation)`.

    It belongs outside the deadline and the retries: metrics(deadline(retry(store))). So it measures what the service
    waited for, the time between attempts included, and an attempt that hung and was given up. No argument and no result
    reaches `measure`: they hold user ids.
    """

    def __init__(self, store: MappingStore, measure: Measure) -> None:
        self._store = store
        self._measure = measure

    async def get(self, user: UserKey) -> IdentityMapping | None:
        """See `MappingStore.get`."""
        with self._measure("get"):
            return await self._store.get(user)

    async def create(self, user: UserKey, acs_user_id: str) -> IdentityMapping:
        """See `MappingStore.create`."""
        with self._measure("create"):
            return await self._store.create(user, acs_user_id)

    async def mark_deleting(self, mapping: IdentityMapping) -> IdentityMapping:
        """See `MappingStore.mark_deleting`."""
        with self._measure("mark_deleting"):
            return await self._store.mark_deleting(mapping)

    async def remove(self, mapping: IdentityMapping) -> None:
        """See `MappingStore.remove`."""
        with self._measure("remove"):
            await self._store.remove(mapping)

    def mappings(self) -> AsyncIterator[IdentityMapping]:
        """See `MappingStore.mappings`. For operators, who look at every step: not measured."""
        return self._store.mappings()

    async def ping(self) -> None:
        """See `MappingStore.ping`."""
        with self._measure("ping"):
            await self._store.ping()

    async def aclose(self) -> None:
        """See `MappingStore.aclose`."""
        await self._store.aclose()
