"""How the process is told to stop, and the one deadline for all that it still does then."""

import asyncio
import logging
import os
import signal
import threading

logger = logging.getLogger(__name__)

SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP", "SIGINT", "SIGBREAK") if hasattr(signal, name))
"""Those by which the process is told to stop: Windows has no SIGHUP, and SIGBREAK (Ctrl-Break) is its own."""


class Stopping:
    """`signalled` is set by one of `SIGNALS`. The process ends `seconds` after that at the latest.

    A second signal ends it at once. What is left to the operating system's threads, such as looking up a name, can't be
    interrupted and would hold up the exit of Python: that is why the process is ended rather than left to end.
    """

    def __init__(self, seconds: float) -> None:
        self.signalled = asyncio.Event()
        self._seconds = seconds

    def listen(self, loop: asyncio.AbstractEventLoop) -> None:
        """Take the signals from now on, in the running event loop."""
        for number in SIGNALS:
            try:
                loop.add_signal_handler(number, self._told, number)
            except NotImplementedError:  # asyncio's loop on Windows
                signal.signal(number, lambda told, _: loop.call_soon_threadsafe(self._told, signal.Signals(told)))

    def end_within(self, seconds: float) -> None:
        """End the process in so many seconds, whatever it does then."""
        timer = threading.Timer(seconds, _end)
        timer.daemon = True
        timer.start()

    def _told(self, number: signal.Signals) -> None:
        if self.signalled.is_set():
            logger.warning("a second signal: what was in flight is cut")
            os._exit(128 + number)
        self.signalled.set()
        self.end_within(self._seconds)


def _end() -> None:
    logger.warning("the stop was not finished in time; what was left is cut")
    os._exit(0)
