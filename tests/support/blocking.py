"""Fails a test in which code of the service blocks the event loop: sleeps, opens a file, looks up a name.

It listens to Python's audit events (https://docs.python.org/3/library/audit_events.html). The library for this,
blockbuster, needs a package without ready-made files, which the set-up must not need.
"""

import asyncio
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent

BLOCKING = frozenset(
    {"time.sleep", "open", "socket.connect", "socket.getaddrinfo", "subprocess.Popen", "sqlite3.connect"}
)

# Only while a part is opened, before the first request: files of certificates and of /docs are read, and azure-cosmos
# asks the system for its name.
_OPENING = {
    "quart_app/acs/client.py": {"__init__"},
    "quart_app/app.py": {"create_app", "_wire"},
    "quart_app/auth/on_behalf_of/credentials.py": {"msal_credential"},
    "quart_app/telemetry/opentelemetry.py": {"exporting", "azure_monitor", "otlp"},
    "storage/cosmos.py": {"open_cosmos_store", "connect"},
    "storage/graph.py": {"open_graph_store"},
    "upstream/http_session.py": {"new_http_session"},
}

# Modules are loaded when they are first needed; a traceback reads the lines that it shows.
_HARMLESS = ("<frozen importlib", "linecache.py", "traceback.py")


class BlockingError(Exception):
    """Code of ours blocked the event loop."""


@contextmanager
def event_loop_guarded() -> Iterator[None]:
    """Inside, a call that blocks the event loop raises `BlockingError`. Commands serve nobody and may block."""
    really_sleep = time.sleep

    def sleep(seconds: Any) -> None:
        sys.audit("time.sleep", seconds)  # Python does it itself only since 3.13
        really_sleep(seconds)

    _guard.active, time.sleep = True, sleep
    try:
        yield
    finally:
        _guard.active, time.sleep = False, really_sleep


class _Guard:
    """The audit hook of this process: it can't be removed, only rest."""

    def __init__(self) -> None:
        self.active = False
        sys.addaudithook(self.hear)

    def hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.active or event not in BLOCKING or asyncio._get_running_loop() is None:
            return
        if event == "socket.connect" and arguments[0].gettimeout() == 0:
            return
        if _is_in_our_code(sys._getframe(1)):
            raise BlockingError(f"{event} blocks the event loop")


def _is_in_our_code(frame: Any) -> bool:
    ours = False
    while frame is not None:
        file, function = frame.f_code.co_filename, frame.f_code.co_name
        if file.startswith(_HARMLESS[0]) or file.endswith(_HARMLESS[1:]):
            return False
        path = file.removeprefix(f"{ROOT}/")
        if path.startswith(("quart_app/", "storage/", "upstream/")):
            if path.startswith("quart_app/cli/") or function in _OPENING.get(path, ()):
                return False
            ours = True
        frame = frame.f_back
    return ours


_guard = _Guard()
