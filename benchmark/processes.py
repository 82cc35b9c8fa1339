"""The processes of a benchmark: what is measured has a core of its own, everything else shares the others."""

import asyncio
import json
import os
import ssl
import sys
import time
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import aiohttp
import psutil

from benchmark.floor import CALLED, CONNECTION_STRING, IDENTITY
from benchmark.upstreams import NAMES
from local_azure.port_choice import free_port
from local_azure.service_process import (
    SERVE,
    START_SECONDS,
    ServiceEnded,
    ServiceNotReady,
    ServiceProcess,
    ended,
    environment,
)

POLL_SECONDS = 0.002

SETTINGS = {
    "HOST": "127.0.0.1",
    # So few users send all the load that the usual limit would refuse nearly all of it. It is still counted.
    "RATE_LIMIT_REQUESTS_PER_MINUTE": "100000000",
}


class BenchmarkFailed(Exception):
    """Something that is needed for a measurement did not work; the message says what."""


@dataclass(frozen=True, slots=True)
class Cores:
    """Which cores the measured process and the helpers run on; empty where they can't be chosen."""

    measured: tuple[int, ...]
    helpers: tuple[int, ...]

    @classmethod
    def of_machine(cls) -> "Cores":
        """The last core for what is measured; no choice on a machine with one core, or other than Linux."""
        available = _affinity() if hasattr(psutil.Process, "cpu_affinity") else []
        return cls(tuple(available[-1:]), tuple(available[:-1])) if len(available) > 1 else cls((), ())


@dataclass(frozen=True, slots=True)
class Child:
    """A running process."""

    url: str
    process: Process

    def cpu_seconds(self) -> float:
        """CPU time that it and the processes that it started have used, in user and system mode."""
        times = [each.cpu_times() for each in self._processes()]
        return sum(each.user + each.system for each in times)

    def resident_mebibytes(self) -> float:
        """Memory they hold now."""
        return float(sum(each.memory_info().rss for each in self._processes())) / 2**20

    def _processes(self) -> list[psutil.Process]:
        process = psutil.Process(self.process.pid)
        return [process, *process.children(recursive=True)]


@dataclass(frozen=True, slots=True)
class Upstreams:
    """The stand-ins' process. `environment` points the service at it."""

    child: Child
    environment: Mapping[str, str]

    @property
    def acs_url(self) -> str:
        """The ACS stand-in's own."""
        return self.environment["ACS_CONNECTION_STRING"].partition(";")[0].removeprefix("endpoint=").rstrip("/")

    @property
    def trust(self) -> ssl.SSLContext:
        """How a client recognises the stand-ins."""
        return ssl.create_default_context(cafile=self.environment["SSL_CERT_FILE"])

    async def calls(self) -> int:
        """How many requests have arrived at all of them together."""
        counts = await self._control("GET", "/calls")
        return sum(counts.values())

    async def delay(self, seconds: Mapping[str, float]) -> None:
        """From now on delay each answer of the named ones, and of no other."""
        await self._control("PUT", "/delays", {name: seconds.get(name, 0.0) for name in NAMES})

    async def tokens(self, object_ids: Sequence[str]) -> list[str]:
        """A new access token for the service for each user."""
        return list(await self._control("POST", "/tokens", list(object_ids)))

    async def remembered_paths(self, name: str) -> list[str]:
        """What is answered from memory by now."""
        return list(await self._control("GET", f"/paths/{name}"))

    async def _control(self, method: str, path: str, body: Any = None) -> Any:
        async with (
            aiohttp.ClientSession() as session,
            session.request(method, self.child.url + path, json=body) as answer,
        ):
            answer.raise_for_status()
            return await answer.json() if answer.status == 200 else None


@asynccontextmanager
async def upstreams(directory: Path) -> AsyncIterator[Upstreams]:
    """Run the stand-ins; their state is in `directory`."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "benchmark.upstreams", str(directory), stdin=PIPE, stdout=PIPE
    )
    try:
        async with asyncio.timeout(START_SECONDS):
            line = await process.stdout.readline() if process.stdout else b""
        if not line:
            raise BenchmarkFailed("The stand-ins did not start; their message is above.")
        told = json.loads(line)
        yield Upstreams(Child(told["control"], process), told["environment"])
    finally:
        if process.stdin is not None:
            process.stdin.close()
        await ended(process)


@asynccontextmanager
async def service(
    settings: Mapping[str, str], cores: Cores, log: Path, arguments: Sequence[str] = SERVE
) -> AsyncIterator[Child]:
    """Run `acs-auth serve` until it is ready. What it logs goes to the file `log`, as it would in production.

    `arguments` are those of Python, for another way to start the service.
    """
    async with _serving(arguments, {**SETTINGS, **settings}, cores, log) as process:
        yield await _ready(process, "/health/ready")


@asynccontextmanager
async def starting_service(settings: Mapping[str, str], cores: Cores, log: Path) -> AsyncIterator[Child]:
    """Run `acs-auth serve`; it has only just been started."""
    async with _serving(SERVE, {**SETTINGS, **settings}, cores, log) as process:
        yield Child(process.url, process.process)


@asynccontextmanager
async def floor(upstreams: Upstreams, path: str, cores: Cores, log: Path) -> AsyncIterator[Child]:
    """Run the floor; its calls of ACS go to `path`, which names an identity."""
    names = ("SSL_CERT_FILE", CONNECTION_STRING)
    called = {CALLED: upstreams.acs_url + path, IDENTITY: unquote(path.split("/")[2])}
    settings = {**{name: upstreams.environment[name] for name in names}, **called}
    async with _serving(("-m", "benchmark.floor"), settings, cores, log) as process:
        yield await _ready(process, "/nothing")


@asynccontextmanager
async def peer(
    command: Sequence[str], port: int, settings: Mapping[str, str], cores: Cores, log: Path
) -> AsyncIterator[Child]:
    """Run another server of the same API until it answers at `port`, whatever it answers.

    It is given the settings of ours, and the trust in the stand-ins' certificates as Node.js reads it.
    """
    trust = {"NODE_EXTRA_CA_CERTS": settings["SSL_CERT_FILE"]}
    variables = environment(os.environ, {**SETTINGS, **settings, **trust, "PORT": str(port)})
    with log.open("wb") as output:
        process = await asyncio.create_subprocess_exec(
            *command, env=variables, stdin=DEVNULL, stdout=output, stderr=STDOUT, start_new_session=True
        )
    try:
        if cores.measured:
            psutil.Process(process.pid).cpu_affinity(list(cores.measured))
        child = Child(f"http://127.0.0.1:{port}", process)
        await _listening(child)
        yield child
    finally:
        if process.returncode is None:
            process.terminate()
        await ended(process)


async def _listening(child: Child) -> None:
    give_up = time.monotonic() + START_SECONDS
    async with aiohttp.ClientSession() as session:
        while time.monotonic() < give_up:
            if child.process.returncode is not None:
                raise BenchmarkFailed(f"The peer ended with status {child.process.returncode}.")
            try:
                async with session.get(child.url + "/"):
                    return
            except aiohttp.ClientError:
                await asyncio.sleep(POLL_SECONDS)
    raise BenchmarkFailed(f"The peer did not answer at {child.url} in {START_SECONDS} s.")


async def status_of(child: Child, method: str, path: str, headers: Mapping[str, str]) -> int:
    """The status of one answer."""
    async with aiohttp.ClientSession() as session, session.request(method, child.url + path, headers=headers) as answer:
        return answer.status


async def answered(child: Child, method: str, path: str, headers: Mapping[str, str], status: int) -> Any:
    """Ask again and again until the answer has `status`; its JSON."""
    give_up = time.monotonic() + START_SECONDS
    last: object = "nothing"
    async with aiohttp.ClientSession() as session:
        while time.monotonic() < give_up:
            if child.process.returncode is not None:
                raise BenchmarkFailed(f"The process ended with status {child.process.returncode}.")
            try:
                async with session.request(method, child.url + path, headers=headers) as answer:
                    if answer.status == status:
                        return await answer.json()
                    last = answer.status
            except aiohttp.ClientError as error:
                last = type(error).__name__
            await asyncio.sleep(POLL_SECONDS)
    raise BenchmarkFailed(f"{method} {path} was not answered {status} in {START_SECONDS} s; at last: {last}.")


@asynccontextmanager
async def _serving(
    arguments: Sequence[str], settings: Mapping[str, str], cores: Cores, log: Path
) -> AsyncIterator[ServiceProcess]:
    variables = environment(os.environ, {**settings, "PORT": str(free_port())})
    async with ServiceProcess(variables, log.parent, log, arguments) as process:
        if cores.measured:
            psutil.Process(process.process.pid).cpu_affinity(list(cores.measured))
        yield process


async def _ready(process: ServiceProcess, path: str) -> Child:
    try:
        await process.ready(path)
    except (ServiceEnded, ServiceNotReady) as error:
        raise BenchmarkFailed(str(error)) from error
    return Child(process.url, process.process)


def _affinity() -> list[int]:
    return sorted(psutil.Process().cpu_affinity() or [])
