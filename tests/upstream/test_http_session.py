"""How long connections live, and which requests get one of their own."""

import asyncio
from collections.abc import AsyncIterator, Callable

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from tests.conftest import FakeClock
from upstream import http_session
from upstream.http_session import MAXIMUM_AGE_SECONDS, drop_connections, new_http_session

Ask = Callable[[], "asyncio.Task[int]"]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    clock = FakeClock(1000.0)
    monkeypatch.setattr(http_session, "monotonic", clock)
    return clock


class Server:
    """Answers with the number of the connection, from 1; while `may_answer` is cleared it does not."""

    def __init__(self) -> None:
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.arrived = asyncio.Event()
        self.numbers: dict[object, int] = {}

    async def answer(self, request: web.Request) -> web.Response:
        number = self.numbers.setdefault(request.transport, len(self.numbers) + 1)
        self.arrived.set()
        await self.may_answer.wait()
        return web.Response(text=str(number))


@pytest.fixture
async def server() -> AsyncIterator[tuple[Server, str]]:
    numbering = Server()
    application = web.Application()
    application.router.add_get("/", numbering.answer)
    async with TestServer(application) as running:
        yield numbering, str(running.make_url("/"))
        numbering.may_answer.set()


async def number(session: aiohttp.ClientSession, url: str) -> int:
    async with session.get(url) as answer:
        return int(await answer.text())


async def test_a_connection_is_used_again_until_its_maximum_age_however_busy_it_is(
    server: tuple[Server, str], clock: FakeClock
) -> None:
    async with new_http_session() as session:
        numbers = []
        for _ in range(14):
            numbers.append(await number(session, server[1]))
            clock.advance(MAXIMUM_AGE_SECONDS / 10)
    assert numbers == [1] * 11 + [2] * 3


@pytest.mark.parametrize("age", [0.0, 1.0])
async def test_when_an_upstream_has_moved_idle_connections_are_dropped_and_busy_ones_after_their_answer(
    server: tuple[Server, str], clock: FakeClock, age: float
) -> None:
    numbering, url = server
    async with new_http_session() as session:
        assert await number(session, url) == 1
        numbering.may_answer.clear()
        numbering.arrived.clear()
        busy = asyncio.create_task(number(session, url))
        await numbering.arrived.wait()
        clock.advance(age)
        drop_connections(session)
        clock.advance(0.001)
        numbering.may_answer.set()
        assert await busy == 1
        assert [await number(session, url) for _ in range(2)] == [2, 2]
        drop_connections(session)
        clock.advance(0.001)
        assert await number(session, url) == 3


async def test_a_session_that_is_closed_meanwhile_has_no_connections_to_drop() -> None:
    async with new_http_session() as session:
        pass
    drop_connections(session)
    assert session.closed


async def test_connections_that_only_a_burst_needed_stay_idle_afterwards(server: tuple[Server, str]) -> None:
    numbering, url = server
    numbering.may_answer.clear()
    async with new_http_session() as session:
        burst = [asyncio.create_task(number(session, url)) for _ in range(5)]
        while len(numbering.numbers) < len(burst):
            numbering.arrived.clear()
            await numbering.arrived.wait()
        numbering.may_answer.set()
        assert sorted(await asyncio.gather(*burst)) == [1, 2, 3, 4, 5]
        assert len({await number(session, url) for _ in range(10)}) == 1


async def test_a_request_that_can_not_be_repeated_gets_a_fresh_connection(server: tuple[Server, str]) -> None:
    async with new_http_session(keep=False) as session:
        assert [await number(session, server[1]) for _ in range(3)] == [1, 2, 3]


async def test_requests_have_their_turns_in_the_order_in_which_they_came(server: tuple[Server, str]) -> None:
    _, url = server
    served: list[int] = []

    async def ask_again_and_again(session: aiohttp.ClientSession) -> None:
        for request in range(3):
            await number(session, url)
            served.append(request)

    async with new_http_session(2) as session:
        await asyncio.gather(*(ask_again_and_again(session) for _ in range(6)))
    assert served == sorted(served)
