"""What answers until the application is open, which may take a few tries."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any

from quart import Quart

from quart_app.serving.stopping import Stopping
from quart_app.web.errors import refusal_while_starting
from upstream.errors import UpstreamError, is_transient, told

logger = logging.getLogger(__name__)

_FIRST_PAUSE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 10.0
_CANCEL_SECONDS = 0.5
_JSON = (b"content-type", b"application/json")
_PROBES = {"/health/live": (200, b'{"status":"ok"}'), "/health/startup": (503, b'{"status":"starting"}')}


class Front:
    """The ASGI application that the server knows: says that the service is starting until `application` is set."""

    def __init__(self) -> None:
        self.application: Quart | None = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """See https://asgi.readthedocs.io/en/latest/specs/main.html."""
        match scope["type"]:
            case "lifespan":
                await _live(receive, send)
            case _ if self.application is not None:
                await self.application(scope, receive, send)
            case "http":
                await _say_starting(scope["path"], send)
            case _:
                await send({"type": "websocket.close", "code": 1013, "reason": None})


async def opened(
    application: Callable[[], AbstractAsyncContextManager[Quart]],
    stack: AsyncExitStack,
    stopping: Stopping,
    on_trouble: Callable[[], None],
    seconds: float,
) -> Quart | None:
    """The open application, which `stack` closes; `None` if the process is told to stop before.

    Trouble that is only passing is reported, and opening is tried again for `seconds`; `on_trouble` is called each
    time. Raises the `UpstreamError` that can't pass, or the last one.
    """
    clock = asyncio.get_running_loop().time
    until, pause = clock() + seconds, _FIRST_PAUSE_SECONDS
    while True:
        opening = asyncio.create_task(stack.enter_async_context(application()), name="open the application")
        if not await _done_before_the_signal(opening, stopping):
            opening.cancel()
            await asyncio.wait({opening}, timeout=_CANCEL_SECONDS)
            if opening.done() and not opening.cancelled():
                opening.exception()  # retrieved, so that asyncio does not report it
            return None
        try:
            return opening.result()
        except UpstreamError as error:
            if not is_transient(error) or clock() + pause > until:
                raise
            logger.warning("not started yet, tried again in %g s: %s", pause, told(error))
        on_trouble()
        resting = asyncio.create_task(asyncio.sleep(pause), name="wait before the next try")
        if not await _done_before_the_signal(resting, stopping):
            resting.cancel()
            return None
        pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)


async def _done_before_the_signal(task: asyncio.Task[Any], stopping: Stopping) -> bool:
    signalled = asyncio.create_task(stopping.signalled.wait(), name="await a signal")
    await asyncio.wait({task, signalled}, return_when=asyncio.FIRST_COMPLETED)
    signalled.cancel()
    return task.done()


async def _live(receive: Any, send: Any) -> None:
    while True:
        event = (await receive())["type"]
        await send({"type": f"{event}.complete"})
        if event == "lifespan.shutdown":
            return


async def _say_starting(path: str, send: Any) -> None:
    if path in _PROBES:
        (status, body), headers = _PROBES[path], [_JSON]
    else:
        status, (headers, body) = 503, refusal_while_starting()
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
