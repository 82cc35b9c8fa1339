"""What Hypercorn 0.18 lets nobody configure. This reaches into it, so its version is capped.

Connections end when their client ends them. Hypercorn holds each connection's keep-alive timer in the connection's task
group, and stops it only after that group has ended. So a connection that its client closed stays, with three tasks and
12 KiB, until an idle one would be closed: whoever opens and closes connections fast enough takes all memory.

Requests that can't be read are answered in the service's own form. Hypercorn answers them with a status only.

Clients that stop reading are let go after `STALLED_SECONDS` without progress. Hypercorn waits for them without end.

There is no HTTP/2 without TLS: no client needs it, and Hypercorn has no limit on streams that are opened and reset.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress

import h11
import hypercorn.protocol
from hypercorn.asyncio import run
from hypercorn.asyncio.tcp_server import TCPServer
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.protocol.h11 import H11Protocol

Headers = list[tuple[bytes, bytes]]

STALLED_SECONDS = 5.0
"""For each `_PIECE_BYTES` of an answer to be taken."""

_PIECE_BYTES = 64 * 1024


class PromptTCPServer(TCPServer):
    """Stops the keep-alive timer when its client ends the connection."""

    async def protocol_send(self, event: Event) -> None:
        """Carry out what the protocol wants; no timer is started for a client that has gone."""
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
                if self.writer.transport.get_write_buffer_size():
                    async with asyncio.timeout(STALLED_SECONDS):
                        await self.writer.drain()
        except TimeoutError:
            self.writer.transport.abort()
            await self.protocol.handle(Closed())
        except (ConnectionError, RuntimeError):
            await self.protocol.handle(Closed())

    async def _close(self) -> None:
        # A client whose host vanished: Hypercorn expects only some of the errors that this is.
        with suppress(OSError):
            await super()._close()

    async def _read_data(self) -> None:
        await super()._read_data()
        await self.idle_task.stop()


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

    run.TCPServer = PromptTCPServer  # type: ignore[attr-defined]
    hypercorn.protocol.H11Protocol = RefusingH11Protocol  # type: ignore[attr-defined]
