"""Time that passes when a test says so, for everything in this process at once."""

import asyncio
import heapq
import itertools
import time
from collections.abc import Awaitable, Callable

import time_machine

from acs_auth_client.tokens import RENEWAL


class MovedTime:
    """Moves the wall clock of the client, MSAL, the SDK, the stand-ins and the service; monotonic clocks go on."""

    def __init__(self, traveller: time_machine.Traveller) -> None:
        self._traveller = traveller
        self._sleepers: list[tuple[float, int, str, asyncio.Future[None]]] = []
        self._order = itertools.count()

    async def sleep(self, seconds: float) -> None:
        """What a client is given to sleep by: it wakes when time has been moved so far."""
        waking: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        task = asyncio.current_task()
        name = task.get_name() if task else ""
        heapq.heappush(self._sleepers, (time.time() + seconds, next(self._order), name, waking))
        await waking

    def sleeps(self, name: str) -> bool:
        """Whether a task of this name is asleep."""
        return any(sleeper == name and not waking.done() for _, _, sleeper, waking in self._sleepers)

    def leap(self, seconds: float) -> None:
        """Let time pass as for a computer that sleeps: nobody wakes."""
        self._traveller.shift(seconds)

    async def advance(self, seconds: float, quiet: Callable[[], bool] = lambda: True) -> None:
        """Let time pass; each sleeper wakes at its own time, and time waits until it is `quiet` again."""
        until = time.time() + seconds
        while self._sleepers and self._sleepers[0][0] <= until:
            at, _, _, waking = heapq.heappop(self._sleepers)
            if waking.done():  # cancelled
                continue
            self.leap(max(0.0, at - time.time()))
            waking.set_result(None)
            await eventually(lambda: bool(self._sleepers) and quiet())
        self.leap(max(0.0, until - time.time()))


async def eventually(condition: Callable[[], bool]) -> None:
    """Wait, in real time, until `condition` holds."""
    async with asyncio.timeout(120):
        await asyncio.sleep(0)
        while not condition():  # noqa: ASYNC110  # nothing tells of it
            await asyncio.sleep(0.001)


async def passing(answer: Awaitable[object], moved: MovedTime) -> float:
    """Let time pass in the client's pauses until there is an answer; how many seconds passed."""
    task, started = asyncio.ensure_future(answer), time.time()
    while True:
        await eventually(lambda: task.done() or moved.sleeps(RENEWAL))
        if task.done():
            await task
            return time.time() - started
        await moved.advance(1)
