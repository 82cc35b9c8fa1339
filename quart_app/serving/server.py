"""Serving: Hypercorn run from here, one process, drained on SIGTERM, a start-up failure told in one sentence."""

import asyncio
import errno
import gc
import logging
import signal
import socket
from typing import Any

import hypercorn.asyncio
import uvloop
from hypercorn.config import Config
from quart import Quart, Response, request

from quart_app.app import create_app
from quart_app.serving.hypercorn_patch import patch_hypercorn
from quart_app.settings import ServerSettings, Settings
from quart_app.web.errors import refusal_by_the_server
from storage.mapping import StoreError
from upstream.errors import UpstreamError, told

logger = logging.getLogger(__name__)

DRAIN_SECONDS = 15.0
"""Longer than a request may take by default; with what closing takes, still under a platform's usual 30 seconds."""

KEEP_ALIVE_SECONDS = 300  # longer than the 240 s after which Azure's ingress closes idle connections
SILENCE_SECONDS = KEEP_ALIVE_SECONDS + 10  # ends also connections on which a request was begun and never finished
MAXIMUM_HEADER_BYTES = 64 * 1024  # room for a token that is too large, so that it gets its 401


class StartUpFailed(Exception):
    """The service can't start; the message says why and what to do."""


def run(settings: Settings, *, drain_seconds: float = DRAIN_SECONDS) -> None:
    """Serve until SIGTERM or SIGINT, then finish what is in flight, for `drain_seconds` at most.

    Raises `StartUpFailed`.
    """
    patch_hypercorn(refusal_by_the_server)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(settings, drain_seconds))


async def _serve(settings: Settings, drain_seconds: float) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(_report)
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop.set)
    try:
        # Before anything else is opened: a busy port must not leave half-made connections behind.
        bound = _bind(settings.server)
        async with create_app(settings) as app:
            _spare_the_garbage_collector()
            _close_connections_after(stop, app)
            config = _config(bound, drain_seconds)
            serving = asyncio.create_task(
                hypercorn.asyncio.serve(app, config, shutdown_trigger=stop.wait),
                name="serve",
            )
            stopping = asyncio.create_task(stop.wait(), name="await a signal")
            await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            await _drained(serving, drain_seconds)
    except StoreError as error:
        raise StartUpFailed(f"The mapping store can't be used: {told(error)}") from error
    except UpstreamError as error:
        raise StartUpFailed(f"The service can't start: {told(error)}") from error


async def _drained(serving: asyncio.Task[None], seconds: float) -> None:
    """Wait for `serving`, and end it if it takes longer than `seconds`.

    Hypercorn's own graceful_timeout is not enough: on Python 3.12 and later asyncio's servers wait for every open
    connection before it begins, and a client that stopped reading holds up the closing of its connection.
    """
    await asyncio.wait({serving}, timeout=seconds + _CANCEL_SECONDS)
    if serving.done():
        return serving.result()
    logger.warning("connections were still open at the end of the drain time; they are cut")
    serving.cancel()
    await asyncio.wait({serving}, timeout=_CANCEL_SECONDS)
    if serving.done() and not serving.cancelled():
        serving.exception()  # retrieved, so that asyncio does not report it
    return None


def _spare_the_garbage_collector() -> None:
    """Exclude from garbage collection what the start made and the process keeps, hundreds of thousands of objects.

    A full collection would stop all requests for as long as it looks at them (docs/performance.md). A request makes
    thousands of objects and hardly a cycle, so it is enough to look at the new ones after so many.
    """
    gc.freeze()
    gc.set_threshold(_NEW_OBJECTS)
    gc.enable()


def _report(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    # Python 3.11's streams report every connection that is cut at the end of the drain time as an error of their own.
    if not isinstance(context.get("exception"), asyncio.CancelledError):
        loop.default_exception_handler(context)


def _close_connections_after(stop: asyncio.Event, app: Quart) -> None:
    """While draining, tell HTTP/1 clients that their connection ends, so that no request is sent on it any more."""

    @app.after_request
    async def close(response: Response) -> Response:
        if stop.is_set() and request.http_version.startswith("1"):
            response.headers["Connection"] = "close"
        return response


def _bind(server: ServerSettings) -> socket.socket:
    """Take the port; connections are refused until Hypercorn listens. Raises `StartUpFailed`."""
    try:
        found = socket.getaddrinfo(server.host, server.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        raise StartUpFailed(
            f"HOST={server.host} is a name that can't be resolved; set an address of this machine, or 0.0.0.0."
        ) from error
    family, _, _, _, address = found[0]
    try:
        bound = socket.socket(family, socket.SOCK_STREAM)
        try:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(address)
        except OSError:
            bound.close()
            raise
    except OSError as error:
        raise StartUpFailed(_why_not_bound(server, error)) from error
    bound.setblocking(False)
    return bound


def _why_not_bound(server: ServerSettings, error: OSError) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return f"Port {server.port} is taken by another program; stop it or set PORT to a free port."
        case errno.EACCES:
            return f"Port {server.port} needs privileges that this process has not; set PORT to one above 1023."
        case _:
            reason = error.strerror
            return f"HOST={server.host} can't be listened on ({reason}); set an address of this machine, or 0.0.0.0."


def _config(bound: socket.socket, drain_seconds: float) -> Config:
    config = Config()
    config.bind = [f"fd://{bound.detach()}"]
    config.include_server_header = False
    config.graceful_timeout = drain_seconds
    config.keep_alive_timeout = KEEP_ALIVE_SECONDS
    config.read_timeout = SILENCE_SECONDS
    config.h11_max_incomplete_size = MAXIMUM_HEADER_BYTES
    config.h2_max_header_list_size = MAXIMUM_HEADER_BYTES
    config.accesslog = None
    config.errorlog = logging.getLogger("hypercorn.error")
    return config


_CANCEL_SECONDS = 1.0
_NEW_OBJECTS = 10_000
