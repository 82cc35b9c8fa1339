"""The store as the service uses it: every call measured, bounded by the deadline, repeated where that is safe."""

from collections.abc import AsyncIterator
from datetime import datetime

from storage.mapping import (
    STORE,
    IdentityMapping,
    MappingPage,
    MappingStore,
    StoreThrottled,
    StoreUnavailable,
    StoreUserNotFound,
    UnreadableMapping,
    UserKey,
)
from upstream.calls import UpstreamCalls
from upstream.measuring import Measure, unmeasured
from upstream.retrying import RetryPolicy


class GuardedStore:
    """`MappingStore` around `store`: metrics(deadline(retry(store))). At the deadline, calls raise `StoreUnavailable`.

    Every method is safe to repeat, also when a lost answer hides that the first attempt was carried out:

    get, ping      change nothing.
    create         repeats only what was refused for now. After an unknown outcome somebody may have seen the mapping,
                   and deleted it with the identity; written once more it would point to a deleted identity. Whoever
                   creates must look first, and does (`IdentityService`).
    change         is bound to the version that was read. After a lost answer it ends with `MappingChanged`; the caller
                   reads again, as after any other change, and finds the mapping changed.
    remove         is bound to the version too, and already gone is success. A mapping that someone created in between
                   has another version and is not touched.
    page           changes nothing; it is a step of a listing, too.
    mappings       each step is bounded and repeated on its own: a store's iteration goes on after a transient error,
                   where it stopped. What was yielded is never yielded again. Operators look at every step, so steps
                   are not measured.

    No argument and no result reaches `measure`: they hold user ids. `aclose` belongs to no request and is not bounded.
    """

    def __init__(self, store: MappingStore, retry: RetryPolicy | None = None, measure: Measure = unmeasured) -> None:
        self._store = store
        self._calls = UpstreamCalls(STORE, lambda begun: StoreUnavailable(), retry or RetryPolicy(), measure)

    async def get(self, user: UserKey) -> IdentityMapping | None:
        """See `MappingStore.get`."""
        return await self._calls.call("get", lambda: self._store.get(user))

    async def create(self, user: UserKey, acs_user_id: str, created_at: datetime | None = None) -> IdentityMapping:
        """See `MappingStore.create`."""
        return await self._calls.call(
            "create",
            lambda: self._store.create(user, acs_user_id, created_at),
            repeat_on=lambda error: isinstance(error, StoreThrottled | StoreUserNotFound),
        )

    async def change(
        self, mapping: IdentityMapping, *, deleting: bool | None = None, signed_out_at: datetime | None = None
    ) -> IdentityMapping:
        """See `MappingStore.change`."""
        return await self._calls.call(
            "change", lambda: self._store.change(mapping, deleting=deleting, signed_out_at=signed_out_at)
        )

    async def remove(self, stored: IdentityMapping | UnreadableMapping) -> None:
        """See `MappingStore.remove`."""
        await self._calls.call("remove", lambda: self._store.remove(stored))

    def mappings(self) -> AsyncIterator[IdentityMapping | UnreadableMapping]:
        """See `MappingStore.mappings`."""
        return _GuardedIterator(self._store.mappings(), self._calls)

    async def page(self, name: str | None) -> MappingPage:
        """See `MappingStore.page`."""
        return await self._calls.call_unmeasured("mappings", lambda: self._store.page(name))

    async def ping(self) -> None:
        """See `MappingStore.ping`."""
        await self._calls.call("ping", self._store.ping)

    async def aclose(self) -> None:
        """See `MappingStore.aclose`."""
        await self._store.aclose()


class _GuardedIterator(AsyncIterator[IdentityMapping | UnreadableMapping]):
    def __init__(self, stored: AsyncIterator[IdentityMapping | UnreadableMapping], calls: UpstreamCalls) -> None:
        self._stored = stored
        self._calls = calls

    async def __anext__(self) -> IdentityMapping | UnreadableMapping:
        return await self._calls.call_unmeasured("mappings", lambda: anext(self._stored))
