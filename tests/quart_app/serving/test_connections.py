"""What becomes of connections whose clients go away."""

import asyncio
import errno
import socket

import pytest
from quart import Quart
from quart.typing import TestClientProtocol as Client

from quart_app.serving import hypercorn_patch
from tests.quart_app.conftest import Bearer
from tests.support.running_service import served

PATIENCE_SECONDS = 60.0


async def connection(address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, _, port = address.removeprefix("http://").partition(":")
    return await asyncio.open_connection(host, int(port))


REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.mark.parametrize("requests", [0, 1, 3])
async def test_a_connection_that_its_client_closed_leaves_nothing_behind(requests: int) -> None:
    app = Quart(__name__)

    @app.get("/")
    async def answer() -> str:
        return "answer"

    async def come_and_go(address: str, requests: int) -> None:
        reader, writer = await connection(address)
        for _ in range(requests):
            writer.write(REQUEST)
            await reader.readuntil(b"answer")
        writer.close()
        await writer.wait_closed()

    async with served(app) as address, asyncio.timeout(PATIENCE_SECONDS):
        await come_and_go(address, 1)
        known = asyncio.all_tasks()  # the server's own, and perhaps some of the first connection
        for _ in range(5):
            await come_and_go(address, requests)
        # Each ends far sooner than an idle connection would be closed.
        while left := asyncio.all_tasks() - known:
            await asyncio.wait(left)


def test_a_client_that_stops_reading_has_seconds_not_minutes() -> None:
    assert 1 <= hypercorn_patch.STALLED_SECONDS <= 10


async def test_a_client_that_stops_reading_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hypercorn_patch, "STALLED_SECONDS", 0.01)
    app = Quart(__name__)
    arrived = asyncio.Event()

    @app.get("/small")
    async def small() -> str:
        return ""

    @app.get("/")
    async def large() -> bytes:
        arrived.set()
        return b"x" * 64_000_000

    async with served(app) as address, asyncio.timeout(PATIENCE_SECONDS):
        reader, writer = await connection(address)
        writer.write(b"GET /small HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        await reader.read()
        writer.close()
        known = asyncio.all_tasks()  # the server's own
        with socket.socket() as client:
            client.setblocking(False)
            host, _, port = address.removeprefix("http://").partition(":")
            await asyncio.get_running_loop().sock_connect(client, (host, int(port)))
            await asyncio.get_running_loop().sock_sendall(client, REQUEST)
            await arrived.wait()
            while left := asyncio.all_tasks() - known:
                await asyncio.wait(left)


async def test_a_request_with_a_length_and_chunks_is_the_last_of_its_connection(client: Client, bearer: Bearer) -> None:
    both = {"Content-Length": "5", "Transfer-Encoding": "chunked"}
    answer = await client.get("/api/user", headers={**bearer("alex"), **both})
    assert answer.headers["Connection"] == "close"
    one = await client.get("/api/user", headers={**bearer("alex"), "Content-Length": "0"})
    assert "Connection" not in one.headers


@pytest.mark.parametrize("number", [errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ETIMEDOUT])
async def test_a_client_whose_host_vanishes_is_no_error(
    number: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    app = Quart(__name__)
    closed = asyncio.Event()
    real = asyncio.StreamWriter.wait_closed

    async def vanished(writer: asyncio.StreamWriter) -> None:
        await real(writer)
        closed.set()
        raise OSError(number, "the host is gone")

    @app.get("/")
    async def answer() -> str:
        return "here"

    async with served(app) as address:
        reader, writer = await connection(address)
        writer.write(REQUEST)
        assert b" 200 " in await reader.readline()
        monkeypatch.setattr(asyncio.StreamWriter, "wait_closed", vanished)
        writer.transport.abort()
        async with asyncio.timeout(PATIENCE_SECONDS):
            await closed.wait()
        monkeypatch.undo()
    assert [record for record in caplog.records if record.levelname not in ("DEBUG", "INFO")] == []
