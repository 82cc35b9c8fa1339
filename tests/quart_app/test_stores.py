"""Only what the chosen store needs is imported: a start loads what it uses."""

from pathlib import Path

import pytest

from local_azure.environment import LocalAzure
from quart_app.settings import StorageBackend, load_settings
from quart_app.stores import open_mapping_store
from storage.mapping import StoreMisconfigured, UserKey
from tests.support.running_cosmos import running_cosmos, running_read_region
from tests.support.service_process import environment_for, finished, python
from upstream.retrying import RetryPolicy

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


async def test_mappings_are_read_in_the_preferred_region(
    local_azure: LocalAzure, state_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_cosmos(state_directory) as account, running_read_region(account, state_directory) as near:
        given = environment_for(local_azure, tmp_path, "cosmos") | account.service_environment()
        for name, value in given.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("COSMOS_PREFERRED_REGIONS", "northeurope")
        async with open_mapping_store(load_settings(None), RetryPolicy()) as store:
            assert await store.get(UserKey("tenant", "user")) is None
        assert (near.counts["read_item"], account.counts["read_item"]) == (1, 0)


async def test_a_store_that_needs_the_managed_identity_opens_it_itself_where_none_is_given(
    local_azure: LocalAzure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in local_azure.service_environment(secrets=False).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("STORAGE_BACKEND", "cosmos")
    async with open_mapping_store(load_settings(None), RetryPolicy()) as store:
        assert await store.get(UserKey("tenant", "user")) is None
    assert local_azure.entra.faults.counts["managed_identity_token"] == 1


async def test_without_the_key_that_seals_no_mapping_is_reached_at_graph(
    local_azure: LocalAzure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = environment_for(local_azure, tmp_path, "sqlite")
    given.pop("GRAPH_SEAL_KEYS", None)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(StoreMisconfigured, match="GRAPH_SEAL_KEYS"):
        async with open_mapping_store(load_settings(None), RetryPolicy(), backend=StorageBackend.GRAPH):
            pytest.fail("It was opened.")
    assert not local_azure.graph.faults.counts
