"""`acs-auth` as a process of its own: a command to its end, or a service that runs."""

import asyncio
import os
import sys
import tempfile
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

from local_azure.environment import LocalAzure
from local_azure.port_choice import free_port
from local_azure.service_process import SERVE, ServiceProcess
from local_azure.service_process import environment as child_environment
from tests.conftest import LOGS

PATIENCE_SECONDS = 120
"""Only what hangs takes longer, on a busy machine too."""

BRIEFLY_STARTED = (
    "-c",
    """
import sys
from quart_app.telemetry.logs import configure_logging
from quart_app.serving.server import StartUpFailed, run
from quart_app.settings import load_settings

settings = load_settings(None)
configure_logging(settings.server.environment)
try:
    run(settings, starting_seconds=0.5)
except StartUpFailed as error:
    sys.exit(str(error))
""",
)
"""The arguments of Python for a service that tries to start for half a second only."""


def settings_for(local_azure: LocalAzure, directory: Path, storage: str = "sqlite") -> dict[str, str]:
    """The settings of a service that uses the stand-ins; an SQLite file is in `directory`."""
    return {
        **local_azure.service_environment(),
        "STORAGE_BACKEND": storage,
        "SQLITE_PATH": str(directory / "mappings.sqlite"),
    }


def environment_for(local_azure: LocalAzure, directory: Path, storage: str = "sqlite") -> dict[str, str]:
    """The whole environment of such a service, with a port that is free now."""
    address = {"HOST": "127.0.0.1", "PORT": str(free_port())}
    return child_environment(os.environ, {**settings_for(local_azure, directory, storage), **address})


async def python(
    environment: Mapping[str, str], *arguments: str, directory: Path | None = None, stdin: bool | int = False
) -> Process:
    """Start Python with these arguments, in the working directory `directory`; with `stdin`, it can be written to.

    `stdin` may also be the descriptor that standard input is.
    """
    return await asyncio.create_subprocess_exec(
        *(sys.executable, *arguments),
        env=environment,
        cwd=directory,
        stdin=PIPE if stdin is True else None if stdin is False else stdin,
        stdout=PIPE,
        stderr=PIPE,
    )


async def acs_auth(
    environment: Mapping[str, str], *arguments: str, directory: Path | None = None, stdin: bool | int = False
) -> Process:
    """Start a command; `directory` is the working directory, where `.env` is looked for."""
    return await python(environment, "-m", "quart_app.cli", *arguments, directory=directory, stdin=stdin)


async def acs_auth_at_terminal(
    environment: Mapping[str, str], typed: str, *arguments: str
) -> tuple[int | None, str, str]:
    """A command at a terminal, on which `typed` is typed: exit status, output and errors."""
    keyboard, terminal = os.openpty()
    try:
        process = await acs_auth(environment, *arguments, stdin=terminal)
        os.write(keyboard, typed.encode())
        return await finished(process)
    finally:
        os.close(terminal)
        os.close(keyboard)


async def finished(process: Process, patience: float = PATIENCE_SECONDS) -> tuple[int | None, str, str]:
    """Wait for the end: exit status, output and errors, which are where logs go."""
    async with asyncio.timeout(patience):
        out, err = await process.communicate()
    LOGS.read(err.decode())
    return process.returncode, out.decode(), err.decode()


@asynccontextmanager
async def serving(environment: Mapping[str, str], arguments: Sequence[str] = SERVE) -> AsyncIterator[ServiceProcess]:
    """A service that is ready."""
    with tempfile.TemporaryDirectory() as directory:
        log = Path(directory) / "service.log"
        try:
            async with ServiceProcess(environment, Path(directory), log, arguments) as service:
                await service.ready()
                yield service
        finally:
            LOGS.read(log.read_text())


async def stopped(service: ServiceProcess) -> tuple[int, str]:
    """Wait for the end of a service that was told to stop: exit status and everything that it wrote."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        status = await service.process.wait()
    return status, service.log.read_text()


async def not_accepting(service: ServiceProcess) -> None:
    """Return when the service takes no more connections."""
    address = urlsplit(service.url)
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            try:
                _, writer = await asyncio.open_connection(address.hostname, address.port)
            except ConnectionRefusedError:
                return
            except ConnectionResetError:
                continue  # it stopped listening while this connection waited
            writer.transport.abort()
