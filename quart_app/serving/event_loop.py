"""Which event loop the service runs on: uvloop where it exists, which it does not for Windows, else asyncio's own."""

import asyncio
from collections.abc import Callable


def event_loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """What makes the loop, for `asyncio.Runner`."""
    try:
        import uvloop  # noqa: F401
    except ImportError:
        return asyncio.new_event_loop
    from quart_app.serving.accepting import AcceptingLoop

    return AcceptingLoop
