"""Closed-loop load over HTTP/1.1: each connection sends its next request when the last one is answered.

On sockets and httptools, because it shares the machine with what it measures: an HTTP client's own work for each
request would be a third of the service's.
"""

import asyncio
import itertools
import ssl
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import cast
from urllib.parse import urlsplit

import httptools

DRAIN_SECONDS = 60.0
_SETTLED = 2  # answers of each connection


@dataclass(frozen=True, slots=True)
class Target:
    """Where the load goes. `requests` never end and are sent whole, as bytes; `trust` for https."""

    url: str
    requests: Iterator[bytes] = field(repr=False)
    trust: ssl.SSLContext | None = None

    @classmethod
    def of(cls, method: str, url: str, trust: ssl.SSLContext | None = None) -> "Target":
        """One request without headers and body, again and again."""
        return cls(url, itertools.repeat(request_bytes(method, url, {})), trust)


@dataclass(slots=True)
class Answers:
    """What came back since the last `clear`: times in seconds, and how many answers had each status.

    `total` is how many have come since the beginning. `settled` is set as soon as every connection has been answered
    twice: the rush of the beginning is over. `any` is set when there is an answer.
    """

    waiting: int
    total: int = 0
    settled: asyncio.Event = field(default_factory=asyncio.Event)
    any: asyncio.Event = field(default_factory=asyncio.Event)
    seconds: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    broken: int = 0

    def clear(self) -> None:
        """Forget all but `total` and what broke."""
        self.any.clear()
        self.seconds.clear()
        self.statuses.clear()


def request_bytes(method: str, url: str, headers: dict[str, str], body: bytes = b"") -> bytes:
    """One HTTP/1.1 request."""
    parts = urlsplit(url)
    lines = [
        f"{method} {parts.path or '/'}{'?' + parts.query if parts.query else ''} HTTP/1.1",
        f"Host: {parts.netloc}",
    ]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    if body:
        lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    return "\r\n".join([*lines, "", ""]).encode() + body


@asynccontextmanager
async def load(target: Target, connections: int) -> AsyncIterator[Answers]:
    """Keep `connections` connections busy inside the context; leaving it waits for the last answers."""
    answers = Answers(waiting=connections)
    busy = [_Busy(target, answers) for _ in range(connections)]
    try:
        for each in busy:
            await each.open()
        yield answers
    finally:
        for each in busy:
            each.stopping = True
        async with asyncio.timeout(DRAIN_SECONDS):
            await asyncio.gather(*(each.closed for each in busy))


class _Busy(asyncio.Protocol):
    """One connection, opened anew where the server ends it with an answer, as servers do after so many."""

    def __init__(self, target: Target, answers: Answers) -> None:
        self.stopping = False
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._target = target
        self._answers = answers
        self._answered = 0
        self._ended = False
        self._reopening: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Connect, and send the first request."""
        parts = urlsplit(self._target.url)
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: self, parts.hostname or "", parts.port or 0, ssl=self._target.trust)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._parser = httptools.HttpResponseParser(self)
        self._ended = False
        self._send()

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        self._answers.seconds.append(time.perf_counter() - self._sent)
        self._answers.statuses[self._parser.get_status_code()] += 1
        self._answers.total += 1
        self._answers.any.set()
        self._answered += 1
        if self._answered == _SETTLED:
            self._answers.waiting -= 1
            if not self._answers.waiting:
                self._answers.settled.set()
        if self.stopping:
            self._transport.close()
        elif self._parser.should_keep_alive():
            self._send()
        else:
            self._ended = True

    def connection_lost(self, error: Exception | None) -> None:
        if self._ended and not self.stopping:
            self._reopening = asyncio.create_task(self.open())
            return
        if not self.stopping:
            self._answers.broken += 1
        if not self.closed.done():
            self.closed.set_result(None)

    def _send(self) -> None:
        self._sent = time.perf_counter()
        self._transport.write(next(self._target.requests))
