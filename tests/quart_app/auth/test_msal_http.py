"""The HTTP client that MSAL is given: how long it waits."""

import asyncio
from contextlib import suppress

import pytest

from quart_app.auth.on_behalf_of.errors import OnBehalfOfUnavailable
from quart_app.auth.on_behalf_of.msal_http import HttpClient
from tests.support.held_time import held_time

DROPS = 100
"""More than fit into the time for an answer, so that a client without one would read to the end."""


async def test_an_answer_that_comes_drop_by_drop_holds_no_thread_for_long() -> None:
    sent, over = 0, asyncio.Event()

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % DROPS)
        with held_time() as held:
            while sent < DROPS and not reader.at_eof():
                writer.write(b"x")
                sent += 1
                held.advance(0.9)  # less than the silence that ends a call
                for _ in range(20):  # turns of the event loop: the client reads, and its timers run
                    await asyncio.sleep(0)
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()
        over.set()

    client = HttpClient(1, 1)
    async with await asyncio.start_server(drip, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        with pytest.raises(OnBehalfOfUnavailable):
            await asyncio.to_thread(client.get, f"http://{host}:{port}/")
        await client.aclose()
        await over.wait()
    assert sent < 10
