"""The example store of the documents fulfils the contract: on SQLite always, on PostgreSQL where there is one.

Both understand the statements. SQLite has no server, so `make test` needs none. For PostgreSQL itself install asyncpg
and name a database for tests in POSTGRES_TEST_URL; the table is emptied.
"""

import asyncio
import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from storage.mapping import MappingStore, MappingUnreadable, Unreadable
from tests.support import store_contract as contract
from tests.support.acs_ids import acs_id
from tests.support.postgresql_store import SCHEMA, PostgresMappingStore
from tests.support.store_contract import ALICE, OpenStore

ROOT = Path(__file__).parents[2]
POSTGRES = os.environ.get("POSTGRES_TEST_URL")


class SqliteInPlaceOfPostgres:
    """Fulfils the example's `Database`: the same statements, with SQLite's way of numbering arguments."""

    def __init__(self) -> None:
        self.connection = sqlite3.connect(":memory:", isolation_level=None, detect_types=sqlite3.PARSE_DECLTYPES)
        self.connection.row_factory = sqlite3.Row
        self.connection.execute(SCHEMA)

    async def fetch(self, statement: str, *arguments: object) -> Sequence[Mapping[str, Any]]:
        await asyncio.sleep(0)  # others have their turn, as while a server answers
        numbered = {str(number): value for number, value in enumerate(arguments, start=1)}
        rows = [dict(row) for row in self.connection.execute(statement, numbered)]
        return [{**row, "deleting": bool(row["deleting"])} if "deleting" in row else row for row in rows]

    async def aclose(self) -> None:
        self.connection.close()


@pytest.fixture(params=["sqlite", *(["postgresql"] if POSTGRES else [])])
def open_back_end(request: pytest.FixtureRequest) -> OpenStore:
    async def open_new() -> MappingStore:
        if request.param == "sqlite":
            return PostgresMappingStore(SqliteInPlaceOfPostgres())
        from tests.support.postgresql_driver import AsyncpgDatabase, open_postgres_store

        store = await open_postgres_store(str(POSTGRES), create_if_missing=True)
        database = store._database
        assert isinstance(database, AsyncpgDatabase)
        await database.fetch("DELETE FROM identity_mappings")
        return store

    return open_new


@pytest.fixture(params=["bare"])
def wrapper() -> str:
    """Only bare: the guard around the stores has its own tests."""
    return "bare"


class TestPlainUse(contract.PlainUse): ...


class TestConcurrency(contract.Concurrency): ...


class TestFaults(contract.FaultsAroundTheStore): ...


class TestStateMachine(contract.StateMachine): ...


async def test_a_damaged_row_is_unreadable_and_never_no_mapping() -> None:
    database = SqliteInPlaceOfPostgres()
    store = PostgresMappingStore(database)
    await store.create(ALICE, acs_id("one"))
    await database.fetch("UPDATE identity_mappings SET acs_user_id = $1", "8:orgid:someone")
    with pytest.raises(MappingUnreadable) as refused:
        await store.get(ALICE)
    assert refused.value.unreadable.reason is Unreadable.DAMAGED
    await store.remove(refused.value.unreadable)
    assert await store.get(ALICE) is None
    await store.aclose()


def shown() -> Iterator[tuple[str, str]]:
    """The example's files, and what the page shows under their names."""
    page = (ROOT / "docs/stores/add-your-own.md").read_text()
    for name in ("tests/support/postgresql_store.py", "tests/support/postgresql_driver.py"):
        _, _, after = page.partition(f"`{name}`:\n\n```python\n")
        yield (ROOT / name).read_text(), after.partition("```\n")[0]


def test_the_page_shows_the_files_that_are_tested() -> None:
    assert [file for file, block in shown() if file != block] == [], "copy the file into docs/stores/add-your-own.md"
