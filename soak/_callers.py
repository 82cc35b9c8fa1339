"""Requests to a running service over kept HTTP/1.1 connections, and what the service holds meanwhile."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

import httptools
import psutil

from benchmark.load import request_bytes
from benchmark.processes import Child, Cores, service, upstreams
from local_azure.service_process import SERVE

ANSWER_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back; times are in seconds. Without an answer `status` is 0, and `error` says what was instead."""

    status: int
    retry_after: float | None
    seconds: float
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Sample:
    """What the service's process holds; `resident` is in MiB."""

    resident: float
    descriptors: int
    threads: int

    def __str__(self) -> str:
        return f"{self.resident:.1f} MiB, {self.descriptors} descriptors, {self.threads} threads"

    @classmethod
    def of(cls, child: Child) -> "Sample":
        process = psutil.Process(child.process.pid)
        return cls(child.resident_mebibytes(), process.num_fds(), process.num_threads())


class Connections:
    """At most `maximum` connections to `url`, opened as they are needed and used again."""

    def __init__(self, url: str, maximum: int) -> None:
        parts = urlsplit(url)
        self._address = parts.hostname or "", parts.port or 0
        self._idle: list[_Connection] = []
        self._places = asyncio.Semaphore(maximum)

    @property
    def busy(self) -> bool:
        """Whether every connection has a request that is not answered yet."""
        return self._places.locked()

    async def ask(self, request: bytes) -> Answer:
        """Send the request when a connection is free; its answer, counted from when it is sent."""
        async with self._places:
            begun = time.perf_counter()
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    connection, status, retry_after = await self._answered(request)
            except (OSError, TimeoutError) as error:
                return Answer(0, None, time.perf_counter() - begun, type(error).__name__)
            if connection.reusable:
                self._idle.append(connection)
            return Answer(status, retry_after, time.perf_counter() - begun)

    def close(self) -> None:
        """Close those that are not in use."""
        for connection in self._idle:
            connection.close()
        self._idle.clear()

    async def _answered(self, request: bytes) -> tuple["_Connection", int, float | None]:
        if self._idle:
            connection = self._idle.pop()
            try:
                return connection, *await connection.ask(request)
            except TimeoutError:
                raise
            except OSError:
                pass  # the service let the idle connection go, as it may
        connection = await self._open()
        return connection, *await connection.ask(request)

    async def _open(self) -> "_Connection":
        _, connection = await asyncio.get_running_loop().create_connection(_Connection, *self._address)
        return connection


class _Connection(asyncio.Protocol):
    def __init__(self) -> None:
        self.reusable = False
        self._answered: asyncio.Future[tuple[int, float | None]] | None = None
        self._retry_after: float | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    async def ask(self, request: bytes) -> tuple[int, float | None]:
        self._answered = asyncio.get_running_loop().create_future()
        self._parser = httptools.HttpResponseParser(self)
        self._retry_after = None
        self.reusable = False
        if self._transport.is_closing():
            raise ConnectionResetError
        self._transport.write(request)
        try:
            return await self._answered
        except asyncio.CancelledError:
            self._transport.abort()  # nobody waits for the answer any more
            raise

    def close(self) -> None:
        self._transport.close()

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"retry-after":
            self._retry_after = float(value)

    def on_message_complete(self) -> None:
        self.reusable = self._parser.should_keep_alive()
        if self._answered is not None and not self._answered.done():
            self._answered.set_result((self._parser.get_status_code(), self._retry_after))
        if not self.reusable:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def connection_lost(self, error: Exception | None) -> None:
        self.reusable = False
        if self._answered is not None and not self._answered.done():
            self._answered.set_exception(error or ConnectionResetError())


def request(child: Child, method: str, path: str, token: str | None) -> bytes:
    """One request, of a caller with that access token or of an anonymous one."""
    headers = {"Authorization": f"Bearer {token}"} if token is not None else {}
    return request_bytes(method, child.url + path, headers)


@asynccontextmanager
async def running(
    directory: Path, users: int, delays: Mapping[str, float] | None = None, arguments: Sequence[str] = SERVE
) -> AsyncIterator[tuple[Child, list[str]]]:
    """The service on SQLite and its stand-ins, each on a core of its own where there are two, and users' tokens.

    `delays` are the seconds that the named stand-ins take for each answer, from when the service is ready. `arguments`
    are those of Python that start the service.
    """
    cores = Cores.of_machine()
    if cores.helpers:
        psutil.Process().cpu_affinity(list(cores.helpers))
    async with upstreams(directory / "local-azure") as azure:
        tokens = await azure.tokens([str(uuid.UUID(int=number)) for number in range(1, users + 1)])
        variables = {
            **azure.environment,
            "STORAGE_BACKEND": "sqlite",
            "SQLITE_PATH": str(directory / "mappings.sqlite"),
        }
        async with service(variables, cores, directory / "service.log", arguments) as child:
            await azure.delay(delays or {})
            yield child, tokens


def percentile(values: list[float], share: float) -> float:
    """The smallest value that is not exceeded by `share` of them; 0 where there are none."""
    return sorted(values)[min(int(len(values) * share), len(values) - 1)] if values else 0.0
