"""Standard error for logs: its reader may stop reading, and nobody waits for it."""

import os
import select
import sys
import threading
from collections import deque
from collections.abc import Callable

LONGEST_QUEUE = 10_000  # lines


class LogStream:
    """A stream whose `write` never blocks. Make one for each process.

    While the reader keeps up, a line goes out at once. When it doesn't, and on Windows always, lines are queued and
    written in the background, in order; beyond `longest_queue` they are dropped and counted, and reported once the
    reader continues.
    """

    def __init__(self, descriptor: int, longest_queue: int = LONGEST_QUEUE) -> None:
        self.dropped = 0
        self._descriptor = descriptor
        self._longest_queue = longest_queue
        self._queue: deque[bytes] = deque()
        self._untold = 0
        self._changed = threading.Condition()
        self._can_be_written = _can_be_written(descriptor)
        self._writer: threading.Thread | None = None

    def write(self, text: str) -> int:
        """Take one line, or some lines."""
        line = text.encode(errors="backslashreplace")
        with self._changed:
            if not self._queue and self._writer is None and self._wrote_at_once(line):
                return len(text)
            if len(self._queue) < self._longest_queue:
                self._queue.append(line)
            else:
                self.dropped += 1
                self._untold += 1
            if self._writer is None:
                self._writer = threading.Thread(target=self._write_queued, name="write queued log lines", daemon=True)
                self._writer.start()
        return len(text)

    def flush(self) -> None:
        """There is nothing to do: what can be written is written."""

    def isatty(self) -> bool:
        """Whether a person reads."""
        return os.isatty(self._descriptor)

    def drain(self, seconds: float) -> bool:
        """Wait until all is written, for so many seconds at most; whether it is."""
        with self._changed:
            return self._changed.wait_for(lambda: self._writer is None, seconds)

    def _wrote_at_once(self, line: bytes) -> bool:
        return self._can_be_written(len(line)) and self._written(line)

    def _written(self, line: bytes) -> bool:
        """Whether there is nothing left to do; a reader that is gone, or a full disk, is no reason to stop serving."""
        try:
            while line:
                line = line[os.write(self._descriptor, line) :]
        except OSError:
            self.dropped += 1
        return True

    def _write_queued(self) -> None:
        while True:
            with self._changed:
                if self._queue:
                    line = self._queue.popleft()
                elif self._untold:
                    line = f"{self._untold} log lines were dropped, because nobody read them in time.\n".encode()
                    self._untold = 0
                else:
                    self._writer = None
                    self._changed.notify_all()
                    return
            self._written(line)


def _can_be_written(descriptor: int) -> Callable[[int], bool]:
    """What tells whether so many bytes can be written at once, without waiting; on Windows nobody knows."""
    if sys.platform == "win32" or not hasattr(select, "poll"):
        return lambda _: False
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    # A pipe that can be written to takes PIPE_BUF bytes at once:
    # https://pubs.opengroup.org/onlinepubs/9799919799/functions/write.html
    return lambda length: length <= select.PIPE_BUF and any(event & select.POLLOUT for _, event in poll.poll(0))
