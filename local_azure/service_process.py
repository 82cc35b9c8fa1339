"""A process that serves HTTP, such as the service: started, waited for until it is ready, stopped at the end."""

import asyncio
import os
import signal
import subprocess
import sys
from asyncio.subprocess import Process
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp

START_SECONDS = 60
STOP_SECONDS = 60
SERVE = ("-m", "quart_app.cli", "serve")
"""What Python is started with for the service."""

_POLL_SECONDS = 0.05

# Settings of a real deployment that happen to be in this shell would mix with the local ones.
_SETTINGS = frozenset(
    {
        "ENVIRONMENT",
        "HOST",
        "LOG_HASH_KEY",
        "MAX_CONCURRENT_REQUESTS",
        "PORT",
        "RATE_LIMIT_REQUESTS_PER_MINUTE",
        "REQUEST_DEADLINE_SECONDS",
        "TRUSTED_PROXY_HOPS",
    }
)
_SETTING_PREFIXES = (
    "ACS_",
    "APPLICATIONINSIGHTS_",
    "AZUREACTIVEDIRECTORY_",
    "COMMUNICATIONSERVICES_",
    "CORS_",
    "COSMOS_",
    "DOCS_",
    "ENTRA_",
    "GRAPH_",
    "MICROSOFTENTRAID_",
    "OIDC_",
    "SQLITE_",
    "STORAGE_",
    "TEAMS_",
)
_LOOPBACK_NAMES = "localhost,127.0.0.1"


# Ctrl-C in a terminal goes to the whole process group: the child stops when told. On Windows to terminate is to kill.
_OWN_GROUP: dict[str, Any]
if sys.platform == "win32":
    _OWN_GROUP = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    _STOP = signal.CTRL_BREAK_EVENT
else:
    _OWN_GROUP = {"start_new_session": True}
    _STOP = signal.SIGTERM


class ServiceEnded(Exception):
    """The service ended on its own. `status` is the exit status to pass on; never 0, because it should not have."""

    def __init__(self, code: int, when: str, log: Path) -> None:
        name = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
        super().__init__(f"The service ended {when} with {name}; its log is {log}.")
        self.status = 128 - code if code < 0 else code or 1


class ServiceNotReady(Exception):
    """The service runs but does not get ready."""


class ServiceProcess:
    """Runs Python with `arguments`; use as an async context manager, which stops it at the end.

    environment  all its variables (see `environment`), `PORT` among them: it listens there on 127.0.0.1
    directory    where it runs: away from the checkout, whose `.env` describes a real deployment
    log          the file for all that it writes, emptied first

    As long as it runs, `process` is it.
    """

    process: Process

    def __init__(
        self, environment: Mapping[str, str], directory: Path, log: Path, arguments: Sequence[str] = SERVE
    ) -> None:
        self.url = f"http://127.0.0.1:{environment['PORT']}"
        self.log = log
        self._environment = dict(environment)
        self._directory = directory
        self._arguments = arguments

    async def __aenter__(self) -> Self:
        with self.log.open("wb") as log:
            self.process = await asyncio.create_subprocess_exec(
                *(sys.executable, *self._arguments),
                env=self._environment,
                cwd=self._directory,
                **_OWN_GROUP,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.returncode is None:
            self.process.send_signal(_STOP)
            await ended(self.process)

    async def ready(self, path: str = "/health/startup") -> None:
        """Wait until it answers 200. Raises `ServiceEnded`, `ServiceNotReady` (after `START_SECONDS`)."""
        one_try = aiohttp.ClientTimeout(total=5)
        try:
            async with asyncio.timeout(START_SECONDS), aiohttp.ClientSession(timeout=one_try) as session:
                while not await self._is_ready(session, path):
                    if self.process.returncode is not None:
                        raise ServiceEnded(self.process.returncode, "before it was ready", self.log)
                    await asyncio.sleep(_POLL_SECONDS)
        except TimeoutError as error:
            raise ServiceNotReady(
                f"The service was not ready after {START_SECONDS} seconds; its log is {self.log}."
            ) from error

    async def end(self) -> None:
        """Wait until it ends on its own; raises `ServiceEnded` then."""
        raise ServiceEnded(await self.process.wait(), "unexpectedly", self.log)

    async def _is_ready(self, session: aiohttp.ClientSession, path: str) -> bool:
        try:
            async with session.get(self.url + path) as answer:
                return answer.status == 200
        except (TimeoutError, aiohttp.ClientError):
            return False  # not listening yet: that is what is waited for


async def ended(process: Process) -> int:
    """The exit status of a process that was told to stop; it is killed if it has not ended after `STOP_SECONDS`."""
    try:
        return await asyncio.wait_for(process.wait(), STOP_SECONDS)
    except TimeoutError:
        process.kill()
        return await process.wait()


def environment(inherited: Mapping[str, str], settings: Mapping[str, str]) -> dict[str, str]:
    """The child's environment: `inherited` without settings of the service, with the given `settings`.

    Calls to loopback bypass any proxy. The child finds the same code as this process.
    """
    kept = {name: value for name, value in inherited.items() if not _is_setting(name.upper())}
    code = str(Path(__file__).resolve().parent.parent)
    kept["PYTHONPATH"] = os.pathsep.join(filter(None, (code, kept.get("PYTHONPATH"))))
    return {**kept, **loopback_without_proxy(kept), **settings}


def loopback_without_proxy(inherited: Mapping[str, str]) -> dict[str, str]:
    """The variables that keep calls to loopback away from a proxy, added to what is inherited."""
    return {name: ",".join(filter(None, (inherited.get(name), _LOOPBACK_NAMES))) for name in ("NO_PROXY", "no_proxy")}


def _is_setting(name: str) -> bool:
    return name in _SETTINGS or name.startswith(_SETTING_PREFIXES)
