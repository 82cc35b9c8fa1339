"""Many connections opened at the same moment, as after a lost network or a deployment: how evenly they are served."""

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast
from urllib.parse import urlsplit

import httptools

from benchmark.load import Target
from benchmark.throughput import Subject, percentile

PATIENCE_SECONDS = 30.0
REQUESTS = 3
"""On each connection, one after another; the first one's time begins when its connection is opened."""


@dataclass(frozen=True, slots=True)
class Burst:
    """What came of `connections`, `rounds` times. Times are milliseconds, of all answers; `resident` is MiB afterwards.

    refused  answers with another status than the subject's: 503 where the service takes no more
    starved  connections that had no answer at all in 30 s
    """

    connections: int
    p50: float
    p99: float
    longest: float
    refused: int
    starved: int
    resident: float


async def measure_bursts(
    subjects: Sequence[Subject], connections: Sequence[int], rounds: int, pause: float = 1.0
) -> dict[tuple[str, int], Burst]:
    """Burst upon each subject in turn, `rounds` times, `pause` seconds after the last one's end."""
    taken: dict[tuple[str, int], list[tuple[list[float], int, int, float]]] = {}
    for _ in range(rounds):
        for count in connections:
            for subject in subjects:
                seconds, statuses, starved = await burst(subject.target, count)
                refused = statuses.total() - statuses[subject.status]
                resident = subject.child.resident_mebibytes()
                taken.setdefault((subject.name, count), []).append((seconds, refused, starved, resident))
                await asyncio.sleep(pause)
    return {key: _together(key[1], rounds) for key, rounds in taken.items()}


async def burst(target: Target, connections: int) -> tuple[list[float], Counter[int], int]:
    """Open them at once; the seconds of each answer, how many had each status, and how many connections had none."""
    clients = [_Client(target) for _ in range(connections)]
    await asyncio.gather(*(client.go() for client in clients))
    seconds = [each for client in clients for each in client.seconds]
    return seconds, sum((client.statuses for client in clients), Counter()), sum(not each.seconds for each in clients)


async def one_after_another(url: str, requests: Sequence[bytes]) -> tuple[list[float], Counter[int]]:
    """Send them on one connection; the seconds of each answer, and how many had each status."""
    client = _Client(Target(url, iter(requests)), len(requests))
    await client.go()
    return client.seconds, client.statuses


class _Client(asyncio.Protocol):
    def __init__(self, target: Target, requests: int = REQUESTS) -> None:
        self.seconds: list[float] = []
        self.statuses: Counter[int] = Counter()
        self._target = target
        self._left = requests
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._transport: asyncio.Transport | None = None

    async def go(self) -> None:
        """Connect, send the requests, and end; at most `PATIENCE_SECONDS`."""
        parts = urlsplit(self._target.url)
        self._sent = time.perf_counter()
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await asyncio.get_running_loop().create_connection(
                    lambda: self, parts.hostname or "", parts.port or 0, ssl=self._target.trust
                )
                await self._done
        except (TimeoutError, OSError):
            pass
        finally:
            if self._transport is not None:
                self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._parser = httptools.HttpResponseParser(self)
        self._transport.write(next(self._target.requests))

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        now = time.perf_counter()
        self.seconds.append(now - self._sent)
        self.statuses[self._parser.get_status_code()] += 1
        self._left -= 1
        if self._left and self._parser.should_keep_alive() and self._transport is not None:
            self._sent = now
            self._transport.write(next(self._target.requests))
        elif not self._done.done():
            self._done.set_result(None)

    def connection_lost(self, error: Exception | None) -> None:
        if not self._done.done():
            self._done.set_result(None)


def _together(connections: int, rounds: Sequence[tuple[list[float], int, int, float]]) -> Burst:
    seconds = sorted(each for taken, _, _, _ in rounds for each in taken) or [float("inf")]
    return Burst(
        connections,
        percentile(seconds, 50) * 1000,
        percentile(seconds, 99) * 1000,
        seconds[-1] * 1000,
        sum(refused for _, refused, _, _ in rounds),
        sum(starved for _, _, starved, _ in rounds),
        max(resident for _, _, _, resident in rounds),
    )
