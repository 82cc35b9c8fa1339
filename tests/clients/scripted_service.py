"""A service that answers what a test says, for what the real one answers only in trouble."""

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer


@dataclass(slots=True)
class Scripted:
    """`requests` are what arrived, `times` when, in seconds since the epoch."""

    address: str = ""
    requests: list[str] = field(default_factory=list)
    times: list[float] = field(default_factory=list)


@asynccontextmanager
async def scripted(status: int, body: Any, headers: Mapping[str, str] | None = None) -> AsyncIterator[Scripted]:
    """Answers every request in the same way, as JSON unless `body` is text."""
    script = Scripted()

    async def answer(request: web.Request) -> web.Response:
        script.requests.append(f"{request.method} {request.path}")
        script.times.append(time.time())
        if isinstance(body, str):
            return web.Response(status=status, text=body, headers=headers)
        return web.json_response(body, status=status, headers=headers)

    application = web.Application()
    application.router.add_route("*", "/{path:.*}", answer)
    async with TestServer(application) as server:
        script.address = str(server.make_url("/")).rstrip("/")
        yield script


def refusal(error: str) -> dict[str, Any]:
    """An error in the service's own form."""
    return {"code": 0, "error": error, "message": "What to do.", "requestId": "0123456789abcdef"}
