"""From settings to a store: the right back end, in the right order of decorators, and nothing else imported."""

import subprocess
import sys
from contextlib import aclosing
from pathlib import Path

import pytest

from storage.deadline import DeadlineStore
from storage.factory import SqliteSettings, open_store
from storage.mapping import StoreMisconfigured
from storage.retrying import RetryingStore, RetryPolicy
from storage.sqlite import SqliteMappingStore
from tests.storage.contract import ALICE


async def test_sqlite_settings_open_that_file(tmp_path: Path) -> None:
    path = tmp_path / "mappings.sqlite"
    async with aclosing(await open_store(SqliteSettings(path))) as store:
        created = await store.create(ALICE, "8:acs:one")
    async with aclosing(await open_store(SqliteSettings(path))) as store:
        assert await store.get(ALICE) == created


async def test_the_deadline_is_around_the_retries_around_the_store(tmp_path: Path) -> None:
    policy = RetryPolicy(attempts=2)
    async with aclosing(await open_store(SqliteSettings(tmp_path / "mappings.sqlite"), policy)) as store:
        assert isinstance(store, DeadlineStore)
        retrying = store._store
        assert isinstance(retrying, RetryingStore)
        assert retrying._policy is policy
        assert isinstance(retrying._store, SqliteMappingStore)


async def test_a_file_that_can_not_be_used_is_reported_at_once(tmp_path: Path) -> None:
    with pytest.raises(StoreMisconfigured, match="missing"):
        await open_store(SqliteSettings(tmp_path / "missing" / "mappings.sqlite"))


def test_a_back_end_is_imported_only_when_chosen(tmp_path: Path) -> None:
    script = """
import asyncio, pathlib, sys
from storage.factory import SqliteSettings, open_store
print("aiosqlite" in sys.modules)
async def main():
    await (await open_store(SqliteSettings(pathlib.Path(sys.argv[1])))).aclose()
asyncio.run(main())
print("aiosqlite" in sys.modules)
"""
    project = Path(__file__).parents[2]
    command = [sys.executable, "-c", script, str(tmp_path / "mappings.sqlite")]
    printed = subprocess.run(command, cwd=project, capture_output=True, text=True, check=True, timeout=60).stdout
    assert printed.split() == ["False", "True"]
