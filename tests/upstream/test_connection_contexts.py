"""Whose context a connection to an upstream is made in: nobody's."""

import asyncio
import gc
import socket
import weakref
from collections.abc import Iterator
from contextvars import ContextVar

import aiohttp
import pytest
import uvloop

from upstream.http_session import new_http_session

TURNS = 30
"""More than a connection takes from its beginning to the middle of its TLS handshake."""


class AccessToken:
    """Something of a caller that must not outlive the caller's request."""


_caller: ContextVar[AccessToken] = ContextVar("caller")


@pytest.fixture
def silent_port() -> Iterator[int]:
    """Of a listener whose kernel accepts connections and that never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=2 * TURNS) as listener:
        yield listener.getsockname()[1]


def test_a_cancelled_handshake_keeps_nothing_of_the_caller(silent_port: int) -> None:
    async def call(session: aiohttp.ClientSession) -> None:
        _caller.set(token := AccessToken())
        tokens.append(weakref.ref(token))
        del token
        async with session.get(f"https://127.0.0.1:{silent_port}/"):
            pass

    async def cancelled_after(turns: int, session: aiohttp.ClientSession) -> None:
        calling = asyncio.create_task(call(session))
        for _ in range(turns):
            await asyncio.sleep(0)
        calling.cancel()
        await asyncio.wait({calling})

    async def main() -> None:
        async with new_http_session() as session:
            for turns in range(1, TURNS):
                await cancelled_after(turns, session)
            for _ in range(TURNS):
                await asyncio.sleep(0)
            gc.collect()
            kept = [number for number, token in enumerate(tokens) if token() is not None]
            assert (len(tokens), kept) == (TURNS - 1, [])

    tokens: list[weakref.ref[AccessToken]] = []
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
