"""A working store in memory, for tests of what stands on a store. It passes the store contract."""

import asyncio
import dataclasses
import itertools
from collections.abc import AsyncIterator, Callable, Iterable
from datetime import UTC, datetime

from storage.mapping import (
    IdentityMapping,
    MappingChanged,
    MappingExists,
    MappingPage,
    MappingUnreadable,
    UnreadableMapping,
    UserKey,
    changed_mapping,
)
from storage.paging import Paged


def _utc_now() -> datetime:
    return datetime.now(UTC)


def _as_read(mapping: IdentityMapping) -> IdentityMapping:
    """An equal one of which nothing is the same object, as what is read over a wire."""
    acs_user_id = mapping.acs_user_id
    return dataclasses.replace(mapping, acs_user_id="".join((acs_user_id[:1], acs_user_id[1:])))


class MemoryMappingStore:
    """Fulfils `MappingStore`. Every call first yields to the event loop, so that concurrent callers interleave.

    What a test puts into `unreadable` stands in the place of that user's mapping.
    """

    def __init__(self, *, now: Callable[[], datetime] = _utc_now, page_size: int = 3) -> None:
        self.stored: dict[UserKey, IdentityMapping] = {}
        self.unreadable: dict[UserKey, UnreadableMapping] = {}
        self.closed = False
        self._now = now
        self._page_size = page_size
        self._versions = itertools.count(1)

    async def get(self, user: UserKey) -> IdentityMapping | None:
        await asyncio.sleep(0)
        self._require_readable(user)
        mapping = self.stored.get(user)
        return None if mapping is None else _as_read(mapping)

    async def create(self, user: UserKey, acs_user_id: str, created_at: datetime | None = None) -> IdentityMapping:
        await asyncio.sleep(0)
        self._require_readable(user)
        if existing := self.stored.get(user):
            raise MappingExists(_as_read(existing))
        created_at = (created_at or self._now()).astimezone(UTC)
        mapping = IdentityMapping(user, acs_user_id, created_at, deleting=False, version=self._next_version())
        self.stored[user] = mapping
        return _as_read(mapping)

    async def change(
        self, mapping: IdentityMapping, *, deleting: bool | None = None, signed_out_at: datetime | None = None
    ) -> IdentityMapping:
        await asyncio.sleep(0)
        current = self.stored.get(mapping.user)
        if current is None or current.version != mapping.version:
            raise MappingChanged
        changed = changed_mapping(current, deleting, signed_out_at)
        if changed == current:
            return _as_read(current)
        changed = dataclasses.replace(changed, version=self._next_version())
        self.stored[mapping.user] = changed
        return _as_read(changed)

    async def remove(self, stored: IdentityMapping | UnreadableMapping) -> None:
        await asyncio.sleep(0)
        assert stored.user is not None
        current = self.unreadable.get(stored.user) or self.stored.get(stored.user)
        if current is None:
            return
        if current.version != stored.version:
            raise MappingChanged
        self.unreadable.pop(stored.user, None)
        self.stored.pop(stored.user, None)

    def mappings(self) -> AsyncIterator[IdentityMapping | UnreadableMapping]:
        users = list(self.stored | self.unreadable)

        async def read_page(start: int | None) -> tuple[Iterable[IdentityMapping | UnreadableMapping], int | None]:
            return await self._read_page(users, start or 0)

        return Paged(read_page)

    async def page(self, name: str | None) -> MappingPage:
        """Names count users, so a listing by names is only good while nothing is removed."""
        page, following = await self._read_page(list(self.stored | self.unreadable), int(name or 0))
        return MappingPage(tuple(page), None if following is None else str(following))

    async def _read_page(
        self, users: list[UserKey], start: int
    ) -> tuple[list[IdentityMapping | UnreadableMapping], int | None]:
        await asyncio.sleep(0)
        end = start + self._page_size
        there: dict[UserKey, IdentityMapping | UnreadableMapping] = {**self.stored, **self.unreadable}
        page = [there[user] for user in users[start:end] if user in there]
        return page, end if end < len(users) else None

    async def ping(self) -> None:
        await asyncio.sleep(0)

    async def aclose(self) -> None:
        self.closed = True

    def _require_readable(self, user: UserKey) -> None:
        if user in self.unreadable:
            raise MappingUnreadable(self.unreadable[user])

    def _next_version(self) -> str:
        return str(next(self._versions))
