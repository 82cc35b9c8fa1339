"""An event loop whose servers accept every connection that waits, not one a turn.

libuv, and with it uvloop, accepts one connection each turn of the event loop since 1.45
(https://github.com/libuv/libuv/pull/3696). While the process is busy a turn takes tens of milliseconds, so new
connections would wait for many seconds in the kernel's queue, known callers' too, where nothing measures the wait and
nobody refuses them: see `quart_app.web.overload`.
"""

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import Any

import uvloop

logger = logging.getLogger(__name__)

AT_ONCE = 100
"""Connections each turn: turns have to stay short, so that those already connected get theirs, too."""

PAUSE_SECONDS = 1.0
"""While no connection can be accepted, for want of file descriptors or memory."""


class AcceptingLoop(uvloop.Loop):
    """uvloop's event loop with servers that accept up to `AT_ONCE` connections a turn."""

    async def create_server(  # type: ignore[override]
        self,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        host: Any = None,
        port: Any = None,
        *,
        sock: socket.socket | None = None,
        backlog: int = 100,
        **options: Any,
    ) -> asyncio.AbstractServer:
        """Listen. Everything but a bound socket without TLS is left to uvloop's own server."""
        if sock is None or options.get("ssl") is not None:
            return await super().create_server(protocol_factory, host, port, sock=sock, backlog=backlog, **options)
        return _Listener(self, protocol_factory, sock, backlog)


class _Listener(asyncio.AbstractServer):
    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        protocol_factory: Callable[[], asyncio.BaseProtocol],
        listening: socket.socket,
        backlog: int,
    ) -> None:
        self._loop = loop
        self._protocol_factory = protocol_factory
        self._listening = listening
        self._opening: set[asyncio.Task[None]] = set()
        self._resuming: asyncio.TimerHandle | None = None
        listening.setblocking(False)
        listening.listen(backlog)
        self._resume()

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """The event loop."""
        return self._loop

    def is_serving(self) -> bool:
        """Whether it listens."""
        return self._listening.fileno() != -1

    async def start_serving(self) -> None:
        """It serves from the beginning."""

    async def serve_forever(self) -> None:
        """Not needed here: Hypercorn decides how long."""
        raise NotImplementedError

    def close(self) -> None:
        """Accept no more; what was accepted goes on."""
        if not self.is_serving():
            return
        if self._resuming is not None:
            self._resuming.cancel()
        self._loop.remove_reader(self._listening)
        self._listening.close()

    async def wait_closed(self) -> None:
        """There is nothing to wait for: connections belong to whoever serves them."""

    def _resume(self) -> None:
        self._loop.add_reader(self._listening, self._accept)

    def _accept(self) -> None:
        for _ in range(AT_ONCE):
            try:
                connection, _ = self._listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                logger.warning("no connection can be accepted for %g s: %s", PAUSE_SECONDS, error.strerror)
                self._loop.remove_reader(self._listening)
                self._resuming = self._loop.call_later(PAUSE_SECONDS, self._resume)
                return
            connection.setblocking(False)
            opening = self._loop.create_task(self._open(connection), name="open a connection")
            self._opening.add(opening)
            opening.add_done_callback(self._opening.discard)

    async def _open(self, connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._protocol_factory, connection)
        except Exception as error:
            connection.close()
            logger.debug("a connection ended as it was opened: %s", type(error).__name__)
