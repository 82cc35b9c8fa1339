"""SQLite fulfils the store contract; and what is its own: one file, several processes, crashes, files it can't use."""

import asyncio
import itertools
import json
import os
import re
import shutil
import socket
import sqlite3
import stat
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, aclosing, closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiosqlite
import pytest

from storage.mapping import (
    UNKNOWN_CREATION,
    IdentityMapping,
    MappingChanged,
    MappingStore,
    MappingUnreadable,
    StorageFull,
    StoreError,
    StoreMisconfigured,
    StoreUnavailable,
    Unreadable,
    UserKey,
    WritesRefused,
)
from storage.sqlite import SqliteMappingStore, open_sqlite_store
from tests.support import store_contract as contract
from tests.support.acs_ids import acs_id
from tests.support.sqlite_process import USERS
from tests.support.store_contract import ALICE, BOB, OpenStore, listed

_PROJECT = Path(__file__).parents[2]


@pytest.fixture
def open_back_end(tmp_path: Path) -> OpenStore:
    numbers = itertools.count()

    async def open_new() -> MappingStore:
        return await open_sqlite_store(tmp_path / f"mappings-{next(numbers)}.sqlite")

    return open_new


class TestPlainUse(contract.PlainUse): ...


class TestConcurrency(contract.Concurrency): ...


class TestFaults(contract.FaultsAroundTheStore): ...


class TestStateMachine(contract.StateMachine): ...


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "mappings.sqlite"


@pytest.fixture
async def sqlite_store(path: Path) -> AsyncIterator[SqliteMappingStore]:
    """A store that doesn't wait for other processes."""
    async with aclosing(await open_sqlite_store(path, busy_timeout=0)) as store:
        yield store


@pytest.fixture
async def patient_store(path: Path) -> AsyncIterator[SqliteMappingStore]:
    """A store that waits for other processes longer than any test takes."""
    async with aclosing(await open_sqlite_store(path, busy_timeout=600)) as store:
        yield store


@pytest.fixture
def rival(path: Path) -> Iterator[sqlite3.Connection]:
    """Another process's connection to the same file."""
    with closing(sqlite3.connect(path, isolation_level=None, timeout=60)) as connection:
        yield connection


class TestTheFile:
    async def test_mappings_outlive_the_store_that_wrote_them(self, path: Path) -> None:
        async with aclosing(await open_sqlite_store(path)) as store:
            marked = await store.change(await store.create(ALICE, acs_id("one")), deleting=True)
            kept = await store.create(BOB, acs_id("two"))
        async with aclosing(await open_sqlite_store(path)) as store:
            assert await listed(store) == [marked, kept]

    async def test_only_its_owner_may_read_it(self, path: Path, sqlite_store: SqliteMappingStore) -> None:
        await sqlite_store.create(ALICE, acs_id("one"))
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
        assert modes == {path.name: 0o600, f"{path.name}-wal": 0o600, f"{path.name}-shm": 0o600}

    async def test_an_answered_write_is_on_the_disk(self, sqlite_store: SqliteMappingStore) -> None:
        # https://www.sqlite.org/pragma.html#pragma_synchronous: 2 is FULL.
        for pragma, value in (("journal_mode", "wal"), ("synchronous", 2)):
            assert list(await sqlite_store._writer.execute_fetchall(f"PRAGMA {pragma}")) == [(value,)]

    async def test_the_creation_time_is_the_clocks(self, path: Path) -> None:
        noon = datetime(2026, 1, 2, 12, 0, 0, 123456, tzinfo=UTC)
        async with aclosing(await open_sqlite_store(path, now=lambda: noon)) as store:
            created = await store.create(ALICE, acs_id("one"))
            assert created.created_at == noon
            assert await store.get(ALICE) == created

    async def test_a_listing_of_several_pages_is_complete_and_in_order(
        self, sqlite_store: SqliteMappingStore, rival: sqlite3.Connection
    ) -> None:
        rows = [("tenant", f"user-{n}", acs_id(f"{n}"), "2026-01-02T12:00:00+00:00") for n in range(1001)]
        rival.execute("BEGIN")
        rival.executemany("INSERT INTO mappings (issuer, subject, acs_user_id, created_at) VALUES (?, ?, ?, ?)", rows)
        rival.execute("COMMIT")
        found = await listed(sqlite_store)
        assert [mapping.acs_user_id for mapping in found] == [row[2] for row in rows]

    async def test_closing_twice_is_harmless_and_later_calls_find_it_unavailable(self, path: Path) -> None:
        store = await open_sqlite_store(path)
        await store.aclose()
        await store.aclose()
        for call in (store.get(ALICE), store.create(ALICE, acs_id("one")), store.ping()):
            with pytest.raises(StoreUnavailable):
                await call

    async def test_closing_lets_calls_under_way_end(self, path: Path) -> None:
        store = await open_sqlite_store(path)
        create = asyncio.create_task(store.create(ALICE, acs_id("one")))
        await asyncio.sleep(0)
        await store.aclose()
        assert (await create).acs_user_id == acs_id("one")


class TestSeveralProcesses:
    async def test_two_processes_that_race_agree_on_one_winner_for_each_user(self, path: Path) -> None:
        rivals = [await _start("race", str(path), name) for name in ("left", "right")]
        for process in rivals:
            assert await _line(process) == "ready"
        ended = []
        for process in rivals:
            assert process.stdin is not None
            process.stdin.write(b"go\n")
        for process in rivals:
            ended.append(json.loads(await _line(process)))
            assert await process.wait() == 0
        assert ended[0] == ended[1]
        assert len(ended[0]) == USERS
        async with aclosing(await open_sqlite_store(path)) as store:
            assert {mapping.user.subject: mapping.acs_user_id for mapping in await listed(store)} == ended[0]

    async def test_processes_that_start_together_on_a_new_file_all_open_it(self, path: Path) -> None:
        async with AsyncExitStack() as stack:
            stores = await asyncio.gather(*(open_sqlite_store(path, busy_timeout=60) for _ in range(8)))
            for store in stores:
                await stack.enter_async_context(aclosing(store))
            created = await stores[0].create(ALICE, acs_id("one"))
            assert [await store.get(ALICE) for store in stores] == [created] * 8

    async def test_opening_waits_for_a_process_that_is_just_making_the_file(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as maker:
            maker.execute("BEGIN IMMEDIATE")
            monkeypatch.setattr("storage.sqlite.sleep", lambda _: maker.execute("COMMIT"))
            async with aclosing(await open_sqlite_store(path, busy_timeout=60)) as store:
                assert await store.get(ALICE) is None

    async def test_opening_gives_up_in_time_on_a_process_that_goes_on_making_the_file(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as maker:
            maker.execute("BEGIN IMMEDIATE")
            times = iter((100.0, 102.0, 102.5))

            def end_just_too_late() -> float:
                if (now := next(times)) > 102:
                    maker.execute("COMMIT")
                return now

            monkeypatch.setattr("storage.sqlite.monotonic", end_just_too_late)
            with pytest.raises(StoreUnavailable):
                await open_sqlite_store(path, busy_timeout=2)
        monkeypatch.undo()
        await _open_and_close(path)

    async def test_a_create_goes_on_where_the_mapping_in_its_way_is_removed_before_it_can_be_read(
        self, sqlite_store: SqliteMappingStore, rival: sqlite3.Connection
    ) -> None:
        _let_creates_find_nothing_in_their_way(rival, times=2)
        created = await sqlite_store.create(ALICE, acs_id("one"))
        assert await listed(sqlite_store) == [created]

    async def test_a_create_that_never_finds_what_is_in_its_way_is_unavailable(
        self, sqlite_store: SqliteMappingStore, rival: sqlite3.Connection
    ) -> None:
        _let_creates_find_nothing_in_their_way(rival, times=1000)
        with pytest.raises(StoreUnavailable):
            await sqlite_store.create(ALICE, acs_id("one"))
        assert rival.execute("SELECT left_over FROM refusals").fetchall() == [(990,)]
        assert await listed(sqlite_store) == []

    async def test_a_process_killed_in_the_middle_of_writing_loses_no_answered_write(self, path: Path) -> None:
        process = await _start("fill", str(path))
        answered = {await _line(process) for _ in range(40)}
        process.kill()
        assert process.stdout is not None
        answered |= {line.decode().strip() for line in (await process.stdout.read()).splitlines(keepends=True)}
        await process.wait()
        async with aclosing(await open_sqlite_store(path)) as store:
            assert answered <= {mapping.user.subject for mapping in await listed(store)}
            created = await store.create(ALICE, acs_id("one"))
            assert await store.get(ALICE) == created
        with closing(sqlite3.connect(path)) as database:
            assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]

    async def test_a_write_while_another_process_writes_is_unavailable_and_did_nothing(
        self, sqlite_store: SqliteMappingStore, rival: sqlite3.Connection
    ) -> None:
        created = await sqlite_store.create(ALICE, acs_id("one"))
        rival.execute("BEGIN IMMEDIATE")
        for write in (
            sqlite_store.create(BOB, acs_id("two")),
            sqlite_store.change(created, deleting=True),
            sqlite_store.remove(created),
        ):
            with pytest.raises(StoreUnavailable):
                await write
        rival.execute("ROLLBACK")
        assert await listed(sqlite_store) == [created]
        await sqlite_store.create(BOB, acs_id("two"))

    async def test_reads_wait_neither_for_another_process_nor_for_a_write_of_their_own_store(
        self, patient_store: SqliteMappingStore, rival: sqlite3.Connection
    ) -> None:
        created = await patient_store.create(ALICE, acs_id("one"))
        rival.execute("BEGIN IMMEDIATE")
        write = asyncio.create_task(patient_store.create(BOB, acs_id("two")))
        async with asyncio.timeout(60):
            assert await patient_store.get(ALICE) == created
            assert await listed(patient_store) == [created]
            await patient_store.ping()
        assert not write.done()
        rival.execute("ROLLBACK")
        assert (await write).user == BOB

    async def test_a_cancelled_write_leaves_neither_a_transaction_nor_a_broken_connection(
        self, patient_store: SqliteMappingStore, rival: sqlite3.Connection
    ) -> None:
        rival.execute("BEGIN IMMEDIATE")
        write = asyncio.create_task(patient_store.create(ALICE, acs_id("one")))
        await patient_store.ping()  # By now the write waits for the rival.
        write.cancel()
        with pytest.raises(asyncio.CancelledError):
            await write
        rival.execute("ROLLBACK")
        await patient_store.create(BOB, acs_id("two"))
        rival.execute("BEGIN IMMEDIATE")
        rival.execute("ROLLBACK")

    async def test_a_write_cancelled_while_it_waits_its_turn_never_happens(
        self, patient_store: SqliteMappingStore, rival: sqlite3.Connection
    ) -> None:
        rival.execute("BEGIN IMMEDIATE")
        first = asyncio.create_task(patient_store.create(ALICE, acs_id("one")))
        second = asyncio.create_task(patient_store.create(BOB, acs_id("two")))
        await patient_store.ping()
        second.cancel()
        rival.execute("ROLLBACK")
        assert await listed_after(first, patient_store) == [await first]

    async def test_opening_a_file_that_another_process_keeps_locked_is_unavailable(
        self, path: Path, sqlite_store: SqliteMappingStore, rival: sqlite3.Connection
    ) -> None:
        rival.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreUnavailable):
            await _open_and_close(path)
        rival.execute("ROLLBACK")
        await _open_and_close(path)


FIRST_SCHEMA = """
CREATE TABLE mappings (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    issuer TEXT NOT NULL,
    subject TEXT NOT NULL,
    acs_user_id TEXT NOT NULL,
    created_at TEXT NOT NULL,
    deleting INTEGER NOT NULL DEFAULT 0,
    revision INTEGER NOT NULL DEFAULT 1,
    UNIQUE (issuer, subject)
)
"""


def make_first_version(path: Path) -> None:
    """A file of the first release with one mapping in it."""
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute(FIRST_SCHEMA)
        database.execute(f"PRAGMA application_id = {0x61637361}")
        database.execute("PRAGMA user_version = 1")
        database.execute(
            "INSERT INTO mappings (issuer, subject, acs_user_id, created_at, deleting, revision) VALUES (?,?,?,?,1,2)",
            (ALICE.issuer, ALICE.subject, acs_id("one"), "2026-01-02T12:00:00+00:00"),
        )


class TestEarlierReleases:
    async def test_a_file_of_the_first_release_goes_on_with_all_it_holds(self, path: Path) -> None:
        make_first_version(path)
        async with aclosing(await open_sqlite_store(path)) as store:
            found = await store.get(ALICE)
            assert found is not None
            assert (found.acs_user_id, found.deleting, found.signed_out_at) == (acs_id("one"), True, None)
            assert found.created_at == datetime(2026, 1, 2, 12, tzinfo=UTC)
            signed_out = await store.change(found, signed_out_at=contract.NOON)
        async with aclosing(await open_sqlite_store(path)) as store:
            assert await listed(store) == [signed_out]

    async def test_processes_that_open_it_together_change_it_once(self, path: Path) -> None:
        make_first_version(path)
        stores = await asyncio.gather(*(open_sqlite_store(path, busy_timeout=60) for _ in range(6)))
        assert len({tuple(await listed(store)) for store in stores}) == 1
        for store in stores:
            await store.aclose()

    async def test_a_process_of_the_first_release_can_go_on_writing_beside_it(self, path: Path) -> None:
        make_first_version(path)
        with closing(sqlite3.connect(path, isolation_level=None)) as earlier:
            async with aclosing(await open_sqlite_store(path)) as store:
                earlier.execute(
                    "INSERT INTO mappings (issuer, subject, acs_user_id, created_at) VALUES (?, ?, ?, ?)",
                    (BOB.issuer, BOB.subject, acs_id("two"), "2026-01-02T12:00:00+00:00"),
                )
                found = await store.get(BOB)
                assert found is not None
                assert found.signed_out_at is None


class TestDamagedRows:
    async def insert(self, rival: sqlite3.Connection, **changes: object) -> None:
        row = {
            "issuer": ALICE.issuer,
            "subject": ALICE.subject,
            "acs_user_id": acs_id("one"),
            "created_at": "2026-01-02T12:00:00+00:00",
            "deleting": 0,
            "revision": 1,
            "signed_out_at": None,
        } | changes
        names = ", ".join(row)
        rival.execute(f"INSERT INTO mappings ({names}) VALUES ({', '.join('?' * len(row))})", tuple(row.values()))

    @pytest.mark.parametrize("time", [*list(contract.UNKNOWN_TIMES.values())[1:], b"\xff", 5], ids=repr)
    async def test_a_time_that_is_none_is_an_unknown_creation(
        self, sqlite_store: SqliteMappingStore, rival: sqlite3.Connection, time: object
    ) -> None:
        await self.insert(rival, created_at=time)
        found = await sqlite_store.get(ALICE)
        assert found is not None
        assert found.created_at == UNKNOWN_CREATION

    @pytest.mark.parametrize(
        "changes",
        [
            *[{"acs_user_id": value} for value in contract.NO_ACS_USER_IDS.values() if isinstance(value, str | int)],
            {"acs_user_id": "8:acs:one"},
            *[{"deleting": value} for value in ("false", "true", "", 2, -1, 0.5, b"\x00")],
            *[{"signed_out_at": value} for value in contract.NO_SIGN_OUTS.values()],
            *[{"revision": value} for value in ("one", 1.5, -1, b"one", "1; DROP")],
        ],
        ids=repr,
    )
    async def test_a_value_that_is_not_of_its_form_is_no_mapping_and_no_absence(
        self, sqlite_store: SqliteMappingStore, rival: sqlite3.Connection, changes: dict[str, object]
    ) -> None:
        await self.insert(rival, **changes)
        bob = await sqlite_store.create(BOB, acs_id("two"))
        with pytest.raises(MappingUnreadable) as error:
            await sqlite_store.get(ALICE)
        with pytest.raises(MappingUnreadable):
            await sqlite_store.create(ALICE, acs_id("two"))
        unreadable = error.value.unreadable
        assert (unreadable.user, unreadable.reason, unreadable.users_may_write) == (ALICE, Unreadable.DAMAGED, False)
        assert unreadable.acs_user_id == (None if "acs_user_id" in changes else acs_id("one"))
        assert [stored async for stored in sqlite_store.mappings()] == [unreadable, bob]
        await sqlite_store.remove(unreadable)
        assert await sqlite_store.get(ALICE) is None
        await sqlite_store.remove(unreadable)

    @pytest.mark.parametrize("raw", [b"8:acs:\xff", b"\xff\xfe"])
    async def test_text_that_is_no_utf_8_stops_no_listing(
        self, sqlite_store: SqliteMappingStore, rival: sqlite3.Connection, raw: bytes
    ) -> None:
        bob = await sqlite_store.create(BOB, acs_id("two"))
        await self.insert(rival)
        rival.execute("UPDATE mappings SET acs_user_id = CAST(? AS TEXT) WHERE subject = ?", (raw, ALICE.subject))
        (unreadable,) = await contract.unreadable_in(sqlite_store)
        assert [stored async for stored in sqlite_store.mappings()] == [bob, unreadable]

    async def test_a_row_of_nobody_is_listed_and_can_be_removed(
        self, sqlite_store: SqliteMappingStore, rival: sqlite3.Connection
    ) -> None:
        await self.insert(rival, subject=b"\x00\x01")
        (unreadable,) = await contract.unreadable_in(sqlite_store)
        assert (unreadable.user, unreadable.key) == (None, "row 1")
        await sqlite_store.remove(unreadable)
        assert await contract.unreadable_in(sqlite_store) == []

    async def test_a_row_of_nobody_that_was_changed_since_it_was_read_is_not_removed(
        self, sqlite_store: SqliteMappingStore, rival: sqlite3.Connection
    ) -> None:
        await self.insert(rival, subject=b"\x00\x01")
        (unreadable,) = await contract.unreadable_in(sqlite_store)
        rival.execute("UPDATE mappings SET revision = 2")
        with pytest.raises(MappingChanged):
            await sqlite_store.remove(unreadable)
        (changed,) = await contract.unreadable_in(sqlite_store)
        await sqlite_store.remove(changed)
        await sqlite_store.remove(changed)
        assert await contract.unreadable_in(sqlite_store) == []

    async def test_one_that_was_changed_since_it_was_read_is_not_removed(
        self, sqlite_store: SqliteMappingStore, rival: sqlite3.Connection
    ) -> None:
        await self.insert(rival, deleting="false")
        (unreadable,) = await contract.unreadable_in(sqlite_store)
        rival.execute("UPDATE mappings SET deleting = 0, revision = 2")
        with pytest.raises(MappingChanged):
            await sqlite_store.remove(unreadable)
        assert await sqlite_store.get(ALICE) is not None


class TestUnusableFiles:
    async def test_a_missing_directory_is_named(self, tmp_path: Path) -> None:
        await _refused(tmp_path / "missing" / "mappings.sqlite", "Create its directory")

    async def test_a_directory_in_its_place_is_refused(self, tmp_path: Path) -> None:
        await _refused(tmp_path, "not a plain file")

    @pytest.mark.parametrize("kind", ["a pipe", "a device", "a link to a device", "a socket"])
    async def test_what_is_no_plain_file_is_refused_and_not_opened(self, path: Path, kind: str) -> None:
        with closing(socket.socket(socket.AF_UNIX)) as listening:
            match kind:
                case "a pipe":
                    os.mkfifo(path)
                case "a device":
                    path = Path("/dev/null")
                case "a link to a device":
                    path.symlink_to("/dev/null")
                case _:
                    listening.bind(str(path))
            await _refused(path, "not a plain file")

    async def test_a_file_that_may_only_be_read_is_refused_though_its_directory_may_be_written(self) -> None:
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "mappings.sqlite"
            await _open_and_close(path)
            _let_anybody_write(path.parent)
            path.chmod(0o444)
            process = await _start("open", str(path))
            message = await _line(process)
            assert await process.wait() == 0
        assert message == (
            f"The SQLite file {path} can't be used. Let this process write to the file and its directory."
        )

    @pytest.mark.parametrize("size", ["160k", "164k", "168k"])
    async def test_a_disk_that_is_full_at_the_start_is_refused(self, size: str) -> None:
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "mappings.sqlite"
            said = await _in_a_file_system(directory, f"size={size}", f"$OPEN full {path}")
        assert said == f"The SQLite file {path} can't be used. The disk is full: free some space.\n"

    async def test_a_file_system_that_may_only_be_read_is_refused(self) -> None:
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "mappings.sqlite"
            open_twice = f"$OPEN plainly {path} && mount -o remount,ro x {directory} && $OPEN plainly {path}"
            said = await _in_a_file_system(directory, "size=1m", open_twice)
        assert said.startswith(f"The SQLite file {path} can't be used.")
        assert "let this process write" in said.lower()
        assert said.count("\n") == 1

    @pytest.mark.parametrize("exists", [False, True], ids=["new file", "existing file"])
    async def test_a_directory_or_file_without_write_permission_is_refused(self, exists: bool) -> None:
        # Not `tmp_path`: its parents are closed to the user that the child process becomes.
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "mappings.sqlite"
            if exists:
                await _open_and_close(path)
            with _write_protected(path):
                process = await _start("open", str(path))
                message = await _line(process)
                assert await process.wait() == 0
        assert message.startswith(f"The SQLite file {path} can't be used.")
        assert "let this process write" in message.lower()

    async def test_a_file_that_is_no_database_is_refused_and_kept(self, path: Path) -> None:
        minutes = b"Minutes of the meeting. " * 100
        _rewrite(path, lambda _: minutes)
        await _refused(path, "not an SQLite database")
        assert _rewrite(path, lambda content: content) == minutes

    async def test_another_applications_database_is_refused_and_kept(self, path: Path) -> None:
        with closing(sqlite3.connect(path)) as database:
            database.execute("CREATE TABLE invoices (id)")
        await _refused(path, "another application's database")
        with closing(sqlite3.connect(path)) as database:
            assert database.execute("SELECT name FROM sqlite_master").fetchall() == [("invoices",)]

    @pytest.mark.parametrize("trouble", ["the file is removed", "its table is dropped"])
    async def test_a_file_that_changes_while_it_is_opened_is_refused_and_no_connection_stays_open(
        self, path: Path, rival: sqlite3.Connection, trouble: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        connect, opened = aiosqlite.connect, list[aiosqlite.Connection]()

        def connect_after_trouble(*arguments: Any, **keywords: Any) -> aiosqlite.Connection:
            if opened and trouble == "the file is removed":
                _remove(path)
            elif opened:
                rival.execute("DROP TABLE mappings")
            opened.append(connect(*arguments, **keywords))
            return opened[-1]

        monkeypatch.setattr("aiosqlite.connect", connect_after_trouble)
        with pytest.raises(StoreMisconfigured, match=re.escape(str(path))):
            await open_sqlite_store(path, busy_timeout=0)
        still_open = []
        for connection in opened:
            with suppress(ValueError):
                still_open.append(await connection.execute("SELECT 1"))
            await connection.close()
        assert (len(opened), still_open) == (2, [])

    async def test_a_file_of_a_newer_release_is_refused(self, path: Path) -> None:
        await _open_and_close(path)
        with closing(sqlite3.connect(path)) as database:
            database.execute("PRAGMA user_version = 3")
        await _refused(path, "A newer release wrote it")

    async def test_a_damaged_file_is_an_error_and_never_looks_empty(self, path: Path) -> None:
        async with aclosing(await open_sqlite_store(path)) as store:
            for n in range(5):
                await store.create(UserKey("tenant", f"user-{n}"), acs_id(f"{n}"))
        _rewrite(path, lambda content: content[:4096] + b"\xff" * (len(content) - 4096))
        await _refused(path, "It is damaged: restore it from a backup.")

    async def test_damage_that_comes_while_it_is_used_is_an_error_and_never_looks_empty(
        self, path: Path, sqlite_store: SqliteMappingStore
    ) -> None:
        await sqlite_store.create(ALICE, acs_id("one"))
        await sqlite_store._writer.execute_fetchall("PRAGMA wal_checkpoint(TRUNCATE)")
        _rewrite(path, lambda content: content[:4096] + b"\xff" * (len(content) - 4096))
        with pytest.raises(StoreMisconfigured, match="restore it from a backup"):
            await sqlite_store.get(BOB)
        with pytest.raises(StoreMisconfigured, match="restore it from a backup"):
            await listed(sqlite_store)

    async def test_a_wal_of_another_file_is_refused_and_the_file_left_alone(self, path: Path) -> None:
        backup = await _killed_after_a_backup(path, before=40, after=500)
        _rewrite(path, lambda _: backup)
        await _refused(path, f"{path}-wal belongs to an earlier file in its place: remove the -wal and -shm files")
        assert _rewrite(path, lambda content: content) == backup
        for suffix in ("-wal", "-shm"):
            _remove(path, suffix)
        async with aclosing(await open_sqlite_store(path)) as store:
            assert len(await listed(store)) == 40

    async def test_the_documented_commands_back_up_and_restore(self, path: Path, tmp_path: Path) -> None:
        if shutil.which("sqlite3") is None:
            pytest.skip("sqlite3 is not installed")
        section = _text(_PROJECT / "docs" / "backup.md").partition("## SQLite")[2].partition("\n## ")[0]
        back_up, restore = re.findall(r"^```sh\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
        async with aclosing(await open_sqlite_store(path)) as store:
            await store.create(ALICE, acs_id("one"))
            await _shell(back_up, tmp_path)
            await store.create(BOB, acs_id("two"))
        await _killed_after_a_backup(path, before=0, after=500)
        await _shell(restore, tmp_path)
        async with aclosing(await open_sqlite_store(path)) as store:
            assert [mapping.user async for mapping in store.mappings()] == [ALICE]
            assert store.warnings == ()

    async def test_a_wal_that_is_older_than_its_file_is_told(self, path: Path) -> None:
        backup = await _killed_after_a_backup(path, before=40, after=10)
        _rewrite(path, lambda _: backup)
        _age(path, "-wal", seconds=60)
        async with aclosing(await open_sqlite_store(path)) as store:
            (told,) = store.warnings
            assert f"was changed after {path}-wal" in told

    async def test_a_kill_leaves_nothing_to_tell(self, path: Path) -> None:
        await _killed_after_a_backup(path, before=40, after=10)
        async with aclosing(await open_sqlite_store(path)) as store:
            assert store.warnings == ()
            assert len(await listed(store)) == 50

    @pytest.mark.parametrize("kind", ["missing", "empty"])
    async def test_a_wal_without_its_file_is_refused_and_kept(self, path: Path, kind: str) -> None:
        await _killed_after_a_backup(path, before=40, after=10)
        if kind == "missing":
            _remove(path)
        else:
            _rewrite(path, lambda _: b"")
        await _refused(path, f"It is missing or empty, though {path}-wal holds a part of it")
        assert _rewrite(_beside(path, "-wal"), lambda content: content)

    @pytest.mark.parametrize("suffix", ["", "-wal"])
    @pytest.mark.parametrize("kind", ["removed", "replaced"])
    async def test_a_file_that_is_removed_or_replaced_while_it_is_used_is_told_by_every_call(
        self, path: Path, sqlite_store: SqliteMappingStore, suffix: str, kind: str
    ) -> None:
        await sqlite_store.create(ALICE, acs_id("one"))
        await sqlite_store.ping()
        content = _rewrite(_beside(path, suffix), lambda content: content)
        _remove(path, suffix)
        if kind == "replaced":
            held = _beside(path, ".held")
            held.write_bytes(content)  # so that the new file gets another inode
            _rewrite(_beside(path, suffix), lambda _: content)
        for call in (sqlite_store.ping(), sqlite_store.get(ALICE), sqlite_store.create(BOB, acs_id("two"))):
            with pytest.raises(WritesRefused, match=f"{path}{suffix} was removed or replaced while it was in use"):
                await call

    @pytest.mark.parametrize(("platform", "told"), [("linux", True), ("win32", False)])
    async def test_a_file_that_others_may_use_is_told_where_its_mode_says_so(
        self, path: Path, platform: str, told: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await _open_and_close(path)
        _let_anybody_write(path.parent)
        with monkeypatch.context() as elsewhere:
            elsewhere.setattr(sys, "platform", platform)
            store = await open_sqlite_store(path)
        await store.aclose()
        assert [f"Run chmod 600 {path}." in warning for warning in store.warnings] == [True] * told

    async def test_a_full_disk_is_named(self, sqlite_store: SqliteMappingStore) -> None:
        await sqlite_store._writer.execute_fetchall("PRAGMA max_page_count = 1")
        with pytest.raises(StorageFull, match="disk is full"):
            await sqlite_store.create(UserKey("tenant", "long " * 10_000), acs_id("one"))
        assert await sqlite_store.get(ALICE) is None

    async def test_a_vanished_table_is_an_error_and_never_looks_empty(
        self, sqlite_store: SqliteMappingStore, rival: sqlite3.Connection
    ) -> None:
        rival.execute("DROP TABLE mappings")
        for call in (sqlite_store.get(ALICE), sqlite_store.create(ALICE, acs_id("one")), sqlite_store.ping()):
            with pytest.raises(StoreError):
                await call

    async def test_messages_hold_no_user(self, sqlite_store: SqliteMappingStore, rival: sqlite3.Connection) -> None:
        rival.execute("DROP TABLE mappings")
        with pytest.raises(StoreError) as refusal:
            await sqlite_store.create(ALICE, acs_id("one"))
        assert "alice" not in str(refusal.value)
        assert "8:acs" not in str(refusal.value)


def _let_creates_find_nothing_in_their_way(database: sqlite3.Connection, *, times: int) -> None:
    """So often an insertion does nothing, as if it met a mapping that is removed before it can be read."""
    database.execute("CREATE TABLE refusals AS SELECT ? AS left_over", (times,))
    database.execute(
        "CREATE TRIGGER refuse BEFORE INSERT ON mappings WHEN (SELECT left_over FROM refusals) > 0"
        " BEGIN UPDATE refusals SET left_over = left_over - 1; SELECT RAISE(IGNORE); END"
    )


async def listed_after(write: asyncio.Task[IdentityMapping], store: MappingStore) -> list[IdentityMapping]:
    """What the store holds once `write` and all that waited behind it is done."""
    await write
    probe = await store.create(UserKey("tenant", "probe"), acs_id("probe"))
    await store.remove(probe)
    return await listed(store)


async def _open_and_close(path: Path) -> None:
    async with aclosing(await open_sqlite_store(path, busy_timeout=0)):
        pass


async def _refused(path: Path, remedy: str) -> None:
    with pytest.raises(StoreMisconfigured) as refusal:
        await _open_and_close(path)
    assert str(path) in str(refusal.value)
    assert remedy in str(refusal.value)


@contextmanager
def _write_protected(path: Path) -> Iterator[None]:
    if path.exists():
        path.chmod(0o444)
    path.parent.chmod(0o555)
    yield
    path.parent.chmod(0o755)


async def _in_a_file_system(directory: str, options: str, commands: str) -> str:
    """What `commands` print while `directory` is a file system of its own, which no other process sees."""
    if shutil.which("unshare") is None:
        pytest.skip("needs a small file system of its own")
    opening = f"OPEN='{sys.executable} -m tests.support.sqlite_process'"
    process = await asyncio.create_subprocess_exec(
        *("unshare", "--user", "--map-root-user", "--mount"),
        *("sh", "-c", f"mount -t tmpfs -o {options} x {directory} && {opening} && {commands}"),
        cwd=_PROJECT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    said, complaint = await process.communicate()
    if b"unshare:" in complaint or b"mount:" in complaint:
        pytest.skip("namespaces are not allowed here")
    return said.decode()


async def _killed_after_a_backup(path: Path, *, before: int, after: int) -> bytes:
    """What a backup holds that was made after so many mappings; after more of them the process is killed."""
    process = await _start("back-up", str(path), str(before), str(after))
    assert await _line(process) == "ready"
    process.kill()
    await process.wait()
    return _rewrite(_beside(path, ".backup"), lambda content: content)


async def _shell(commands: str, directory: Path) -> None:
    process = await asyncio.create_subprocess_exec("sh", "-e", "-c", commands, cwd=directory)
    assert await process.wait() == 0


def _text(path: Path) -> str:
    return path.read_text()


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _remove(path: Path, suffix: str = "") -> None:
    _beside(path, suffix).unlink(missing_ok=True)


def _age(path: Path, suffix: str, *, seconds: float) -> None:
    found = _beside(path, suffix)
    times = found.stat()
    os.utime(found, (times.st_atime - seconds, times.st_mtime - seconds))


def _let_anybody_write(directory: Path) -> None:
    directory.chmod(0o777)
    for file in directory.iterdir():
        file.chmod(0o666)


def _rewrite(path: Path, change: Callable[[bytes], bytes]) -> bytes:
    content = change(path.read_bytes() if path.exists() else b"")
    path.write_bytes(content)
    return content


async def _start(*arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.support.sqlite_process",
        *arguments,
        cwd=_PROJECT,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )


async def _line(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    return (await process.stdout.readline()).decode().strip()
