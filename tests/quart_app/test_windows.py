"""The service and its commands without what Windows lacks: uvloop, handlers of signals in the loop, calls of POSIX."""

import asyncio
import json
import signal
import sys
from pathlib import Path

import aiohttp
import pytest
import uvloop

from local_azure.environment import LocalAzure
from local_azure.faults import Fault
from quart_app.serving.event_loop import event_loop_factory
from storage.mapping import UserKey
from storage.sqlite import open_sqlite_store
from tests.support.acs_ids import acs_id
from tests.support.like_windows import like_windows
from tests.support.service_process import environment_for, finished, python, serving, stopped


@pytest.fixture
def environment(local_azure: LocalAzure, tmp_path: Path) -> dict[str, str]:
    return environment_for(local_azure, tmp_path)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
async def test_the_service_serves_and_a_signal_lets_a_mint_finish(
    name: str, environment: dict[str, str], local_azure: LocalAzure
) -> None:
    may_answer = asyncio.Event()
    local_azure.acs.faults.script("create_identity", Fault(until=may_answer))
    headers = {"Authorization": f"Bearer {local_azure.entra.access_token('alex')}"}
    served = (*like_windows("acs-auth"), "serve")
    async with serving(environment, served) as service, aiohttp.ClientSession(service.url) as session:
        posting = asyncio.create_task(session.post("/api/user", headers=headers))
        await local_azure.acs.faults.arrived("create_identity")
        service.process.send_signal(signal.Signals[name])
        may_answer.set()
        assert (await posting).status == 201
        status, log = await stopped(service)
    assert status == 0
    assert "Traceback" not in log


async def test_an_export_of_every_mapping_is_written(environment: dict[str, str], tmp_path: Path) -> None:
    store = await open_sqlite_store(Path(environment["SQLITE_PATH"]))
    await store.create(UserKey("tenant", "object"), acs_id("one"))
    await store.aclose()
    file = tmp_path / "mappings.jsonl"
    exporting = await python(environment, *like_windows("acs-auth"), "export", "--all", "--output", str(file))
    status, _, errors = await finished(exporting)
    assert status == 0, errors
    assert [json.loads(line)["subject"] for line in file.read_text().splitlines()] == ["object"]


async def test_settings_are_checked(environment: dict[str, str]) -> None:
    status, out, _ = await finished(await python(environment, *like_windows("acs-auth"), "check-config"))
    assert status == 0
    assert f"PORT={environment['PORT']}" in out


def test_the_loop_is_uvloop_where_it_exists_else_asyncios_own(monkeypatch: pytest.MonkeyPatch) -> None:
    made = event_loop_factory()
    assert isinstance(made, type)
    assert issubclass(made, uvloop.Loop)
    monkeypatch.setitem(sys.modules, "uvloop", None)
    assert event_loop_factory() is asyncio.new_event_loop
