"""The open extensions of the directory's users, kept in the stand-ins' state.

The rules are Graph's: a name is unique per user, one app may create two of them per user, each of at most 2 KB
(https://learn.microsoft.com/graph/extensibility-overview#open-extensions).
"""

import json
import sqlite3
from collections import Counter
from dataclasses import dataclass
from typing import Any

from local_azure.state import State

PER_APP = 2
MAX_BYTES = 2048


@dataclass(frozen=True, slots=True)
class OpenExtension:
    """One extension: its bare name and the properties that were stored with it."""

    name: str
    properties: dict[str, Any]


class DuplicateExtension(Exception):
    """The user has an extension of this name already."""


class TooManyExtensions(Exception):
    """The app has created its two extensions for this user already."""


class ExtensionTooLarge(Exception):
    """The extension's content is larger than 2 KB."""


class OpenExtensions:
    """All extensions of all users.

    `lag_reads` models replication: that many reads of a user (by this class's `of` and `get`) do not yet see an
    extension that was just created.
    """

    def __init__(self, state: State) -> None:
        self.lag_reads = 0
        self._lagging: Counter[tuple[str, str, str]] = Counter()
        self._database = state.database
        self._database.execute(
            "CREATE TABLE IF NOT EXISTS graph_extensions ("
            "tenant TEXT NOT NULL, user TEXT NOT NULL, name TEXT NOT NULL, app TEXT NOT NULL, "
            "properties TEXT NOT NULL, PRIMARY KEY (tenant, user, name))"
        )

    def of(self, tenant: str, user: str) -> list[OpenExtension]:
        """The user's extensions, as far as this read sees them."""
        rows = self._database.execute(
            "SELECT name, properties FROM graph_extensions WHERE tenant = ? AND user = ? ORDER BY rowid", (tenant, user)
        )
        return [_extension(row) for row in rows.fetchall() if not self._lags(tenant, user, row["name"])]

    def get(self, tenant: str, user: str, name: str) -> OpenExtension | None:
        """One extension, if this read sees it."""
        found = self._find(tenant, user, name)
        return None if found is None or self._lags(tenant, user, name) else found

    def create(self, tenant: str, user: str, app: str, extension: OpenExtension) -> None:
        """Store a new extension; raises `DuplicateExtension`, `TooManyExtensions`, `ExtensionTooLarge`."""
        if self._find(tenant, user, extension.name) is not None:
            raise DuplicateExtension
        count = self._database.execute(
            "SELECT COUNT(*) FROM graph_extensions WHERE tenant = ? AND user = ? AND app = ?", (tenant, user, app)
        ).fetchone()[0]
        if count >= PER_APP:
            raise TooManyExtensions
        self._database.execute(
            "INSERT INTO graph_extensions (tenant, user, name, app, properties) VALUES (?, ?, ?, ?, ?)",
            (tenant, user, extension.name, app, _content(extension)),
        )
        self._lagging[tenant, user, extension.name] = self.lag_reads

    def replace(self, tenant: str, user: str, extension: OpenExtension) -> bool:
        """Replace the whole content of an extension; false when there is none."""
        changed = self._database.execute(
            "UPDATE graph_extensions SET properties = ? WHERE tenant = ? AND user = ? AND name = ?",
            (_content(extension), tenant, user, extension.name),
        )
        return changed.rowcount == 1

    def delete(self, tenant: str, user: str, name: str) -> bool:
        """Delete an extension; false when there is none."""
        deleted = self._database.execute(
            "DELETE FROM graph_extensions WHERE tenant = ? AND user = ? AND name = ?", (tenant, user, name)
        )
        return deleted.rowcount == 1

    def _find(self, tenant: str, user: str, name: str) -> OpenExtension | None:
        row = self._database.execute(
            "SELECT name, properties FROM graph_extensions WHERE tenant = ? AND user = ? AND name = ?",
            (tenant, user, name),
        ).fetchone()
        return None if row is None else _extension(row)

    def _lags(self, tenant: str, user: str, name: str) -> bool:
        key = (tenant, user, name)
        if self._lagging[key] <= 0:
            del self._lagging[key]
            return False
        self._lagging[key] -= 1
        return True


def _extension(row: sqlite3.Row) -> OpenExtension:
    return OpenExtension(row["name"], json.loads(row["properties"]))


def _content(extension: OpenExtension) -> str:
    content = json.dumps(extension.properties, ensure_ascii=False)
    if len(content.encode()) > MAX_BYTES:
        raise ExtensionTooLarge
    return content
