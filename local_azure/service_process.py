"""The service as a child process, pointed at the stand-ins by its environment alone."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import aiohttp

START_SECONDS = 30
STOP_SECONDS = 30
_POLL_SECONDS = 0.1

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


class ServiceEnded(Exception):
    """The service ended by itself. `status` is the exit status to pass on; never 0, because it should not have."""

    def __init__(self, code: int, when: str, log: Path) -> None:
        name = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
        super().__init__(f"The service ended {when} with {name}; its log is {log}.")
        self.status = 128 - code if code < 0 else code or 1


class ServiceNotReady(Exception):
    """The service runs but does not get ready."""


class ServiceProcess:
    """Runs `acs-auth serve`; use as an async context manager, which stops it at the end.

    What the service writes goes into the file `log`, which is begun anew.
    """

    def __init__(self, settings: Mapping[str, str], port: int, directory: Path, log: Path) -> None:
        self.url = f"http://localhost:{port}"
        self._environment = environment(os.environ, {**settings, "HOST": "127.0.0.1", "PORT": str(port)})
        self._directory = directory
        self._log = log

    async def __aenter__(self) -> Self:
        with self._log.open("wb") as log:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "quart_app.cli", "serve"),
                env=self._environment,
                # Away from the checkout, whose .env describes a real deployment.
                cwd=self._directory,
                # Ctrl-C in a terminal goes to the whole process group: this one stops when told.
                start_new_session=True,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.returncode is not None:
            return
        self._process.terminate()
        try:
            await asyncio.wait_for(self._process.wait(), STOP_SECONDS)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()

    async def ready(self) -> None:
        """Wait until the service has started. Raises `ServiceEnded`, `ServiceNotReady` (after `START_SECONDS`)."""
        ended = asyncio.create_task(self._process.wait())
        polling = asyncio.create_task(self._poll())
        try:
            await asyncio.wait({ended, polling}, timeout=START_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ended.cancel()
            polling.cancel()
        if ended.done() and not ended.cancelled():
            raise ServiceEnded(ended.result(), "before it was ready", self._log)
        if not polling.done():
            raise ServiceNotReady(f"The service was not ready after {START_SECONDS} seconds; its log is {self._log}.")
        polling.result()

    async def end(self) -> None:
        """Wait until the service ends by itself; raises `ServiceEnded` then."""
        raise ServiceEnded(await self._process.wait(), "unexpectedly", self._log)

    async def _poll(self) -> None:
        timeout = aiohttp.ClientTimeout(total=2)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            for _ in range(int(START_SECONDS / _POLL_SECONDS) + 1):
                try:
                    async with session.get(f"{self.url}/health/startup") as response:
                        if response.status == 200:
                            return
                except (TimeoutError, aiohttp.ClientError):
                    pass  # not listening yet: that is what is waited for
                await asyncio.sleep(_POLL_SECONDS)
        raise ServiceNotReady(f"The service was not ready after {START_SECONDS} seconds; its log is {self._log}.")


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
