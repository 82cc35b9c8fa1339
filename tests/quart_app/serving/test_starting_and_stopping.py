"""How a service starts while what it needs is not there yet, and how it stops, mostly by real processes and signals."""

import asyncio
import gc
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from quart import Quart

from local_azure.environment import LocalAzure
from local_azure.faults import Fault
from local_azure.service_process import ServiceProcess
from quart_app.serving.starting import Front, opened
from quart_app.serving.stopping import Stopping
from storage.mapping import StoreUnavailable
from tests.support.service_process import BRIEFLY_STARTED, PATIENCE_SECONDS, environment_for, serving, stopped


@pytest.fixture
def environment(local_azure: LocalAzure, tmp_path: Path) -> dict[str, str]:
    return environment_for(local_azure, tmp_path)


@pytest.fixture
def delayed(environment: dict[str, str]) -> dict[str, str]:
    return environment | {"SHUTDOWN_DELAY_SECONDS": "10"}


async def answer(session: aiohttp.ClientSession, path: str) -> tuple[int, str | None]:
    """The status on a new connection, and what is said of that connection."""
    async with session.get(path) as answered:
        await answered.read()
        return answered.status, answered.headers.get("Connection")


def new_connections(url: str) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(url, connector=aiohttp.TCPConnector(force_close=True))


async def until_answered(session: aiohttp.ClientSession, path: str, status: int) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            try:
                if (await answer(session, path))[0] == status:
                    return
            except aiohttp.ClientConnectionError:
                await asyncio.sleep(0.02)


async def test_for_the_delay_new_connections_are_served_and_told_to_end(
    delayed: dict[str, str], local_azure: LocalAzure
) -> None:
    headers = {"Authorization": f"Bearer {local_azure.entra.access_token('alex')}"}
    async with serving(delayed) as service, new_connections(service.url) as session:
        await until_answered(session, "/health/ready", 200)
        service.process.send_signal(signal.SIGTERM)
        await until_answered(session, "/health/ready", 503)
        assert await answer(session, "/health/live") == (200, "close")
        async with session.post("/api/user", headers=headers) as posted:
            assert (posted.status, posted.headers["Connection"]) == (201, "close")
        async with session.get("/nowhere") as refused:
            assert (refused.status, refused.headers["Connection"]) == (404, "close")
        service.process.send_signal(signal.SIGTERM)
        await stopped(service)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT"])
async def test_every_signal_to_stop_lets_a_mint_finish(
    name: str, environment: dict[str, str], local_azure: LocalAzure
) -> None:
    may_answer = asyncio.Event()
    local_azure.acs.faults.script("create_identity", Fault(until=may_answer))
    headers = {"Authorization": f"Bearer {local_azure.entra.access_token('alex')}"}
    async with serving(environment) as service, aiohttp.ClientSession(service.url) as session:
        posting = asyncio.create_task(session.post("/api/user", headers=headers))
        await local_azure.acs.faults.arrived("create_identity")
        service.process.send_signal(signal.Signals[name])
        may_answer.set()
        assert (await posting).status == 201
        status, log = await stopped(service)
    assert status == 0
    assert "Traceback" not in log
    assert len(local_azure.acs.live_identities()) == 1


async def test_a_second_signal_cuts(delayed: dict[str, str]) -> None:
    async with serving(delayed) as service, new_connections(service.url) as session:
        service.process.send_signal(signal.SIGTERM)
        await until_answered(session, "/health/ready", 503)
        service.process.send_signal(signal.SIGTERM)
        status, log = await stopped(service)
    assert status == 128 + signal.SIGTERM
    assert "a second signal" in log


@pytest.fixture
def cosmos(environment: dict[str, str]) -> dict[str, str]:
    return environment | {"STORAGE_BACKEND": "cosmos", "AZURE_COSMOS_HEALTH_CHECK_MAX_RETRIES": "0"}


async def test_a_start_in_passing_trouble_is_repeated_and_says_so(
    cosmos: dict[str, str], local_azure: LocalAzure, tmp_path: Path
) -> None:
    local_azure.cosmos.faults.script("get_container", Fault(status=503, times=None))
    async with (
        ServiceProcess(cosmos, tmp_path, tmp_path / "log") as service,
        new_connections(service.url) as session,
    ):
        await until_answered(session, "/health/startup", 503)
        assert (await answer(session, "/health/live"))[0] == 200
        assert (await answer(session, "/health/ready"))[0] == 503
        async with session.post("/api/user") as posted:
            assert posted.status == 503
            assert "Retry-After" in posted.headers
            assert (await posted.json())["error"] == "service_unavailable"
        local_azure.cosmos.faults.clear()
        await service.ready()
        assert (await answer(session, "/api/user"))[0] == 401
    assert "not started yet" in service.log.read_text()
    assert service.process.returncode == 0


async def test_a_start_ends_with_one_sentence_when_its_bound_is_over(
    cosmos: dict[str, str], local_azure: LocalAzure, tmp_path: Path
) -> None:
    local_azure.cosmos.faults.script("get_container", Fault(status=503, times=None))
    async with ServiceProcess(cosmos, tmp_path, tmp_path / "log", BRIEFLY_STARTED) as service:
        status, log = await stopped(service)
    assert status == 1
    assert "The mapping store can't be used" in log
    assert "Traceback" not in log


@pytest.mark.parametrize("fault", [Fault(status=503, times=None), Fault(hang=True, times=None)])
async def test_a_signal_during_the_start_ends_it_within_a_second(
    fault: Fault, cosmos: dict[str, str], local_azure: LocalAzure, tmp_path: Path
) -> None:
    local_azure.cosmos.faults.script("get_container", fault)
    async with ServiceProcess(cosmos, tmp_path, tmp_path / "log") as service:
        await local_azure.cosmos.faults.arrived("get_container")
        service.process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        status, log = await stopped(service)
        took = time.monotonic() - began
    assert status == 0
    assert "Traceback" not in log
    assert took < 30  # a second, on a machine that does nothing else; a start is tried for 60 s


async def test_a_signal_between_two_tries_ends_the_start() -> None:
    tries = 0
    stopping = Stopping(PATIENCE_SECONDS)

    @asynccontextmanager
    async def in_trouble() -> AsyncIterator[Quart]:
        nonlocal tries
        tries += 1
        raise StoreUnavailable
        yield

    async with AsyncExitStack() as stack:
        app = await opened(in_trouble, stack, stopping, stopping.signalled.set, seconds=PATIENCE_SECONDS)
    assert app is None
    assert tries == 1
    await asyncio.sleep(0)  # what was cancelled ends
    assert "wait before the next try" not in {task.get_name() for task in asyncio.all_tasks()}


async def test_an_error_of_a_try_that_a_signal_ended_is_not_reported(caplog: pytest.LogCaptureFixture) -> None:
    gc.collect()  # what other tests left
    caplog.clear()
    stopping = Stopping(PATIENCE_SECONDS)

    @asynccontextmanager
    async def failing_when_cancelled() -> AsyncIterator[Quart]:
        stopping.signalled.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise StoreUnavailable from None
        yield Quart(__name__)

    def no_trouble() -> None:
        raise AssertionError

    async with AsyncExitStack() as stack:
        app = await opened(failing_when_cancelled, stack, stopping, no_trouble, seconds=PATIENCE_SECONDS)
    gc.collect()  # an error that nobody looked at would be reported now
    assert app is None
    assert caplog.records == []


async def test_while_the_service_starts_a_websocket_is_told_to_come_back() -> None:
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await Front()({"type": "websocket", "path": "/"}, None, send)
    assert sent == [{"type": "websocket.close", "code": 1013, "reason": None}]  # 1013: "Try Again Later"


HELD_UP = """
import asyncio, logging, threading
from quart_app.serving.stopping import Stopping

async def serve() -> None:
    logging.basicConfig()
    stopping = Stopping(0.2)
    stopping.listen(asyncio.get_running_loop())
    asyncio.get_running_loop().run_in_executor(None, threading.Event().wait)  # as a name that is looked up for ever
    print("ready", flush=True)
    await stopping.signalled.wait()

asyncio.run(serve())
"""


async def test_a_thread_that_never_comes_back_does_not_hold_up_the_exit() -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", HELD_UP, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGTERM)
    async with asyncio.timeout(PATIENCE_SECONDS):
        _, said = await process.communicate()
    assert process.returncode == 0
    assert b"the stop was not finished in time; what was left is cut" in said
