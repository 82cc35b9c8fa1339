"""What the event loop reports and nobody awaits: only errors are passed on to the operator."""

import asyncio
from typing import Any


def report(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """An exception handler for `loop`; see `asyncio.loop.call_exception_handler` for `context`."""
    if not _is_a_connection_that_ended(context.get("exception")):
        loop.default_exception_handler(context)


def _is_a_connection_that_ended(error: BaseException | None) -> bool:
    # Python 3.11's streams report every connection that is cut at the end of the drain time as an error of their own.
    # uvloop writes to a TLS connection that was closed meanwhile: https://github.com/MagicStack/uvloop/issues/506
    closed = isinstance(error, RuntimeError) and str(error).endswith("the handler is closed")
    return closed or isinstance(error, asyncio.CancelledError)
