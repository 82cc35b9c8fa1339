"""An event loop whose time stands still, so that a time limit is reached when a test says so and never by itself.

Unlike `virtual_time` it may be used with sockets: what goes over them takes no time, however slow the machine is.
"""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from local_azure.faults import Faults

LONGEST_SECONDS = 120
"""Real time after which it goes on after all: something never happened, and the test should fail rather than hang."""


class HeldTime:
    """The event loop's time inside `held_time`."""

    def __init__(self, now: float) -> None:
        self._now = now
        self._began = time.monotonic()

    def __call__(self) -> float:
        return self._now + max(0.0, time.monotonic() - self._began - LONGEST_SECONDS)

    @property
    def waited(self) -> bool:
        """Whether it had to go on by itself."""
        return time.monotonic() - self._began > LONGEST_SECONDS

    def advance(self, seconds: float) -> None:
        """Let so many seconds pass."""
        self._now += seconds


@contextmanager
def held_time() -> Iterator[HeldTime]:
    """Inside, the running loop's time passes only by `HeldTime.advance`; afterwards it goes on from there."""
    loop = asyncio.get_running_loop()
    held = HeldTime(loop.time())
    loop.time = held  # type: ignore[method-assign]
    try:
        yield held
        assert not held.waited, f"nothing let time pass for {LONGEST_SECONDS} seconds"
    finally:
        ahead = held() - time.monotonic()
        loop.time = lambda: time.monotonic() + ahead  # type: ignore[method-assign]


@asynccontextmanager
async def time_running_out(faults: Faults, operation: str, seconds: float) -> AsyncIterator[None]:
    """Inside, time stands still but for `seconds` that pass whenever a request for `operation` has arrived.

    So a time limit of that length (5 at most: aiohttp rounds longer ones up) ends each call that hangs, and nothing
    else.
    """

    async def run_out() -> None:
        for count in itertools.count(faults.counts[operation] + 1):
            await faults.arrived(operation, count)
            held.advance(seconds)

    with held_time() as held:
        running_out = asyncio.create_task(run_out())
        try:
            yield
        finally:
            running_out.cancel()
