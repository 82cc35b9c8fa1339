"""The file that an export writes: it appears in one step at the end, and a run can continue after an interruption.

Until then the rows are in FILE.partial, and FILE.position says how many bytes of it count and which page follows. A run
that is killed at any moment leaves both, so that the next one cuts off what was written since, and continues.
"""

import asyncio
import dataclasses
import errno
import json
import os
from pathlib import Path
from typing import Any

from quart_app.operations.exporting import ExportCounts, ExportProgress

_NO_LINK = getattr(os, "O_NOFOLLOW", 0)  # Windows has no such flag


class NotResumable(Exception):
    """What an earlier run left can't be continued; the message says what to do."""


class ExportFile:
    """Fulfils `Destination`. All three files have mode 0600, because they name users.

    `options` tells what is exported and how: an earlier run must have had the same.
    """

    def __init__(self, path: Path, options: dict[str, str | bool]) -> None:
        """Raises `OSError`, and `NotResumable`."""
        if path.is_symlink() or (path.exists() and not path.is_file()):
            raise OSError(errno.EINVAL, "It is not a plain file")
        self._path = path
        self._partial = path.with_name(f"{path.name}.partial")
        self._position = path.with_name(f"{path.name}.position")
        self._options = options
        size, self.progress = self._left()
        descriptor = os.open(self._partial, os.O_RDWR | os.O_CREAT | _NO_LINK, 0o600)
        self._file = os.fdopen(descriptor, "r+b")
        self._file.truncate(size)
        self._file.seek(size)

    async def write(self, text: str) -> None:
        """See `Destination.write`."""
        await asyncio.to_thread(self._file.write, text.encode(errors="backslashreplace"))

    async def reached(self, progress: ExportProgress) -> None:
        """See `Destination.reached`."""
        await asyncio.to_thread(self._note, progress)

    async def finish(self) -> None:
        """See `Destination.finish`."""
        await asyncio.to_thread(self._finish)

    def _note(self, progress: ExportProgress) -> None:
        self._sync()  # first: a position is never ahead of the rows
        position = {
            "options": self._options,
            "size": self._file.tell(),
            "following": progress.following,
            "counts": dataclasses.asdict(progress.counts),
        }
        new = self._position.with_name(f"{self._position.name}.new")
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | _NO_LINK, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(position, file)
        new.replace(self._position)

    def _finish(self) -> None:
        self._sync()
        self._file.close()
        self._partial.replace(self._path)
        self._position.unlink(missing_ok=True)

    def close(self) -> None:
        """Close what is open; what was written stays for the next run."""
        self._file.close()

    def _sync(self) -> None:
        self._file.flush()
        os.fsync(self._file.fileno())

    def _left(self) -> tuple[int, ExportProgress]:
        """How many bytes of an earlier run count, and how far it has come."""
        if not self._position.exists() or not self._partial.exists():
            return 0, ExportProgress()
        try:
            position: Any = json.loads(self._position.read_text(encoding="utf-8"))
            options, size, following = position["options"], int(position["size"]), str(position["following"])
            counts = ExportCounts(**{name: int(count) for name, count in position["counts"].items()})
        except (ValueError, KeyError, TypeError, AttributeError):
            raise NotResumable(f"{self._position} can't be read. {self._begin_anew}") from None
        if options != self._options:
            raise NotResumable(
                f"Another export was started in {self._partial}: run it again with its options. {self._begin_anew}"
            )
        if self._partial.stat().st_size < size:
            raise NotResumable(f"{self._partial} is shorter than {self._position} says. {self._begin_anew}")
        return size, ExportProgress(following, counts)

    @property
    def _begin_anew(self) -> str:
        return f"To start afresh, remove {self._position}."
