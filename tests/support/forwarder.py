"""An address that moves: what a name leads to, before and after a failover."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress


class Forwarder:
    """Hands each new connection on to `target`, a port on loopback; those that stand stay where they are.

    `connections` counts them by target. Made by `forwarding`.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = 0
        self.connections: dict[int, int] = {}
        self._open: set[asyncio.StreamWriter] = set()

    def cut(self) -> None:
        """Break every connection that stands, without a farewell."""
        for writer in self._open:
            writer.transport.abort()

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        target = self.target
        self.connections[target] = self.connections.get(target, 0) + 1
        onward_reader, onward_writer = await asyncio.open_connection("127.0.0.1", target)
        ends = {writer, onward_writer}
        self._open |= ends
        try:
            await asyncio.gather(_copy(reader, onward_writer), _copy(onward_reader, writer))
        finally:
            self._open -= ends
            for end in ends:
                end.transport.abort()


@asynccontextmanager
async def forwarding(target: int) -> AsyncIterator[Forwarder]:
    """A forwarder on a port of its own, ended at the end."""
    forwarder = Forwarder(target)
    server = await asyncio.start_server(forwarder.accept, "127.0.0.1", 0)
    forwarder.port = server.sockets[0].getsockname()[1]
    try:
        yield forwarder
    finally:
        server.close()
        forwarder.cut()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while piece := await reader.read(65536):
            writer.write(piece)
            await writer.drain()
    writer.transport.abort()
