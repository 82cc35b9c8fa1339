"""Databases, containers and items in the shared state file."""

import base64
import json
import secrets
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from local_azure.clock import Clock
from local_azure.cosmos.errors import conflict, item_not_found, owner_not_found, precondition_failed
from local_azure.state import State

Json = dict[str, Any]

_TABLES = """
CREATE TABLE IF NOT EXISTS cosmos_account (key TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS cosmos_databases (id TEXT PRIMARY KEY, body TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS cosmos_containers (
    database TEXT NOT NULL, id TEXT NOT NULL, body TEXT NOT NULL, PRIMARY KEY (database, id)
);
CREATE TABLE IF NOT EXISTS cosmos_items (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    container TEXT NOT NULL,
    partition_key TEXT NOT NULL,
    id TEXT NOT NULL,
    rid TEXT NOT NULL,
    body TEXT NOT NULL,
    etag TEXT NOT NULL,
    expires REAL,
    UNIQUE (container, partition_key, id)
);
"""


@dataclass(frozen=True, slots=True)
class Container:
    """A container's stored resource, taken apart for the item operations."""

    rid: str
    self_link: str
    partition_key_paths: tuple[tuple[str, ...], ...]
    default_ttl: int | None
    body: Json


@dataclass(frozen=True, slots=True)
class StoredItem:
    """An item as it goes over the wire, its etag (quoted) and its place in the feed."""

    sequence: int
    body: str
    etag: str


class Storage:
    """What the account holds. Errors are `CosmosError` of the status that the service answers."""

    def __init__(self, state: State, *, clock: Clock, key_bytes: int) -> None:
        self._database = state.database
        self._clock = clock
        self._database.executescript(_TABLES)
        self._databases: dict[str, Json] = {
            row["id"]: json.loads(row["body"])
            for row in self._database.execute("SELECT id, body FROM cosmos_databases")
        }
        self._containers: dict[tuple[str, str], Container] = {
            (row["database"], row["id"]): _container(json.loads(row["body"]))
            for row in self._database.execute("SELECT database, id, body FROM cosmos_containers")
        }
        row = self._database.execute("SELECT key FROM cosmos_account").fetchone()
        if row is None:
            self.key = base64.b64encode(secrets.token_bytes(key_bytes)).decode()
            self._database.execute("INSERT INTO cosmos_account VALUES (?)", (self.key,))
        else:
            self.key = row["key"]
        self.lsn = self._database.execute("SELECT COALESCE(MAX(sequence), 0) FROM cosmos_items").fetchone()[0]

    def has_database(self, name: str) -> bool:
        """Whether the database is there."""
        return name in self._databases

    def has_container(self, database: str, name: str) -> bool:
        """Whether the container is there."""
        return (database, name) in self._containers

    def create_database(self, body: Json) -> Json:
        """Raises 409."""
        name = str(body["id"])
        if name in self._databases:
            raise conflict()
        rid = _rid(secrets.token_bytes(4))
        stored = {"id": name, "_rid": rid, "_self": f"dbs/{rid}/", "_etag": _etag(), "_ts": int(self._clock())}
        stored |= {"_colls": "colls/", "_users": "users/"}
        self._database.execute("INSERT INTO cosmos_databases VALUES (?, ?)", (name, json.dumps(stored)))
        self._databases[name] = stored
        return stored

    def database(self, name: str) -> Json:
        """Raises 404."""
        if name not in self._databases:
            raise item_not_found()
        return self._databases[name]

    def create_container(self, database: str, body: Json) -> Json:
        """Raises 404 when the database is missing, 409."""
        if database not in self._databases:
            raise owner_not_found()
        name = str(body["id"])
        if (database, name) in self._containers:
            raise conflict()
        owner = self._databases[database]
        rid = _rid(_rid_bytes(owner["_rid"]) + secrets.token_bytes(4))
        stored = {
            "indexingPolicy": _default_indexing_policy(),
            "conflictResolutionPolicy": {"mode": "LastWriterWins", "conflictResolutionPath": "/_ts"},
            **body,
            "_rid": rid,
            "_self": f"{owner['_self']}colls/{rid}/",
            "_etag": _etag(),
            "_ts": int(self._clock()),
            "_docs": "docs/",
            "_sprocs": "sprocs/",
            "_triggers": "triggers/",
            "_udfs": "udfs/",
            "_conflicts": "conflicts/",
        }
        self._database.execute("INSERT INTO cosmos_containers VALUES (?, ?, ?)", (database, name, json.dumps(stored)))
        self._containers[database, name] = _container(stored)
        return stored

    def container(self, database: str, name: str) -> Container:
        """Raises 404: for the container itself when it is asked for, see `owner` for what is inside it."""
        if (database, name) not in self._containers:
            raise item_not_found() if database in self._databases else owner_not_found()
        return self._containers[database, name]

    def owner(self, database: str, name: str) -> Container:
        """The container around an item. Raises 404 with sub-status 1003, which tells it from a missing item."""
        container = self._containers.get((database, name))
        if container is None:
            raise owner_not_found()
        return container

    def delete_container(self, database: str, name: str) -> None:
        """Raises 404."""
        container = self.container(database, name)
        self._database.execute("DELETE FROM cosmos_items WHERE container = ?", (container.rid,))
        self._database.execute("DELETE FROM cosmos_containers WHERE database = ? AND id = ?", (database, name))
        del self._containers[database, name]

    def read(self, container: Container, partition_key: str, item_id: str) -> StoredItem:
        """Raises 404."""
        row = self._find(container, partition_key, item_id)
        return StoredItem(row["sequence"], row["body"], row["etag"])

    def create(self, container: Container, partition_key: str, body: Json) -> StoredItem:
        """Raises 409."""
        item_id = body["id"]
        self._forget_expired(container, partition_key, item_id)
        rid = _rid(_rid_bytes(container.rid) + secrets.token_bytes(8))
        stored, expires = self._stamp(container, rid, body)
        text = json.dumps(stored)
        try:
            cursor = self._database.execute(
                "INSERT INTO cosmos_items (container, partition_key, id, rid, body, etag, expires) "
                "VALUES (?, ?, ?, ?, ?, ?, ?)",
                (container.rid, partition_key, item_id, rid, text, stored["_etag"], expires),
            )
        except sqlite3.IntegrityError as error:
            raise conflict() from error
        self.lsn += 1
        return StoredItem(cursor.lastrowid or 0, text, stored["_etag"])

    def replace(
        self, container: Container, partition_key: str, item_id: str, body: Json, if_match: str | None
    ) -> StoredItem:
        """Raises 404, 412."""
        row = self._find(container, partition_key, item_id, if_match)
        stored, expires = self._stamp(container, row["rid"], body)
        text = json.dumps(stored)
        self._database.execute(
            "UPDATE cosmos_items SET body = ?, etag = ?, expires = ? WHERE sequence = ?",
            (text, stored["_etag"], expires, row["sequence"]),
        )
        self.lsn += 1
        return StoredItem(row["sequence"], text, stored["_etag"])

    def delete(self, container: Container, partition_key: str, item_id: str, if_match: str | None) -> None:
        """Raises 404, 412."""
        row = self._find(container, partition_key, item_id, if_match)
        self._database.execute("DELETE FROM cosmos_items WHERE sequence = ?", (row["sequence"],))
        self.lsn += 1

    def feed(self, container: Container, partition_key: str | None, after: int) -> Iterator[StoredItem]:
        """Items in the order of their creation, those behind `after` only, of one partition key or of all."""
        rows = self._database.execute(
            "SELECT sequence, body, etag FROM cosmos_items WHERE container = ? AND sequence > ? "
            "AND (? IS NULL OR partition_key = ?) AND (expires IS NULL OR expires > ?) ORDER BY sequence",
            (container.rid, after, partition_key, partition_key, self._clock()),
        )
        return (StoredItem(row["sequence"], row["body"], row["etag"]) for row in rows)

    def _find(self, container: Container, partition_key: str, item_id: str, if_match: str | None = None) -> sqlite3.Row:
        row: sqlite3.Row | None = self._database.execute(
            "SELECT sequence, rid, body, etag, expires FROM cosmos_items "
            "WHERE container = ? AND partition_key = ? AND id = ?",
            (container.rid, partition_key, item_id),
        ).fetchone()
        if row is None or (row["expires"] is not None and row["expires"] <= self._clock()):
            raise item_not_found()
        if if_match is not None and if_match not in ("*", row["etag"]):
            raise precondition_failed()
        return row

    def _forget_expired(self, container: Container, partition_key: str, item_id: str) -> None:
        if container.default_ttl is not None:
            self._database.execute(
                "DELETE FROM cosmos_items WHERE container = ? AND partition_key = ? AND id = ? AND expires <= ?",
                (container.rid, partition_key, item_id, self._clock()),
            )

    def _stamp(self, container: Container, rid: str, body: Json) -> tuple[Json, float | None]:
        now = int(self._clock())
        stored = {
            **body,
            "_rid": rid,
            "_self": f"{container.self_link}docs/{rid}/",
            "_etag": _etag(),
            "_attachments": "attachments/",
            "_ts": now,
        }
        # An item's own `ttl` counts only in a container with `defaultTtl`; -1 is "never".
        # learn.microsoft.com/azure/cosmos-db/nosql/time-to-live
        seconds = body.get("ttl", container.default_ttl) if container.default_ttl is not None else None
        return stored, None if seconds is None or seconds == -1 else now + float(seconds)


def _container(body: Json) -> Container:
    paths = body.get("partitionKey", {}).get("paths", [])
    return Container(
        rid=body["_rid"],
        self_link=body["_self"],
        partition_key_paths=tuple(tuple(path.strip("/").split("/")) for path in paths),
        default_ttl=body.get("defaultTtl"),
        body=body,
    )


def _default_indexing_policy() -> Json:
    return {
        "indexingMode": "consistent",
        "automatic": True,
        "includedPaths": [{"path": "/*"}],
        "excludedPaths": [{"path": '/"_etag"/?'}],
    }


def _etag() -> str:
    token = secrets.token_hex(16)
    return f'"{token[:8]}-{token[8:12]}-{token[12:16]}-0000-{token[16:28]}"'


def _rid(raw: bytes) -> str:
    # Resource ids are base64 with "-" in the place of "/".
    return base64.b64encode(raw, altchars=b"+-").decode()


def _rid_bytes(rid: str) -> bytes:
    return base64.b64decode(rid, altchars=b"+-")
