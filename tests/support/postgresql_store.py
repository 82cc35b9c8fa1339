"""Mappings in PostgreSQL: the worked example of docs/stores/add-your-own.md, which shows this file as it is."""

import json
import secrets
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Protocol

from storage import values
from storage.mapping import (
    IdentityMapping,
    MappingChanged,
    MappingExists,
    MappingPage,
    MappingUnreadable,
    StoreUnavailable,
    Unreadable,
    UnreadableMapping,
    UserKey,
    changed_mapping,
)
from storage.paging import Paged

SCHEMA = """
CREATE TABLE IF NOT EXISTS identity_mappings (
    issuer TEXT NOT NULL CHECK (issuer <> ''),
    subject TEXT NOT NULL CHECK (subject <> ''),
    acs_user_id TEXT NOT NULL,
    created_at TEXT NOT NULL,
    deleting BOOLEAN NOT NULL DEFAULT FALSE,
    signed_out_at TEXT,
    version TEXT NOT NULL,
    PRIMARY KEY (issuer, subject)
)
"""
_SELECT = "SELECT issuer, subject, acs_user_id, created_at, deleting, signed_out_at, version FROM identity_mappings"
_UPDATE = (
    "UPDATE identity_mappings SET deleting = $4, signed_out_at = $5, version = $6"
    " WHERE issuer = $1 AND subject = $2 AND version = $3 RETURNING version"
)
_DELETE = "DELETE FROM identity_mappings WHERE issuer = $1 AND subject = $2 AND version = $3 RETURNING version"
_PAGE_SIZE = 500
_CREATE_ATTEMPTS = 10


class Database(Protocol):
    """What the store needs of PostgreSQL: one statement, committed before it returns.

    Raises `StoreUnavailable` and `StoreMisconfigured`, and nothing of the driver's.
    """

    async def fetch(self, statement: str, *arguments: object) -> Sequence[Mapping[str, Any]]:
        """The rows that the statement returns."""
        ...

    async def aclose(self) -> None:
        """Release connections."""
        ...


class PostgresMappingStore:
    """Fulfils `MappingStore`. A version is drawn at random for each write, so it never means another mapping."""

    def __init__(
        self,
        database: Database,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        new_version: Callable[[], str] = lambda: secrets.token_hex(16),
    ) -> None:
        self._database = database
        self._now = now
        self._new_version = new_version

    async def get(self, user: UserKey) -> IdentityMapping | None:
        """See `MappingStore.get`. No row is `None`; a row that is no mapping is an error."""
        rows = await self._database.fetch(f"{_SELECT} WHERE issuer = $1 AND subject = $2", user.issuer, user.subject)
        found = _mapping(rows[0]) if rows else None
        if isinstance(found, UnreadableMapping):
            raise MappingUnreadable(found)
        return found

    async def create(self, user: UserKey, acs_user_id: str, created_at: datetime | None = None) -> IdentityMapping:
        """See `MappingStore.create`. The primary key decides who wins; nothing is ever overwritten."""
        created_at = (created_at or self._now()).astimezone(UTC)
        mapping = IdentityMapping(user, acs_user_id, created_at, deleting=False, version=self._new_version())
        for _ in range(_CREATE_ATTEMPTS):
            if await self._database.fetch(
                "INSERT INTO identity_mappings (issuer, subject, acs_user_id, created_at, version)"
                " VALUES ($1, $2, $3, $4, $5) ON CONFLICT (issuer, subject) DO NOTHING RETURNING version",
                user.issuer,
                user.subject,
                acs_user_id,
                created_at.isoformat(),
                mapping.version,
            ):
                return mapping
            if existing := await self.get(user):
                raise MappingExists(existing)
            # It was removed between the two statements: there is room again.
        raise StoreUnavailable

    async def change(
        self, mapping: IdentityMapping, *, deleting: bool | None = None, signed_out_at: datetime | None = None
    ) -> IdentityMapping:
        """See `MappingStore.change`."""
        changed = changed_mapping(mapping, deleting, signed_out_at)
        if changed == mapping:
            current = await self.get(mapping.user)
            if current is None or current.version != mapping.version:
                raise MappingChanged
            return current
        version = self._new_version()
        if not await self._database.fetch(
            _UPDATE,
            *_key(mapping),
            changed.deleting,
            changed.signed_out_at and changed.signed_out_at.isoformat(),
            version,
        ):
            raise MappingChanged
        return replace(changed, version=version)

    async def remove(self, stored: IdentityMapping | UnreadableMapping) -> None:
        """See `MappingStore.remove`."""
        key = _key(stored)
        if await self._database.fetch(_DELETE, *key):
            return
        if await self._database.fetch(f"{_SELECT} WHERE issuer = $1 AND subject = $2", *key[:2]):
            raise MappingChanged

    def mappings(self) -> AsyncIterator[IdentityMapping | UnreadableMapping]:
        """See `MappingStore.mappings`. Page by page in the order of the key; nothing is held open in between."""
        return Paged(self._read_page)

    async def page(self, name: str | None) -> MappingPage:
        """See `MappingStore.page`. A name is the key of the row before, as JSON."""
        after = None
        if name is not None:
            issuer, subject = json.loads(name)
            after = str(issuer), str(subject)
        stored, following = await self._read_page(after)
        return MappingPage(tuple(stored), None if following is None else json.dumps(following))

    async def _read_page(
        self, after: tuple[str, str] | None
    ) -> tuple[list[IdentityMapping | UnreadableMapping], tuple[str, str] | None]:
        rows = await self._database.fetch(
            f"{_SELECT} WHERE (issuer, subject) > ($1, $2) ORDER BY issuer, subject LIMIT $3",
            *(after or ("", "")),
            _PAGE_SIZE,
        )
        last = (rows[-1]["issuer"], rows[-1]["subject"]) if len(rows) == _PAGE_SIZE else None
        return [_mapping(row) for row in rows], last

    async def ping(self) -> None:
        """See `MappingStore.ping`."""
        await self._database.fetch("SELECT version FROM identity_mappings LIMIT 1")

    async def aclose(self) -> None:
        """See `MappingStore.aclose`."""
        await self._database.aclose()


def _key(stored: IdentityMapping | UnreadableMapping) -> tuple[str, str, str]:
    if stored.user is None:
        raise ValueError("The schema has no row without a user.")
    return stored.user.issuer, stored.user.subject, stored.version


def _mapping(row: Mapping[str, Any]) -> IdentityMapping | UnreadableMapping:
    user, identity = UserKey(row["issuer"], row["subject"]), None
    try:
        identity = values.acs_user_id(row["acs_user_id"])
        return IdentityMapping(
            user,
            identity,
            values.created_at(row["created_at"]),
            deleting=values.deleting(row["deleting"]),
            version=row["version"],
            signed_out_at=values.signed_out_at(row["signed_out_at"]),
        )
    except values.NoSuchValue as fault:
        return UnreadableMapping(user, row["version"], Unreadable.DAMAGED, str(fault), acs_user_id=identity)
