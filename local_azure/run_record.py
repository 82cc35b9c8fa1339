"""What runs on a state directory: one run at a time, and the ports where the other commands find it."""

import contextlib
import dataclasses
import json
import os
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from local_azure.environment import Ports

_LOCK = "run.lock"
_RECORD = "run.json"


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A run: its process id and the stand-ins' ports."""

    process: int
    ports: Ports


class AlreadyRunning(Exception):
    """Another run holds the state directory; the message says which, and what to do."""


@contextlib.contextmanager
def only_run(directory: Path) -> Iterator[None]:
    """Hold the state directory, which is made if needed. Raises `AlreadyRunning`, `OSError`."""
    directory.mkdir(parents=True, exist_ok=True)
    with _locked(directory):
        try:
            yield
        finally:
            (directory / _RECORD).unlink(missing_ok=True)


def require_no_run(directory: Path) -> None:
    """Raise `AlreadyRunning` if a run holds the state directory; nothing is made there."""
    if (directory / _LOCK).exists():
        with _locked(directory):
            pass


def write_record(directory: Path, ports: Ports) -> None:
    """Let other commands find this process's stand-ins."""
    record = RunRecord(os.getpid(), ports)
    (directory / _RECORD).write_text(json.dumps(dataclasses.asdict(record)), encoding="utf-8")


def read_record(directory: Path) -> RunRecord | None:
    """The run that recorded itself last and did not end, as far as the record tells; `None` without one."""
    try:
        content = json.loads((directory / _RECORD).read_text(encoding="utf-8"))
        return RunRecord(content["process"], Ports(**content["ports"]))
    except (OSError, ValueError, KeyError, TypeError):  # none, or half written: the caller uses the default ports
        return None


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    # The lock is SQLite's: every platform has it, and it ends with its process, however that ends.
    with contextlib.closing(sqlite3.connect(directory / _LOCK, isolation_level=None, timeout=0)) as lock:
        try:
            lock.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
                raise OSError(f"{directory / _LOCK} can't be locked: {error}") from error
            raise AlreadyRunning(_refusal(directory)) from error
        yield


def _refusal(directory: Path) -> str:
    record = read_record(directory)
    which = "" if record is None else f" (process {record.process})"
    return (
        f"The stand-ins already run on {directory}{which}: use them, stop them first, or give this run a directory of "
        "its own with --state-dir."
    )
