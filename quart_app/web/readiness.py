"""Readiness: a cached background check of what the service depends on. It never writes and no request waits for it."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping

from upstream.errors import told

logger = logging.getLogger(__name__)

Check = Callable[[], Awaitable[None]]
"""Returns when the part works; raises any exception when it does not."""


class Readiness:
    """Runs every check each `interval` seconds, giving each `timeout` seconds. Start it, close it after use.

    Once `stop` is set nothing is ready.
    """

    def __init__(
        self,
        checks: Mapping[str, Check],
        interval: float = 10,
        timeout: float = 3,
        stop: asyncio.Event | None = None,
    ) -> None:
        self._checks = checks
        self._interval = interval
        self._timeout = timeout
        self._states: dict[str, bool] = {}
        self._background: asyncio.Task[None] | None = None
        self._stop = stop or asyncio.Event()

    def start(self) -> None:
        """Check now and again every `interval`, in the background."""
        self._background = asyncio.create_task(self._check_regularly(), name="check readiness")

    async def aclose(self) -> None:
        """Stop checking."""
        if self._background is not None:
            self._background.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._background

    @property
    def checked(self) -> bool:
        """Whether every part has been checked at least once."""
        return len(self._states) == len(self._checks)

    @property
    def ready(self) -> bool:
        """Whether every part worked when it was last checked, and the process is not about to stop."""
        return not self._stop.is_set() and self.checked and all(self._states.values())

    def states(self) -> dict[str, str]:
        """The last state of each part: `ok`, `unavailable`, or `unknown` before the first check."""
        words = {True: "ok", False: "unavailable", None: "unknown"}
        return {name: words[self._states.get(name)] for name in self._checks}

    async def check(self) -> None:
        """Check every part now, all at once."""
        results = await asyncio.gather(*(self._works(name, check) for name, check in self._checks.items()))
        self._states = dict(zip(self._checks, results, strict=True))

    async def _check_regularly(self) -> None:
        while True:
            await self.check()
            await asyncio.sleep(self._interval)

    async def _works(self, name: str, check: Check) -> bool:
        try:
            async with asyncio.timeout(self._timeout):
                await check()
        except TimeoutError:
            reason = f"No answer within {self._timeout:g} s."
        except Exception as error:  # a check may fail in any way: that is what it is for
            reason = told(error)
        else:
            return True
        logger.warning("not ready: %s: %s", name, reason)
        return False
