"""Only what the chosen store needs is imported: a start loads what it uses."""

from pathlib import Path

import pytest

from local_azure.environment import LocalAzure
from tests.support.service_process import environment_for, finished, python

REPORT = """
import asyncio, sys
from quart_app.app import create_app
from quart_app.settings import load_settings

async def main():
    async with create_app(load_settings(None)):
        print(*(name for name in ("aiosqlite", "azure.cosmos", "azure.identity", "msal", "storage.graph")
                if name in sys.modules))

asyncio.run(main())
"""

NEEDED = {"sqlite": {"aiosqlite"}, "cosmos": {"azure.cosmos"}, "graph": {"msal", "storage.graph"}}


@pytest.mark.parametrize("storage", NEEDED)
async def test_the_service_imports_nothing_of_the_stores_that_are_not_chosen(
    storage: str, local_azure: LocalAzure, tmp_path: Path
) -> None:
    status, out, _ = await finished(await python(environment_for(local_azure, tmp_path, storage), "-c", REPORT))
    assert status == 0
    assert set(out.split()) == NEEDED[storage]
