"""A Cosmos DB stand-in of a test's own, for tests that need another account than the shared one."""

import asyncio
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

from local_azure.certificates import LocalAuthority
from local_azure.clock import Clock
from local_azure.cosmos import Cosmos
from local_azure.state import State


@asynccontextmanager
async def running_cosmos(
    directory: Path,
    *,
    clock: Clock = time.time,
    verify: Callable[[str], dict[str, Any] | None] = lambda _: None,
    consistency: str = "Strong",
    partition_key_path: str | None = "/id",
    multiple_write_regions: bool = False,
) -> AsyncIterator[Cosmos]:
    """Start a stand-in on loopback and close it afterwards."""
    listening = socket.create_server(("127.0.0.1", 0))
    state = State(directory)
    cosmos = Cosmos(
        state,
        f"https://localhost:{listening.getsockname()[1]}",
        clock=clock,
        verify=verify,
        consistency=consistency,
        partition_key_path=partition_key_path,
        multiple_write_regions=multiple_write_regions,
    )
    runner = web.AppRunner(cosmos.application(), access_log=None, shutdown_timeout=0.5)
    try:
        await runner.setup()
        await web.SockSite(runner, listening, ssl_context=LocalAuthority(directory).server_context()).start()
        yield cosmos
    finally:
        cosmos.faults.release()
        await runner.cleanup()
        listening.close()
        state.close()


@asynccontextmanager
async def running_read_region(account: Cosmos, directory: Path, name: str = "North Europe") -> AsyncIterator[Cosmos]:
    """One more region of a running account, with faults and counts of its own, on another port."""
    listening = socket.create_server(("127.0.0.1", 0))
    region = account.read_region(name, f"https://localhost:{listening.getsockname()[1]}")
    runner = web.AppRunner(region.application(), access_log=None, shutdown_timeout=0.5)
    try:
        await runner.setup()
        await web.SockSite(runner, listening, ssl_context=LocalAuthority(directory).server_context()).start()
        yield region
    finally:
        region.faults.release()
        await runner.cleanup()
        listening.close()


@contextmanager
def cosmos_in_a_thread(directory: Path) -> Iterator[Cosmos]:
    """A stand-in with an event loop of its own, for tests that have several loops or none. Only `faults` is shared."""
    started: Future[tuple[Cosmos, Callable[[], object]]] = Future()

    async def serve() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        async with running_cosmos(directory) as cosmos:
            started.set_result((cosmos, lambda: loop.call_soon_threadsafe(stop.set)))
            await stop.wait()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    cosmos, stop = started.result(timeout=60)
    try:
        yield cosmos
    finally:
        stop()
        thread.join()
