"""Fails a test in which code of the service blocks the event loop: waits for a file, a socket, a lock or a process."""

from collections.abc import Iterator
from contextlib import contextmanager

from blockbuster import BlockBuster

# Only while a part is opened, before the first request: files of certificates and of /docs are read, and azure-cosmos
# asks the system for its name. OpenTelemetry holds a lock for the time of adding to a queue or a sum.
_OPENING = {
    "quart_app/acs_communication.py": {"__init__"},
    "quart_app/app.py": {"create_app", "_wire"},
    "quart_app/auth/on_behalf_of.py": {"_msal_credential"},
    "quart_app/telemetry_export.py": {"exporting", "azure_monitor", "otlp", "serving", "_call", "retried"},
    "storage/cosmos.py": {"open_cosmos_store", "connect"},
    "storage/graph.py": {"open_graph_store"},
    "storage/http_session.py": {"new_http_session"},
}


@contextmanager
def event_loop_guarded() -> Iterator[None]:
    """Inside, a call that blocks the event loop raises `BlockingError`. Commands serve nobody and may block."""
    guard = BlockBuster(["quart_app", "storage"], excluded_modules=["quart_app.cli"])
    for function in guard.functions.values():
        for file, names in _OPENING.items():
            function.can_block_in(file, names)
    guard.activate()
    try:
        yield
    finally:
        guard.deactivate()
