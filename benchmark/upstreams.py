"""The stand-ins as the benchmark's upstreams: what they answered once, they answer again from memory.

The stand-ins verify signatures, sign tokens and store; that costs more than the service itself. So the first answer to
each request is the stand-in's own, and later ones are its repetition. Run as a process of its own, which prints one
JSON line when it is ready and ends when its standard input does.
"""

import asyncio
import json
import sys
from collections import Counter
from pathlib import Path
from types import MappingProxyType
from typing import Any

import uvloop
from aiohttp import web

from local_azure.entra.directory import HOME_TENANT, User
from local_azure.environment import LOOPBACK, LocalAzure, Ports

NAMES = ("entra", "graph", "acs", "cosmos")
TOKEN_SECONDS = 8 * 3600.0
_REPEATED_POSTS = ("token", "issue_access_token")


class Repeating:
    """One stand-in's memory of its answers, and the seconds by which each of its answers is delayed."""

    def __init__(self) -> None:
        self.delay = 0.0
        self.calls = 0
        self._answers: dict[tuple[str, str, str, bytes], tuple[int, dict[str, str], bytes]] = {}

    def runner(self, application: web.Application) -> web.BaseRunner:
        """How the stand-in's application is served: with the memory in front of it."""
        application.middlewares.insert(0, self._middleware)
        return web.AppRunner(application, access_log=None, shutdown_timeout=0.5)

    def paths(self) -> list[str]:
        """The paths, with their queries, of all requests whose answers are remembered."""
        return [path for _, path, _, _ in self._answers]

    @property
    def _middleware(self) -> Any:
        @web.middleware
        async def repeat(request: web.Request, handler: Any) -> web.StreamResponse:
            operation = request.match_info.route.name or ""
            if operation.startswith("local_"):
                return await handler(request)  # type: ignore[no-any-return]
            self.calls += 1
            if self.delay:
                await asyncio.sleep(self.delay)
            authorization = request.headers.get("Authorization", "")
            # A signature holds the time, a bearer token says who is asking.
            bearer = authorization if authorization.startswith("Bearer ") else ""
            try:
                body = await request.read()
            except ConnectionError:
                return web.Response(status=400)  # nobody reads it: the client has gone
            key = (request.method, request.raw_path, bearer, body if operation == "token" else b"")
            known = self._answers.get(key)
            if known is None:
                response = await handler(request)
                known = response.status, _repeatable(response), response.body
                if request.method == "GET" or operation in _REPEATED_POSTS:
                    if response.status == 200:
                        self._answers[key] = known
                else:
                    self._answers.clear()  # something was changed
            status, headers, content = known
            return web.Response(status=status, headers=headers, body=content)

        return repeat


def _repeatable(response: web.StreamResponse) -> dict[str, str]:
    return {name: value for name, value in response.headers.items() if name.lower() != "content-length"}


async def serve(directory: Path) -> None:
    """Run the stand-ins and their control routes until standard input ends."""
    memories = {name: Repeating() for name in NAMES}
    waiting = iter(memories.values())
    async with LocalAzure(
        directory, Ports(0, 0, 0, 0), new_runner=lambda application: next(waiting).runner(application)
    ) as azure:
        runner = web.AppRunner(_control(azure, memories), access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, LOOPBACK, 0)
        await site.start()
        control = f"http://{LOOPBACK}:{runner.addresses[0][1]}"
        sys.stdout.write(json.dumps({"control": control, "environment": azure.service_environment()}) + "\n")
        sys.stdout.flush()
        await asyncio.to_thread(sys.stdin.read)
        await runner.cleanup()


def _control(azure: LocalAzure, memories: dict[str, Repeating]) -> web.Application:
    async def calls(_: web.Request) -> web.Response:
        return web.json_response(Counter({name: memory.calls for name, memory in memories.items()}))

    async def delay(request: web.Request) -> web.Response:
        for name, seconds in (await request.json()).items():
            memories[name].delay = seconds
        return web.Response(status=204)

    async def tokens(request: web.Request) -> web.Response:
        wanted = await request.json()
        users = {object_id: _user(object_id) for object_id in wanted}
        azure.entra.users = MappingProxyType({**azure.entra.users, **users})
        return web.json_response([azure.entra.access_token(users[one], lifetime=TOKEN_SECONDS) for one in wanted])

    async def paths(request: web.Request) -> web.Response:
        return web.json_response(memories[request.match_info["name"]].paths())

    application = web.Application()
    application.router.add_get("/paths/{name}", paths)
    application.router.add_get("/calls", calls)
    application.router.add_put("/delays", delay)
    application.router.add_post("/tokens", tokens)
    return application


def _user(object_id: str) -> User:
    return User(object_id, HOME_TENANT.tenant_id, object_id, "Bench", "bench@contoso.localhost", HOME_TENANT.tenant_id)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as running:
        running.run(serve(Path(sys.argv[1])))
