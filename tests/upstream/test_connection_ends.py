"""How a connection that is not used again ends: at once, whatever the other side does."""

import asyncio
import gc
import ssl
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from socket import create_server

import aiohttp
import pytest

from local_azure.environment import LocalAzure
from upstream.http_session import drop_connections, new_http_session

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Made:
    """Stands for a connection's protocol."""

    aborted = False

    def abort(self) -> None:
        self.aborted = True


@contextmanager
def deaf_after_answering(context: ssl.SSLContext) -> Iterator[int]:
    """The port of a server that answers one request over TLS and then reads nothing, not even the end of TLS."""
    over = threading.Event()

    def answer() -> None:
        accepted, _ = listener.accept()
        with context.wrap_socket(accepted, server_side=True) as connection:
            connection.recv(65536)
            connection.sendall(ANSWER)
            over.wait()

    with create_server(("127.0.0.1", 0)) as listener:
        answering = threading.Thread(target=answer)
        answering.start()
        try:
            yield listener.getsockname()[1]
        finally:
            over.set()
            answering.join()


@pytest.mark.parametrize("how", ["not kept", "dropped", "left before the end"])
async def test_nothing_is_left_of_it_when_the_event_loop_ends(local_azure: LocalAzure, how: str) -> None:
    async def call(port: int) -> None:
        async with new_http_session(keep=how != "not kept") as session:
            async with session.get(f"https://localhost:{port}/") as answer:
                if how != "left before the end":
                    assert await answer.text() == "ok"
            if how == "dropped":
                drop_connections(session)

    def in_an_event_loop_of_its_own() -> list[str]:
        with deaf_after_answering(local_azure.authority.server_context()) as port:
            with warnings.catch_warnings(record=True) as told:
                warnings.simplefilter("always")
                asyncio.run(call(port))
                gc.collect()
            return [str(warning.message) for warning in told]

    assert await asyncio.to_thread(in_an_event_loop_of_its_own) == []


@pytest.mark.parametrize("turns", range(5))
@pytest.mark.parametrize("error", [None, OSError("refused")])
async def test_one_whose_caller_leaves_while_it_is_made_or_just_afterwards_is_closed(
    monkeypatch: pytest.MonkeyPatch, turns: int, error: OSError | None
) -> None:
    made: list[Made] = []

    async def make(*_: object) -> Made:
        await asyncio.sleep(0)
        if error is not None:
            raise error
        made.append(Made())
        return made[-1]

    monkeypatch.setattr(aiohttp.TCPConnector, "_create_connection", make)
    told: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    async with new_http_session() as session:
        assert session.connector is not None
        calling = asyncio.create_task(session.connector._create_connection(*[None] * 3))  # type: ignore[arg-type]
        for _ in range(turns):
            await asyncio.sleep(0)
        calling.cancel()
        await asyncio.wait({calling})
        await asyncio.sleep(0)
    assert calling.cancelled() == (turns < 4)
    if not calling.cancelled():
        assert calling.exception() is error
    assert [protocol.aborted for protocol in made] == [calling.cancelled()] * len(made)
    assert len(made) == (turns > 2 and error is None)
    gc.collect()
    assert told == []
