"""Finishes in the background what could not be finished during a request."""

import asyncio
import contextvars
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ReconcilerOptions:
    """When the reconciler tries again: after `first_pause` seconds, then twice as long each time up to `longest_pause`.

    `attempts` bounds how often it tries before it rests until the next `wake`; `sleep` waits for a number of seconds.
    """

    first_pause: float = 1.0
    longest_pause: float = 60.0
    attempts: int = 200
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


class Reconciler:
    """Calls `reconcile` after growing pauses until it says that nothing is left.

    It runs in the context in which it was made, so no request's deadline or caller applies to it.
    """

    def __init__(self, reconcile: Callable[[], Awaitable[int]], options: ReconcilerOptions) -> None:
        self._reconcile = reconcile
        self._options = options
        self._context = contextvars.copy_context()
        self._task: asyncio.Task[None] | None = None

    def wake(self) -> None:
        """Begin, unless it is already at work."""
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), context=self._context)

    async def aclose(self) -> None:
        """Stop."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _run(self) -> None:
        left = 0
        for attempt in range(self._options.attempts):
            await self._options.sleep(min(self._options.first_pause * 2.0**attempt, self._options.longest_pause))
            left = await self._reconcile()
            if not left:
                return
        logger.error("identities are left pending", extra={"count": left})
