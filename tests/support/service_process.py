"""`acs-auth` as a process of its own."""

import asyncio
import os
import socket
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from local_azure.environment import LocalAzure
from tests.conftest import LOGS

PATIENCE_SECONDS = 30


def environment_for(local_azure: LocalAzure, directory: Path, storage: str = "sqlite") -> dict[str, str]:
    """The environment of a service that uses the stand-ins and a port that is free now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    return {
        **os.environ,
        **local_azure.service_environment(),
        "HOST": "127.0.0.1",
        "PORT": port,
        "STORAGE_BACKEND": storage,
        "SQLITE_PATH": str(directory / "mappings.sqlite"),
    }


async def acs_auth(environment: dict[str, str], *arguments: str, stdin: bool = False) -> Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "quart_app.cli",
        *arguments,
        env=environment,
        stdin=PIPE if stdin else None,
        stdout=PIPE,
        stderr=PIPE,
    )


async def finished(process: Process) -> tuple[int | None, str, str]:
    async with asyncio.timeout(PATIENCE_SECONDS):
        out, err = await process.communicate()
    LOGS.read(out.decode() + err.decode())
    return process.returncode, out.decode(), err.decode()


@asynccontextmanager
async def serving(environment: dict[str, str]) -> AsyncIterator[tuple[Process, str]]:
    """A running service and its address."""
    process = await acs_auth(environment, "serve")
    assert process.stderr is not None
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while b"Running on" not in (line := await process.stderr.readline()):
                assert line, "the service ended before it listened"
                LOGS.read(line.decode())
        yield process, f"http://127.0.0.1:{environment['PORT']}"
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        LOGS.read((await process.stderr.read()).decode())
