"""Connections that wait are accepted together, however long a turn of the event loop takes."""

import asyncio
import errno
import logging
import os
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from local_azure.certificates import LocalAuthority
from quart_app.serving import accepting
from quart_app.serving.accepting import AT_ONCE, AcceptingLoop

TURNS = 10
"""Of the event loop, from when a connection waits until its protocol has it; one by one uvloop needs 100 for 90."""

PATIENCE_SECONDS = 60.0


class _Accepted(asyncio.Protocol):
    def __init__(self, accepted: list[asyncio.Transport]) -> None:
        self._accepted = accepted

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        opened = cast("asyncio.Transport", transport)  # uvloop's are no `asyncio.Transport`
        self._accepted.append(opened)
        opened.write(b"good day")


def on_the_accepting_loop(main: Callable[[], Any]) -> None:
    with asyncio.Runner(loop_factory=AcceptingLoop) as runner:
        runner.run(asyncio.wait_for(main(), PATIENCE_SECONDS))


@contextmanager
def clients(address: Any, count: int) -> Iterator[list[socket.socket]]:
    """Connections that the kernel has made and nobody has accepted."""
    with ExitStack() as stack:
        made = [stack.enter_context(socket.create_connection(address)) for _ in range(count)]
        for client in made:
            client.setblocking(False)
        yield made


async def listening(
    accepted: list[asyncio.Transport], protocol: Callable[[], asyncio.Protocol] | None = None
) -> tuple[asyncio.AbstractServer, Any]:
    bound = socket.socket()
    bound.bind(("127.0.0.1", 0))
    address = bound.getsockname()
    loop = asyncio.get_running_loop()
    made = protocol or (lambda: _Accepted(accepted))
    return await loop.create_server(made, sock=bound, backlog=2 * AT_ONCE), address


async def received(client: socket.socket) -> bytes:
    return await asyncio.get_running_loop().sock_recv(client, 20)


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def test_all_connections_that_wait_are_accepted_within_a_few_turns_of_the_event_loop() -> None:
    async def main() -> None:
        accepted: list[asyncio.Transport] = []
        server, address = await listening(accepted)
        with clients(address, AT_ONCE - 10) as waiting:
            await turns(TURNS)
            assert len(accepted) == len(waiting)
            assert [await received(client) for client in waiting] == [b"good day"] * len(waiting)
            for transport in accepted:
                transport.abort()
        server.close()

    on_the_accepting_loop(main)


def test_once_closed_it_listens_no_more_and_leaves_connections_alone() -> None:
    async def main() -> None:
        accepted: list[asyncio.Transport] = []
        server, address = await listening(accepted)
        with clients(address, 1) as (client,):
            assert await received(client) == b"good day"
            server.close()
            server.close()
            await server.wait_closed()
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(address)
            accepted[0].write(b"again")
            assert await received(client) == b"again"
            accepted[0].abort()

    on_the_accepting_loop(main)


def test_without_descriptors_it_pauses_says_so_and_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(accepting, "PAUSE_SECONDS", 0.01)

    class Exhausted(socket.socket):
        refusals = 2

        def accept(self) -> tuple[socket.socket, Any]:
            if Exhausted.refusals:
                Exhausted.refusals -= 1
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            return super().accept()

    async def main() -> None:
        came = asyncio.Event()
        loop = asyncio.get_running_loop()

        class Coming(asyncio.Protocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                came.set()
                transport.close()

        bound = Exhausted()
        bound.bind(("127.0.0.1", 0))
        address = bound.getsockname()
        server = await loop.create_server(Coming, sock=bound)
        with clients(address, 1):
            await came.wait()
        server.close()

    on_the_accepting_loop(main)
    assert [record.getMessage() for record in caplog.records] == [
        "no connection can be accepted for 0.01 s: Too many open files"
    ] * 2


def test_a_connection_whose_protocol_fails_ends_is_told_and_the_next_one_is_served(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, "quart_app.serving.accepting")

    async def main() -> None:
        accepted: list[asyncio.Transport] = []
        failures = [RuntimeError("something of the caller's")]

        def protocol() -> asyncio.Protocol:
            if failures:
                raise failures.pop()
            return _Accepted(accepted)

        server, address = await listening(accepted, protocol)
        for said in (b"", b"good day"):
            with clients(address, 1) as (client,):
                assert await received(client) == said
        accepted[0].abort()
        server.close()

    on_the_accepting_loop(main)
    (told,) = [record.getMessage() for record in caplog.records if record.name == "quart_app.serving.accepting"]
    assert told == "a connection ended as it was opened: RuntimeError"


def test_the_server_knows_its_loop_and_is_run_by_nobody_else() -> None:
    async def main() -> None:
        server, _ = await listening([])
        assert server.get_loop() is asyncio.get_running_loop()
        with pytest.raises(NotImplementedError):
            await server.serve_forever()
        assert server.is_serving()
        server.close()

    on_the_accepting_loop(main)


def test_a_host_and_port_instead_of_a_socket_are_listened_on_too() -> None:
    async def main() -> None:
        accepted: list[asyncio.Transport] = []
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: _Accepted(accepted), "127.0.0.1", 0)
        with clients(server.sockets[0].getsockname(), 1) as (client,):
            assert await received(client) == b"good day"
        server.close()

    on_the_accepting_loop(main)


def test_a_socket_with_tls_speaks_tls(state_directory: Path) -> None:
    context = LocalAuthority(state_directory).server_context()

    async def main() -> None:
        bound = socket.socket()
        bound.bind(("127.0.0.1", 0))
        host, port = bound.getsockname()
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: _Accepted([]), sock=bound, ssl=context)
        trust = ssl.create_default_context()
        reader, writer = await asyncio.open_connection(host, port, ssl=trust, server_hostname="localhost")
        assert await reader.readexactly(len(b"good day")) == b"good day"
        writer.close()
        server.close()

    on_the_accepting_loop(main)
