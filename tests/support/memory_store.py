"""A working store in memory, for tests of what stands on a store. It passes the store contract."""

import asyncio
import dataclasses
import itertools
from collections.abc import AsyncIterator, Callable, Iterable
from datetime import UTC, datetime

from storage.mapping import IdentityMapping, MappingChanged, MappingExists, UserKey
from storage.paging import Paged


def _utc_now() -> datetime:
    return datetime.now(UTC)


class MemoryMappingStore:
    """Fulfils `MappingStore`. Every call first yields to the event loop, so that concurrent callers interleave."""

    def __init__(self, *, now: Callable[[], datetime] = _utc_now, page_size: int = 3) -> None:
        self.stored: dict[UserKey, IdentityMapping] = {}
        self.closed = False
        self._now = now
        self._page_size = page_size
        self._versions = itertools.count(1)

    async def get(self, user: UserKey) -> IdentityMapping | None:
        await asyncio.sleep(0)
        return self.stored.get(user)

    async def create(self, user: UserKey, acs_user_id: str) -> IdentityMapping:
        await asyncio.sleep(0)
        if existing := self.stored.get(user):
            raise MappingExists(existing)
        mapping = IdentityMapping(user, acs_user_id, self._now(), deleting=False, version=self._next_version())
        self.stored[user] = mapping
        return mapping

    async def mark_deleting(self, mapping: IdentityMapping) -> IdentityMapping:
        await asyncio.sleep(0)
        current = self.stored.get(mapping.user)
        if current is None or current.version != mapping.version:
            raise MappingChanged
        if current.deleting:
            return current
        marked = dataclasses.replace(current, deleting=True, version=self._next_version())
        self.stored[mapping.user] = marked
        return marked

    async def remove(self, mapping: IdentityMapping) -> None:
        await asyncio.sleep(0)
        current = self.stored.get(mapping.user)
        if current is None:
            return
        if current.version != mapping.version:
            raise MappingChanged
        del self.stored[mapping.user]

    def mappings(self) -> AsyncIterator[IdentityMapping]:
        users = list(self.stored)

        async def read_page(start: int | None) -> tuple[Iterable[IdentityMapping], int | None]:
            await asyncio.sleep(0)
            start = start or 0
            end = start + self._page_size
            page = [self.stored[user] for user in users[start:end] if user in self.stored]
            return page, end if end < len(users) else None

        return Paged(read_page)

    async def ping(self) -> None:
        await asyncio.sleep(0)

    async def aclose(self) -> None:
        self.closed = True

    def _next_version(self) -> str:
        return str(next(self._versions))
