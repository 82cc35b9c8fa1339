"""What is noted of the requests of one call."""

from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from upstream.exchanges import Exchange, noting
from upstream.http_session import new_http_session


@pytest.fixture
async def server() -> AsyncIterator[TestServer]:
    """Answers with the headers that its query names."""

    async def answer(request: web.Request) -> web.Response:
        return web.Response(status=202, headers=dict(request.query))

    application = web.Application()
    application.router.add_get("/", answer)
    running = TestServer(application)
    async with running:
        yield running


async def exchanged(server: TestServer, *headers: dict[str, str]) -> Exchange:
    async with new_http_session() as session:
        with noting() as exchange:
            for each in headers:
                async with session.get(server.make_url("/"), params=each):
                    pass
    return exchange


@pytest.mark.parametrize(
    ("text", "charge"), [("2.5", 2.5), ("0", 0.0), *((bad, None) for bad in ("inf", "nan", "-1", "x"))]
)
async def test_a_charge_is_a_number_of_request_units(server: TestServer, text: str, charge: float | None) -> None:
    assert (await exchanged(server, {"x-ms-request-charge": text})).charge == charge


async def test_the_charges_of_all_requests_count_and_the_last_answer(server: TestServer) -> None:
    answers: list[dict[str, str]] = [
        {"x-ms-request-charge": "1", "x-ms-substatus": "3200"},
        {},
        {"x-ms-request-charge": "2"},
    ]
    exchange = await exchanged(server, *answers)
    assert (exchange.charge, exchange.status, exchange.sub_status) == (3.0, 202, None)
    assert (exchange.method, exchange.scheme, exchange.host, exchange.port) == ("GET", "http", server.host, server.port)


@pytest.mark.parametrize(("text", "sub_status"), [("1002", 1002), ("", None), ("-1", None), ("1.5", None)])
async def test_a_sub_status_is_a_whole_number(server: TestServer, text: str, sub_status: int | None) -> None:
    assert (await exchanged(server, {"x-ms-substatus": text})).sub_status == sub_status
