"""Overload of the CPU: how late the process runs, and who is still served then.

Places (`quart_app.web.limits`) never fill while it is the CPU that is short: tokens are judged without waiting for
anybody, so a flood only makes every request wait for its turns in the event loop. That wait is measured and bounded
here.

The measure comes late: a wait is known only when it is over. Refusing only by it would let hundreds in together each
time that it is short, and they would then wait for each other. So it also says how many may be served at once
(`Room`), as TCP does for packets (RFC 5681, section 3.1). And refusing is work as well, which gets a share of each turn
(`TurnLimit`).
"""

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable

PERIOD_SECONDS = 0.05
TURNS = 10
"""About as many turns of the event loop as a request takes that waits for nothing else."""

READINGS = 3
STRANGERS_SECONDS = 0.25
KNOWN_SECONDS = 1.0

SHRINKS_TO = 0.7
GROWS_BY = 2
SMALLEST_ROOM = 8


class Room:
    """How many requests may be served at once: fewer with each reading above `late_seconds`, else a few more each time.

    There is no bound until it is late for the first time; from then on it grows with each reading that is not.
    """

    def __init__(self, late_seconds: float) -> None:
        self._late_seconds = late_seconds
        self._size = math.inf
        self._most = 0

    def holds(self, serving: int) -> bool:
        """Whether there is a place for one more than `serving`."""
        self._most = max(self._most, serving)
        return serving < self._size

    def adapt(self, seconds: float) -> None:
        """The process was found late by so many seconds."""
        if seconds <= self._late_seconds:
            self._size += GROWS_BY
        elif self._most:
            self._size = max(SMALLEST_ROOM, SHRINKS_TO * min(self._size, self._most))
        self._most = 0


class TurnLimit:
    """Lets at most `each` go on in one turn of the event loop, in the order in which they came."""

    def __init__(self, each: int) -> None:
        self._each = each
        self._left = each
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def turn(self) -> None:
        """Go on, in this turn of the event loop or in a later one."""
        loop = asyncio.get_running_loop()
        if self._left == self._each:
            loop.call_soon(self._begin)
        if self._left:
            self._left -= 1
            return
        waiting = loop.create_future()
        self._waiting.append(waiting)
        await waiting

    def _begin(self) -> None:
        """The next turn has begun."""
        self._left = self._each
        while self._left and self._waiting:
            waiting = self._waiting.popleft()
            if not waiting.done():  # else its client has gone
                waiting.set_result(None)
                self._left -= 1
        if self._left < self._each:
            asyncio.get_running_loop().call_soon(self._begin)


class Lateness:
    """How long a request now waits for its turns in the event loop, in seconds.

    A task takes `TURNS` turns again and again; the least of its last `READINGS` readings counts: a single pause, such
    as one of the garbage collector or of the platform's CPU quota, is no overload. `clock` is monotonic, in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._readings = deque([0.0] * READINGS, maxlen=READINGS)
        self._measuring: asyncio.Task[None] | None = None
        # It shrinks at half of the wait at which no stranger is let in any more, so that known callers hardly wait.
        # They have no such room of their own: whoever is refused comes again, which would be a flood of its own.
        self._strangers = Room(STRANGERS_SECONDS / 2)
        self.seconds = 0.0

    def start(self) -> None:
        """Measure from now on, in the running event loop."""
        self._measuring = asyncio.create_task(self._go_on(), name="measure how late the process runs")

    async def aclose(self) -> None:
        """Measure no more."""
        if self._measuring is not None:
            self._measuring.cancel()
            await asyncio.wait({self._measuring})

    def admits(self, is_known: Callable[[], bool], *, strangers: int = 0) -> bool:
        """Whether a request is served now: up to `STRANGERS_SECONDS` each is, up to `KNOWN_SECONDS` a known caller's.

        `strangers` are those being served of whom it is not known, or not yet, who they are; there must be room for
        one more. `is_known` is asked only when that decides.
        """
        has_room = self._strangers.holds(strangers)
        if self.seconds > KNOWN_SECONDS:
            return False
        return (has_room and self.seconds <= STRANGERS_SECONDS) or is_known()

    def note(self, seconds: float) -> None:
        """A request that came just now would have waited for so long."""
        self._readings.append(seconds)
        self.seconds = min(self._readings)
        self._strangers.adapt(self.seconds)

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
