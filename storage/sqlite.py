"""Mappings in one SQLite file: for one machine, where any number of processes may share the file.

Not for network file systems: write-ahead logging needs memory shared by all processes
(https://www.sqlite.org/wal.html).
"""

import asyncio
import sqlite3
import stat
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import aiosqlite

from storage import values
from storage.mapping import (
    IdentityMapping,
    MappingChanged,
    MappingExists,
    MappingPage,
    MappingUnreadable,
    StorageFull,
    StoreMisconfigured,
    StoreUnavailable,
    Unreadable,
    UnreadableMapping,
    UserKey,
    WritesRefused,
    changed_mapping,
)
from storage.paging import Paged


def _utc_now() -> datetime:
    return datetime.now(UTC)


async def open_sqlite_store(
    path: Path, *, now: Callable[[], datetime] = _utc_now, busy_timeout: float = 1.0
) -> "SqliteMappingStore":
    """Open the file, creating it (mode 0600, in an existing directory) and its schema when missing.

    A file that is there is read whole once, so that a damaged one is found before it is used (0.3 s for 130,000
    mappings), and written to, so that one that is read-only or on a full disk is.

    `now` gives the creation time of a mapping, in UTC. `busy_timeout` is how many seconds one call waits for another
    process's write to end. Raises `StoreMisconfigured`, naming the path and the remedy, when the path can't be used,
    and `StoreUnavailable` when another process keeps the file locked.
    """
    # A worker thread, not the event loop: this waits for the disk and for other processes.
    warnings = await asyncio.to_thread(_prepare, path, busy_timeout)
    with _translated(path):
        writer = await _connect(path, busy_timeout)
        try:
            # Each commit reaches the disk before it is answered. With NORMAL, a power cut could undo a create (the user
            # would be given a second identity) or a mark_deleting (the mapping would point to a deleted identity).
            await writer.execute("PRAGMA synchronous = FULL")
            reader = await _connect(path, busy_timeout)
        except BaseException:
            await writer.close()
            raise
    store = SqliteMappingStore(path, reader, writer, now, warnings)
    try:
        await store.ping()  # opens the files, which SQLite does only now
    except BaseException:
        await store.aclose()
        raise
    return store


class SqliteMappingStore:
    """Fulfils `MappingStore`; made by `open_sqlite_store`.

    Every statement is a separate transaction (autocommit), so a cancelled call leaves none open: its statement is
    carried out or not, as after any lost answer. Reads have their own connection and thread, and never
    wait for a write: with write-ahead logging they see the last commit of any process at once.

    A version is the row's number and its revision. Row numbers are never used again (AUTOINCREMENT), so a version can't
    mean a mapping that replaced the one that was read.
    """

    def __init__(
        self,
        path: Path,
        reader: aiosqlite.Connection,
        writer: aiosqlite.Connection,
        now: Callable[[], datetime],
        warnings: tuple[str, ...] = (),
    ) -> None:
        self.warnings = warnings
        self._path = path
        self._reader = reader
        self._writer = writer
        self._now = now
        self._files: dict[Path, tuple[int, int]] = {}
        self._writing = asyncio.Lock()
        self._closed = False

    async def get(self, user: UserKey) -> IdentityMapping | None:
        """See `MappingStore.get`."""
        rows = await self._read(_SELECT + " WHERE issuer = ? AND subject = ?", user.issuer, user.subject)
        found = _mapping(rows[0]) if rows else None
        if isinstance(found, UnreadableMapping):
            raise MappingUnreadable(found)
        return found

    async def create(self, user: UserKey, acs_user_id: str, created_at: datetime | None = None) -> IdentityMapping:
        """See `MappingStore.create`."""
        created_at = (created_at or self._now()).astimezone(UTC)
        for _ in range(_CREATE_ATTEMPTS):
            written = await self._write(
                "INSERT INTO mappings (issuer, subject, acs_user_id, created_at) VALUES (?, ?, ?, ?)"
                " ON CONFLICT (issuer, subject) DO NOTHING",
                user.issuer,
                user.subject,
                acs_user_id,
                created_at.isoformat(),
            )
            if written.rowcount:
                version = _version(written.lastrowid, _FIRST_REVISION)
                return IdentityMapping(user, acs_user_id, created_at, deleting=False, version=version)
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
        number, revision = _parts(mapping.version)
        written = await self._write(
            f"UPDATE mappings SET deleting = ?, signed_out_at = ?, revision = revision + 1 WHERE {_SAME}",  # noqa: S608
            int(changed.deleting),
            None if changed.signed_out_at is None else changed.signed_out_at.isoformat(),
            number,
            revision,
        )
        if not written.rowcount:
            raise MappingChanged
        return replace(changed, version=_version(number, int(revision) + 1))

    async def remove(self, stored: IdentityMapping | UnreadableMapping) -> None:
        """See `MappingStore.remove`."""
        number, revision = _parts(stored.version)
        written = await self._write(f"DELETE FROM mappings WHERE {_SAME}", number, revision)  # noqa: S608
        # A version that is gone never comes back, so the two statements need no common transaction.
        if not written.rowcount and await self._is_there(stored):
            raise MappingChanged

    def mappings(self) -> AsyncIterator[IdentityMapping | UnreadableMapping]:
        """See `MappingStore.mappings`. In the order of creation; nothing is held open between pages."""

        return Paged(self._read_page)

    async def page(self, name: str | None) -> MappingPage:
        """See `MappingStore.page`. A name is the number of the row before."""
        stored, following = await self._read_page(None if name is None else int(name))
        return MappingPage(tuple(stored), None if following is None else str(following))

    async def _read_page(self, after: int | None) -> tuple[list[IdentityMapping | UnreadableMapping], int | None]:
        rows = await self._read(
            _SELECT + " WHERE number > ? ORDER BY number LIMIT ?", after if after is not None else 0, _PAGE_SIZE
        )
        return [_mapping(row) for row in rows], rows[-1][0] if len(rows) == _PAGE_SIZE else None

    async def ping(self) -> None:
        """See `MappingStore.ping`."""
        await self._read("SELECT 1 FROM mappings LIMIT 1")
        if not self._files:
            self._files = {path: _identity(path) for path in (self._path, _beside(self._path, "-wal"))}

    async def aclose(self) -> None:
        """See `MappingStore.aclose`. Calls in progress finish first."""
        self._closed = True
        try:
            await self._reader.close()
        finally:
            await self._writer.close()

    async def _is_there(self, stored: IdentityMapping | UnreadableMapping) -> bool:
        if stored.user is None:
            return bool(await self._read("SELECT 1 FROM mappings WHERE number = ?", _parts(stored.version)[0]))
        user = stored.user
        return bool(
            await self._read("SELECT 1 FROM mappings WHERE issuer = ? AND subject = ?", user.issuer, user.subject)
        )

    async def _read(self, statement: str, *parameters: Any) -> list[Any]:
        self._refuse_when_unusable()
        with _translated(self._path):
            # All rows are fetched in the same step: a cancelled call leaves no half-read statement behind.
            return list(await self._reader.execute_fetchall(statement, parameters))

    async def _write(self, statement: str, *parameters: Any) -> aiosqlite.Cursor:
        # The lock keeps waiting calls out of the connection's queue: one that is cancelled meanwhile never writes.
        async with self._writing:
            self._refuse_when_unusable()
            with _translated(self._path, writing=True):
                return await self._writer.execute(statement, parameters)

    def _refuse_when_unusable(self) -> None:
        """Whether the store is closed, or its files are no longer those that it opened.

        What is written to a file that was removed or replaced is lost with this process.
        """
        if self._closed:
            raise StoreUnavailable
        for path, opened in self._files.items():
            try:
                same = _identity(path) == opened
            except OSError:
                same = False
            if not same:
                raise WritesRefused(
                    f"The SQLite file {path} was removed or replaced while it was in use. Restart the service; next "
                    "time, stop it first."
                )


_APPLICATION_ID = 0x61637361  # "acsa": marks the file as ours, https://www.sqlite.org/pragma.html#pragma_application_id
_SCHEMA_VERSION = 2
_SCHEMA = """
CREATE TABLE mappings (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    issuer TEXT NOT NULL,
    subject TEXT NOT NULL,
    acs_user_id TEXT NOT NULL,
    created_at TEXT NOT NULL,
    deleting INTEGER NOT NULL DEFAULT 0,
    revision INTEGER NOT NULL DEFAULT 1,
    signed_out_at TEXT,
    UNIQUE (issuer, subject)
)
"""
_MIGRATIONS = {1: "ALTER TABLE mappings ADD COLUMN signed_out_at TEXT"}
"""How a file of an earlier release gets one version further. Processes of that release can go on next to this one."""
_SELECT = (
    "SELECT number, CAST(revision AS TEXT), issuer, subject, acs_user_id, created_at, deleting, signed_out_at"
    " FROM mappings"
)
_SAME = "number = ? AND CAST(revision AS TEXT) = ?"
"""As text, because the revision of a damaged row may be anything."""
_FIRST_REVISION = 1
_PAGE_SIZE = 500
_CREATE_ATTEMPTS = 10
_CHECKPOINT_SECONDS = 5.0
"""Longer than it takes SQLite to move a -wal's content into the file."""
_SWITCH_TO_WAL_PAUSE = 0.01  # seconds
_TRANSIENT = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_INTERRUPT,
    sqlite3.SQLITE_PROTOCOL,
}
_REMEDIES = {
    sqlite3.SQLITE_CANTOPEN: "Create its directory and let this process write there.",
    sqlite3.SQLITE_READONLY: "Let this process write to the file and its directory.",
    sqlite3.SQLITE_PERM: "Let this process write to the file and its directory.",
    sqlite3.SQLITE_NOTADB: "It is not an SQLite database: move it away or choose another path.",
    sqlite3.SQLITE_CORRUPT: "It is damaged: restore it from a backup.",
    sqlite3.SQLITE_FULL: "The disk is full: free some space.",
}


async def _connect(path: Path, busy_timeout: float) -> aiosqlite.Connection:
    # isolation_level=None is autocommit. mode=rw: a file that vanished after it was prepared is not created, empty.
    connection = await aiosqlite.connect(_uri(path), uri=True, timeout=busy_timeout, isolation_level=None)
    # What is no UTF-8 is one damaged value, not a listing that fails.
    connection.text_factory = lambda text: text.decode("utf-8", "backslashreplace")
    return connection


def _uri(path: Path) -> str:
    return path.absolute().as_uri() + "?mode=rw"


def _identity(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _left_over(path: Path) -> Iterator[str]:
    """That the file was changed after its -wal was last written to, which is what restoring a backup looks like.

    It is no proof: a tool that moved the -wal's content into the file, or chmod, leaves the same. SQLite itself moves
    the content right after it has written it.
    """
    wal = _beside(path, "-wal")
    try:
        changed, written = path.stat().st_ctime, wal.stat()
    except OSError:
        return
    if written.st_size and changed > written.st_mtime + _CHECKPOINT_SECONDS:
        yield (
            f"The SQLite file {path} was changed after {wal}, which a process left that was killed. If you restored "
            "the file from a backup, that may be undone now: stop the service, remove the -wal and -shm files, and "
            "restore it again."
        )


def _readable_by_others(path: Path) -> Iterator[str]:
    """That is weak of a file that was there before: this store makes its own with mode 0600."""
    if sys.platform == "win32":
        return  # its modes tell nothing of who may read
    mode = path.stat().st_mode
    if not mode & (stat.S_IRWXG | stat.S_IRWXO):
        return
    yield (
        f"The SQLite file {path} has mode {stat.S_IMODE(mode):04o}: other accounts of this machine may use it, and it "
        f"holds user ids. Run chmod 600 {path}."
    )


def _prepare(path: Path, busy_timeout: float) -> tuple[str, ...]:
    """Bring about that the file is there and can be used; what is weak about it."""
    warnings = [*_left_over(path)]
    _refuse_what_is_no_database(path)
    try:
        path.touch(mode=0o600, exist_ok=False)  # SQLite gives its -wal and -shm files the same mode.
    except FileExistsError:
        pass
    except OSError as error:
        raise _misconfigured(path, _REMEDIES[sqlite3.SQLITE_CANTOPEN]) from error
    _refuse_damage(path, busy_timeout)
    with (
        _translated(path),
        closing(sqlite3.connect(_uri(path), uri=True, timeout=busy_timeout, isolation_level=None)) as database,
    ):
        _switch_to_wal(database, busy_timeout)
        # Taking the write lock first: of several processes that start together, one makes the schema.
        database.execute("BEGIN IMMEDIATE")
        try:
            _create_schema(path, database)
        except BaseException:
            database.execute("ROLLBACK")
            raise
        database.execute("COMMIT")
    return (*warnings, *_readable_by_others(path))


def _refuse_what_is_no_database(path: Path) -> None:
    """Before it is opened, which would hold up this process for ever if it is a pipe."""
    if path.exists() and not path.is_file():
        raise _misconfigured(path, "It is not a plain file: choose another path.")
    wal = _beside(path, "-wal")
    if not _size(path) and _size(wal):  # SQLite would remove it, and begin with nothing
        raise _misconfigured(
            path, f"It is missing or empty, though {wal} holds a part of it: restore both, or remove the -wal file."
        )


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _refuse_damage(path: Path, busy_timeout: float) -> None:
    """Read the whole file, without writing: what is in a -wal that belongs to another file must not get into it."""
    if not _size(path):
        return
    uri = path.absolute().as_uri() + "?mode=ro"
    with _translated(path), closing(sqlite3.connect(uri, uri=True, timeout=busy_timeout)) as database:
        # https://www.sqlite.org/pragma.html#pragma_integrity_check
        if database.execute("PRAGMA integrity_check(1)").fetchone() != ("ok",):
            raise _misconfigured(path, _damaged(path))


def _damaged(path: Path) -> str:
    wal = _beside(path, "-wal")
    if not _size(wal):
        return _REMEDIES[sqlite3.SQLITE_CORRUPT]
    return (
        f"It is damaged, or {wal} belongs to an earlier file in its place: remove the -wal and -shm files beside it, "
        "and restore it from a backup."
    )


def _create_schema(path: Path, database: sqlite3.Connection) -> None:
    (application,) = database.execute("PRAGMA application_id").fetchone()
    (version,) = database.execute("PRAGMA user_version").fetchone()
    (tables,) = database.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if (application, version, tables) == (0, 0, 0):
        database.execute(_SCHEMA)
        database.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
        version = _SCHEMA_VERSION
    elif application != _APPLICATION_ID:
        raise _misconfigured(path, "It is another application's database: choose another path.")
    elif version > _SCHEMA_VERSION:
        raise _misconfigured(
            path,
            f"A newer release wrote it (schema {version}; this one knows {_SCHEMA_VERSION}): run that release.",
        )
    for earlier in range(version, _SCHEMA_VERSION):
        database.execute(_MIGRATIONS[earlier])
    # Always: without a write, SQLite takes a file that it may only read for one that it may write.
    database.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")


def _switch_to_wal(database: sqlite3.Connection, busy_timeout: float) -> None:
    # SQLite's own busy timeout doesn't cover this switch when another process writes, such as one that makes the file.
    give_up = monotonic() + busy_timeout
    while True:
        try:
            database.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if _primary_code(error) != sqlite3.SQLITE_BUSY or monotonic() > give_up:
                raise
            sleep(_SWITCH_TO_WAL_PAUSE)
        else:
            return


@contextmanager
def _translated(path: Path, *, writing: bool = False) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        code = _primary_code(error)
        if code in _TRANSIENT:
            raise StoreUnavailable from error
        remedy = _REMEDIES.get(code, "Check the file, or choose another path.")
        if code == sqlite3.SQLITE_CORRUPT:
            remedy = _damaged(path)
        kind = StorageFull if code == sqlite3.SQLITE_FULL else WritesRefused if writing else StoreMisconfigured
        raise _misconfigured(path, remedy, kind) from error


def _misconfigured(path: Path, remedy: str, kind: type[StoreMisconfigured] = StoreMisconfigured) -> StoreMisconfigured:
    return kind(f"The SQLite file {path} can't be used. {remedy}")


def _primary_code(error: sqlite3.Error) -> int:
    # Extended result codes keep the primary one in their lowest byte: https://www.sqlite.org/rescode.html
    code: int = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    if code == sqlite3.SQLITE_IOERR_SHMSIZE:  # no room for the -shm file
        return sqlite3.SQLITE_FULL
    return code & 0xFF


def _mapping(row: Any) -> IdentityMapping | UnreadableMapping:
    number, revision, issuer, subject, acs_user_id, created_at, deleting, signed_out_at = row
    version = _version(number, revision)
    user, identity = None, None
    try:
        user = UserKey(values.text(issuer, "issuer"), values.text(subject, "subject"))
        identity = values.acs_user_id(acs_user_id)
        values.digits(revision, "revision")
        return IdentityMapping(
            user,
            identity,
            values.created_at(created_at),
            # SQLite has no truth values: https://www.sqlite.org/datatype3.html#boolean_datatype
            deleting=values.deleting({0: False, 1: True}.get(deleting) if isinstance(deleting, int) else deleting),
            version=version,
            signed_out_at=values.signed_out_at(signed_out_at),
        )
    except values.NoSuchValue as fault:
        return UnreadableMapping(
            user, version, Unreadable.DAMAGED, str(fault), key=f"row {number}", acs_user_id=identity
        )


def _version(number: int | None, revision: int | str) -> str:
    return f"{number}.{revision}"


def _parts(version: str) -> tuple[int, str]:
    number, _, revision = version.partition(".")
    return int(number), revision
