"""Serving: Hypercorn run from here, one process, drained on SIGTERM, a start-up failure reported in one sentence."""

import asyncio
import errno
import gc
import logging
import socket
import sys
from contextlib import AsyncExitStack

import hypercorn.asyncio
from hypercorn.config import Config
from quart import Quart

from quart_app.acs.retirement import CHAT_RETIRES, WHAT_TO_DO, concerns_chat
from quart_app.app import create_app
from quart_app.serving.event_loop import event_loop_factory
from quart_app.serving.hypercorn_patch import patch_hypercorn
from quart_app.serving.loop_errors import report
from quart_app.serving.starting import Front, opened
from quart_app.serving.stopping import Stopping
from quart_app.settings import ServerSettings, Settings
from quart_app.telemetry.opening import open_telemetry
from quart_app.web.errors import refusal_by_the_server
from storage.mapping import StoreError
from upstream.errors import UpstreamError, told

logger = logging.getLogger(__name__)

DRAIN_SECONDS = 10.0
"""For requests in flight. By default one may take this long."""

CLOSING_SECONDS = 5.0
"""For what outlives requests, such as the making of an identity, and for closing connections."""

TELEMETRY_SECONDS = 3.0
"""For sending the last traces and metrics."""

STARTING_SECONDS = 60.0
"""How long a start is repeated while its trouble is only passing; the platform's probe waits longer."""

KEEP_ALIVE_SECONDS = 300  # longer than the 240 s after which Azure's ingress closes idle connections
SILENCE_SECONDS = KEEP_ALIVE_SECONDS + 10  # also ends connections on which a request was begun and never finished
WAITING_CONNECTIONS = 1024  # during one turn of the event loop; of more than these the kernel silently drops some
MAXIMUM_HEADER_BYTES = 64 * 1024  # room for a token that is too large, so that it gets its 401


class StartUpFailed(Exception):
    """The service can't start; the message says why and what to do."""


def run(
    settings: Settings, *, drain_seconds: float = DRAIN_SECONDS, starting_seconds: float = STARTING_SECONDS
) -> None:
    """Serve until one of `stopping.SIGNALS`; then stop in stages, within one deadline.

    Serve on for `SHUTDOWN_DELAY_SECONDS`, finish what is in flight for `drain_seconds` at most, close within
    `CLOSING_SECONDS`, send telemetry within `TELEMETRY_SECONDS`. A second signal ends the process at once.

    A start whose trouble is only passing is repeated for `starting_seconds`. Raises `StartUpFailed`.
    """
    patch_hypercorn(refusal_by_the_server)
    delay = settings.server.shutdown_delay_seconds
    stopping = Stopping(delay + drain_seconds + CLOSING_SECONDS + TELEMETRY_SECONDS + 2 * _CANCEL_SECONDS)
    with asyncio.Runner(loop_factory=event_loop_factory()) as runner:
        runner.run(_serve(settings, stopping, drain_seconds, starting_seconds))


async def _serve(settings: Settings, stopping: Stopping, drain_seconds: float, starting_seconds: float) -> None:
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(report)
    stopping.listen(loop)
    telemetry_stack, application_stack = AsyncExitStack(), AsyncExitStack()
    try:
        # Before anything else is opened: a busy port must not leave half-made connections behind.
        server = _Server(_bind(settings.server), settings.server.shutdown_delay_seconds, drain_seconds, stopping)
        if concerns_chat(settings.issued_scopes):
            logger.warning("%s %s", CHAT_RETIRES, WHAT_TO_DO)
        telemetry = await telemetry_stack.enter_async_context(open_telemetry(settings.telemetry))
        app = await opened(
            lambda: create_app(settings, telemetry, stopping.signalled),
            application_stack,
            stopping,
            server.listen,
            starting_seconds,
        )
        if app is None:
            stopping.end_within(_CANCEL_SECONDS)
            server.cut()
            return
        _spare_the_garbage_collector()
        await server.serve(app)
    except StoreError as error:
        raise StartUpFailed(f"The mapping store can't be used: {told(error)}") from error
    except UpstreamError as error:
        raise StartUpFailed(f"The service can't start: {told(error)}") from error
    finally:
        await _within(CLOSING_SECONDS, application_stack)
        await _within(TELEMETRY_SECONDS, telemetry_stack)


class _Server:
    """Hypercorn on the port `bound`, stopped `delay` seconds after the signal."""

    def __init__(self, bound: socket.socket, delay: float, drain_seconds: float, stopping: Stopping) -> None:
        self._bound = bound
        self._delay = delay
        self._drain_seconds = drain_seconds
        self._stopping = stopping
        self._front = Front()
        self._serving: asyncio.Task[None] | None = None

    def listen(self) -> None:
        """Begin to listen, unless that is done; until `serve`, everybody is told that the service is starting."""
        if self._serving is None:
            config = _config(self._bound, self._drain_seconds)
            self._serving = asyncio.create_task(
                hypercorn.asyncio.serve(self._front, config, shutdown_trigger=self._told_to_stop, mode="asgi"),
                name="serve",
            )

    async def serve(self, app: Quart) -> None:
        """Serve `app` until the process is told to stop and what was in flight is finished."""
        self._front.application = app
        self.listen()
        assert self._serving is not None  # noqa: S101 (listen)
        waiting = asyncio.create_task(self._told_to_stop(), name="await a signal")
        await asyncio.wait({self._serving, waiting}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        await _drained(self._serving, self._drain_seconds)

    def cut(self) -> None:
        """Stop listening at once."""
        if self._serving is not None:
            self._serving.cancel()

    async def _told_to_stop(self) -> None:
        await self._stopping.signalled.wait()
        await asyncio.sleep(self._delay)  # requests still come, until the balancer has learned of it


async def _within(seconds: float, resources: AsyncExitStack) -> None:
    """Close `resources`, and leave what takes longer than `seconds`."""
    closing = asyncio.create_task(resources.aclose(), name="close")
    await asyncio.wait({closing}, timeout=seconds)
    if closing.done():
        return closing.result()
    logger.warning("closing took longer than %g s; what was left is cut", seconds)
    closing.cancel()
    return None


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

    A full collection would stop all requests for as long as it looks at them (docs/contribute/performance-lab.md). A
    request makes thousands of objects and hardly a cycle, so it is enough to look at the new ones after so many. But a
    request whose client leaves makes many cycles, and lives long enough to grow old with them: so the old ones are
    looked at soon, too. Only what is being served is old and not frozen, and that is little.
    """
    gc.freeze()
    gc.set_threshold(_NEW_OBJECTS, _YOUNGER_PASSES, _YOUNGER_PASSES)
    gc.enable()


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
            if sys.platform != "win32":  # there it would let two programs listen on one port
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
            return f"Port {server.port} needs privileges that this process does not have; set PORT to one above 1023."
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
    config.backlog = WAITING_CONNECTIONS
    config.accesslog = None
    config.errorlog = logging.getLogger("hypercorn.error")
    return config


_CANCEL_SECONDS = 1.0
_NEW_OBJECTS = 20_000
_YOUNGER_PASSES = 2
"""After so many passes over a generation of objects, the next one looks at the older one, too. Python's usual ten
let a million objects of requests whose clients left pile up, 150 MiB, with half of `_NEW_OBJECTS` (`soak leaving`)."""
