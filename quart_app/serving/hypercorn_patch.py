"""What Hypercorn 0.18 lets nobody configure. This reaches into it, so its version is capped.

Connections end when their client ends them. Hypercorn holds each connection's keep-alive timer in the connection's task
group, and stops it only after that group has ended. So a connection that its client closed stays, with three tasks and
12 KiB, until an idle one would be closed: whoever opens and closes connections fast enough takes all memory.

That timer is one of the event loop's. Hypercorn's is two tasks, made after each answer and ended before the next
request is looked at. That takes several turns of the event loop, which are what a request waits for while the process
is busy (`quart_app.web.overload`); so does the task in which Python 3.11's `wait_for` reads.

Requests that can't be read are answered in the service's own form. Hypercorn answers them with a status only.

Clients that stop reading are let go after `STALLED_SECONDS` without progress. Hypercorn waits for them without end.

There is no HTTP/2 without TLS: no client needs it, and Hypercorn has no limit on streams that are opened and reset.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Any, cast

import h11
import hypercorn.protocol
from hypercorn.asyncio import run
from hypercorn.asyncio.tcp_server import MAX_RECV, TCPServer
from hypercorn.asyncio.worker_context import EventWrapper, WorkerContext
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol.h11 import H11Protocol

Headers = list[tuple[bytes, bytes]]

STALLED_SECONDS = 5.0
"""How long a client may take for each `_PIECE_BYTES` of an answer."""

_PIECE_BYTES = 64 * 1024


class Termination(EventWrapper):
    """Set when the server stops; calls each of `on_set` then."""

    def __init__(self) -> None:
        super().__init__()
        self.on_set: set[Callable[[], None]] = set()

    async def set(self) -> None:
        """Say that the server stops."""
        await super().set()
        for call in tuple(self.on_set):
            call()


class TellingContext(WorkerContext):
    """What the connections of a server know of it."""

    def __init__(self, max_requests: int | None) -> None:
        super().__init__(max_requests)
        self.terminated = Termination()


class IdleTimer:
    """Calls `expire` when the connection has been idle for `seconds`, or the server stops while it is idle."""

    def __init__(self, seconds: float, termination: Termination, expire: Callable[[], None]) -> None:
        self._seconds = seconds
        self._termination = termination
        self._expire = expire
        self._timer: asyncio.Handle | None = None

    async def restart(self, *_: object) -> None:
        """The connection is idle from now on. (Hypercorn says how to wait; that is not needed.)"""
        await self.stop()
        loop = asyncio.get_running_loop()
        if self._termination.is_set():
            self._timer = loop.call_soon(self._expire)
        else:
            self._timer = loop.call_later(self._seconds, self._expire)
            self._termination.on_set.add(self._expire)

    async def stop(self) -> None:
        """It is not idle any more."""
        self._termination.on_set.discard(self._expire)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class PromptTCPServer(TCPServer):
    """Stops the keep-alive timer when its client ends the connection."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        termination = cast("Termination", self.context.terminated)
        self.idle_task = IdleTimer(self.config.keep_alive_timeout, termination, self._end_idle)  # type: ignore[assignment]

    async def protocol_send(self, event: Event) -> None:
        """Carry out what the protocol asks for; no timer is started for a client that has gone."""
        if isinstance(event, RawData):
            async with self.send_lock:
                await self._write(event.data)
            return
        if isinstance(event, Updated) and event.idle and self.reader.at_eof():
            return
        await super().protocol_send(event)

    async def _write(self, data: bytes) -> None:
        try:
            for start in range(0, len(data), _PIECE_BYTES):
                self.writer.write(data[start : start + _PIECE_BYTES])
                if self.writer.transport.get_write_buffer_size() >= _PIECE_BYTES:  # below that nothing would wait
                    async with asyncio.timeout(STALLED_SECONDS):
                        await self.writer.drain()
        except TimeoutError:
            self.writer.transport.abort()
            await self.protocol.handle(Closed())
        except (ConnectionError, RuntimeError):
            await self.protocol.handle(Closed())

    async def _close(self) -> None:
        # A client whose host vanished: Hypercorn expects only some of the errors that this raises.
        with suppress(OSError):
            await super()._close()

    async def _read_data(self) -> None:
        while not self.reader.at_eof():
            try:
                async with asyncio.timeout(self.config.read_timeout):
                    data = await self.reader.read(MAX_RECV)
            except (OSError, TimeoutError):
                break
            await self.protocol.handle(RawData(data))
        await self.protocol.handle(Closed())
        await self.idle_task.stop()

    def _end_idle(self) -> None:
        self._task_group.spawn(self._initiate_server_close)


def patch_hypercorn(refusal: Callable[[int], tuple[Headers, bytes]]) -> None:
    """Change Hypercorn for the whole process, because it takes neither as an argument.

    `refusal` gives the headers and the body of the answer with a status to a request that can't be read.
    """

    class RefusingH11Protocol(H11Protocol):
        async def _check_protocol(self, event: h11.Request) -> None:
            """Serve a request that asks for HTTP/2 by HTTP/1.1 (RFC 9110, section 7.8: an upgrade may be ignored)."""

        async def _send_error_response(self, status_code: int) -> None:
            headers, body = refusal(status_code)
            framing = [(b"content-length", str(len(body)).encode()), (b"connection", b"close")]
            await self._send_h11_event(h11.Response(status_code=status_code, headers=[*headers, *framing]))
            await self._send_h11_event(h11.Data(data=body))
            await self._send_h11_event(h11.EndOfMessage())

    run.TCPServer = PromptTCPServer  # type: ignore[attr-defined,assignment]
    run.WorkerContext = TellingContext  # type: ignore[attr-defined]
    hypercorn.protocol.H11Protocol = RefusingH11Protocol  # type: ignore[attr-defined]
