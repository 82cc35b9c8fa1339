"""Time that passes only when nobody has anything to do: a week in as long as its work takes."""

import asyncio
import heapq
import itertools
from collections.abc import Coroutine, Generator, Iterable
from types import coroutine
from typing import Any, Protocol

_Coroutine = Coroutine[Any, Any, None]


class Clock(Protocol):
    """Seconds since Monday, 0:00."""

    now: float

    async def sleep(self, seconds: float) -> None:
        """Let so much time pass."""


async def until(clock: Clock, moment: float) -> None:
    """Let time pass until `moment`; return at once if it has passed."""
    if moment > clock.now:
        await clock.sleep(moment - clock.now)


class ModelClock:
    """Runs coroutines that wait for nothing but this clock, without an event loop: a few microseconds a step."""

    def __init__(self) -> None:
        self.now = 0.0

    async def sleep(self, seconds: float) -> None:
        """See `Clock.sleep`."""
        await _yielded(seconds)

    def run(self, coroutines: Iterable[_Coroutine]) -> None:
        """Run all of them to their ends, always the one whose time comes first."""
        order = itertools.count()
        waiting = [(0.0, next(order), each) for each in coroutines]
        while waiting:
            self.now, _, each = heapq.heappop(waiting)
            try:
                seconds = each.send(None)
            except StopIteration:
                continue
            heapq.heappush(waiting, (self.now + seconds, next(order), each))


@coroutine
def _yielded(seconds: float) -> Generator[float, None, None]:
    yield seconds


class CompressedClock:
    """Runs coroutines that also do real work, such as requests, in an event loop: that work takes no time.

    When all are waiting for this clock, time jumps to whoever's comes first, and only that one runs on.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self._working = 0
        self._idle = asyncio.Event()
        self._order = itertools.count()
        self._waiting: list[tuple[float, int, asyncio.Future[None]]] = []

    async def sleep(self, seconds: float) -> None:
        """See `Clock.sleep`."""
        woken = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (self.now + seconds, next(self._order), woken))
        self._rest()
        await woken

    async def run(self, coroutines: Iterable[_Coroutine]) -> None:
        """As `ModelClock.run`. Raises what one of them raises, after all have ended."""
        tasks = [asyncio.create_task(self._counted(each)) for each in coroutines]
        self._working = len(tasks)
        while self._working or self._waiting:
            await self._idle.wait()
            self._idle.clear()
            if self._waiting:
                self.now, _, woken = heapq.heappop(self._waiting)
                self._working += 1
                woken.set_result(None)
        await asyncio.gather(*tasks)

    async def _counted(self, work: _Coroutine) -> None:
        try:
            await work
        finally:
            self._rest()

    def _rest(self) -> None:
        self._working -= 1
        if not self._working:
            self._idle.set()
