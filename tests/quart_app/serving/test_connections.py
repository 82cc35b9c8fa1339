"""What becomes of connections whose clients go away."""

import asyncio

import pytest
from quart import Quart

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
