"""Reads every log line of a whole test run, and fails the test in which one told a token, a secret or who a user is."""

import logging
import re
import traceback

_TELLING = {
    "a token": re.compile(r"eyJ[\w-]{10,}\.[\w-]{10,}\."),
    "an ACS id": re.compile(r"8(:|%3A)acs(:|%3A)[0-9a-f]{8}-", re.IGNORECASE),
    "an ACS access key": re.compile(r"accesskey=", re.IGNORECASE),
}


class LogCheck(logging.Handler):
    """Takes the records of this process before anything is cut out of them, and the output of child processes.

    `known` holds what must not be told besides: object ids, secrets.
    """

    def __init__(self) -> None:
        super().__init__()
        self.known: set[str] = set()
        self._lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep everything that any formatter could write of the record."""
        parts = [record.getMessage(), repr(record.__dict__)]
        if record.exc_info:
            parts += traceback.format_exception(*record.exc_info)
        self.read(" ".join(parts))

    def read(self, text: str) -> None:
        """Keep the text until the end of the test."""
        self._lines.append(text)

    def told(self) -> list[str]:
        """What the lines since the last call told, each as a kind and the line; forgets the lines."""
        lines, self._lines = self._lines, []
        found = [f"{kind}: {line}" for line in lines for kind, pattern in _TELLING.items() if pattern.search(line)]
        return found + [f"a known secret: {line}" for line in lines for secret in self.known if secret in line]
