"""What a measured call learns of its HTTP requests: which host was asked last, and what it answered."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import aiohttp


@dataclass(slots=True)
class Exchange:
    """The last request of a call, and the charge of all of them. Hosts hold no ids of users, so no path is kept.

    status      `None` as long as there is no answer
    sub_status  Cosmos DB's, which says more than the status
    charge      in request units of Cosmos DB, `None` where there are none
    """

    method: str = ""
    scheme: str = ""
    host: str | None = None
    port: int | None = None
    status: int | None = None
    sub_status: int | None = None
    charge: float | None = None


@contextmanager
def noting() -> Iterator[Exchange]:
    """Requests that are sent inside, also in tasks that are started there, are noted in what this gives."""
    exchange = Exchange()
    reset = _current.set(exchange)
    try:
        yield exchange
    finally:
        _current.reset(reset)


async def note_exchange(request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """The middleware of every session that notes its requests for the call that sends them."""
    exchange = _current.get()
    if exchange is None:
        return await send(request)
    exchange.method, exchange.scheme = request.method, request.url.scheme
    exchange.host, exchange.port = request.url.host, request.url.port
    exchange.status = exchange.sub_status = None
    response = await send(request)
    exchange.status = response.status
    # https://learn.microsoft.com/rest/api/cosmos-db/common-cosmosdb-rest-response-headers
    sub_status = response.headers.get("x-ms-substatus", "")
    exchange.sub_status = int(sub_status) if sub_status.isascii() and sub_status.isdecimal() else None
    charge = _number(response.headers.get("x-ms-request-charge"))
    if charge is not None:
        exchange.charge = (exchange.charge or 0.0) + charge
    return response


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None


_current: ContextVar[Exchange | None] = ContextVar("exchange", default=None)
