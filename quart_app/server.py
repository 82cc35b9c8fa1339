"""Serving: Hypercorn run from here, one process, drained on SIGTERM, a start-up failure told in one sentence."""

import asyncio
import errno
import logging
import signal
import socket

import hypercorn.asyncio
import uvloop
from hypercorn.config import Config

from quart_app.app import create_app
from quart_app.settings import ServerSettings, Settings
from storage.mapping import StoreError

DRAIN_SECONDS = 25
KEEP_ALIVE_SECONDS = 300  # longer than the 240 s after which Azure's ingress closes idle connections
MAXIMUM_HEADER_BYTES = 64 * 1024  # room for a token that is too large, so that it gets its 401


class StartUpFailed(Exception):
    """The service can't start; the message says why and what to do."""


def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT, then finish what is in flight, for `DRAIN_SECONDS` at most.

    Raises `StartUpFailed`.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(settings))


async def _serve(settings: Settings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop.set)
    try:
        # Before anything else is opened: a busy port must not leave half-made connections behind.
        bound = _bind(settings.server)
        async with create_app(settings) as app:
            serving = asyncio.create_task(
                hypercorn.asyncio.serve(app, _config(bound), shutdown_trigger=stop.wait), name="serve"
            )
            stopping = asyncio.create_task(stop.wait(), name="await a signal")
            await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
            stopping.cancel()
            # Hypercorn's own graceful_timeout does not bound the wait for open connections on Python 3.12 and later.
            await asyncio.wait({serving}, timeout=DRAIN_SECONDS)
            if not serving.done():
                serving.cancel()
                await asyncio.wait({serving})
            if not serving.cancelled():
                serving.result()
    except StoreError as error:
        raise StartUpFailed(f"The mapping store can't be used: {error}") from error
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        port = settings.server.port
        raise StartUpFailed(f"Port {port} is taken by another program; stop it or set PORT to a free port.") from error


def _bind(server: ServerSettings) -> socket.socket:
    """Take the port; connections are refused until Hypercorn listens."""
    family, *_ = socket.getaddrinfo(server.host, server.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    bound = socket.socket(family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((server.host, server.port))
    except OSError:
        bound.close()
        raise
    return bound


def _config(bound: socket.socket) -> Config:
    config = Config()
    config.bind = [f"fd://{bound.detach()}"]
    config.include_server_header = False
    config.graceful_timeout = DRAIN_SECONDS
    config.keep_alive_timeout = KEEP_ALIVE_SECONDS
    config.h11_max_incomplete_size = MAXIMUM_HEADER_BYTES
    config.accesslog = None
    config.errorlog = logging.getLogger("hypercorn.error")
    return config
