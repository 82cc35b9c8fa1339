"""Overload of the CPU: how late the process runs, and who is still served then.

Places (`quart_app.web.limits`) never fill while the CPU is what lacks: tokens are judged without waiting for anybody,
so a flood only makes every request wait for its turns in the event loop. That wait is measured and bounded here.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable

PERIOD_SECONDS = 0.05
TURNS = 10
"""About as many turns of the event loop as a request takes that waits for nothing else."""

READINGS = 3
STRANGERS_SECONDS = 0.25
KNOWN_SECONDS = 1.0


class Lateness:
    """How long a request now waits for its turns in the event loop, in seconds.

    A task takes `TURNS` turns again and again; the least of its last `READINGS` readings counts: a single pause, such
    as one of the garbage collector or of the platform's CPU quota, is no overload. `clock` is monotonic, in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._readings = deque([0.0] * READINGS, maxlen=READINGS)
        self._measuring: asyncio.Task[None] | None = None
        self.seconds = 0.0

    def start(self) -> None:
        """Measure from now on, in the running event loop."""
        self._measuring = asyncio.create_task(self._go_on(), name="measure how late the process runs")

    async def aclose(self) -> None:
        """Measure no more."""
        if self._measuring is not None:
            self._measuring.cancel()
            await asyncio.wait({self._measuring})

    def admits(self, is_known: Callable[[], bool]) -> bool:
        """Whether a request is served now: up to `STRANGERS_SECONDS` each is, up to `KNOWN_SECONDS` a known caller's.

        `is_known` is asked only when that decides.
        """
        return self.seconds <= STRANGERS_SECONDS or (self.seconds <= KNOWN_SECONDS and is_known())

    def note(self, seconds: float) -> None:
        """A request that came just now would have waited for so long."""
        self._readings.append(seconds)
        self.seconds = min(self._readings)

    async def measure(self) -> None:
        """Take `TURNS` turns and note how long that took."""
        began = self._clock()
        for _ in range(TURNS):
            await asyncio.sleep(0)
        self.note(self._clock() - began)

    async def _go_on(self) -> None:
        while True:
            await asyncio.sleep(PERIOD_SECONDS)
            await self.measure()
