"""What the service's console drives of the stand-ins: the user, faults, keys. All at the Entra ID stand-in's address,
whose certificate the browser has accepted by then.
"""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from aiohttp import web

from local_azure.entra.directory import User, is_loopback
from local_azure.entra.service import Entra
from local_azure.entra.user_control import json_object
from local_azure.faults import Fault, Faults

_PATH = "/local/console"
_Handler = Callable[[web.Request], Awaitable[web.Response]]


@dataclass(frozen=True, slots=True)
class ConsoleFault:
    """A fault that can be switched on and off: `fault` at `operation` of the stand-in that has `faults`."""

    name: str
    text: str
    faults: Faults
    operation: str
    fault: Fault

    @property
    def on(self) -> bool:
        """Whether it is scripted."""
        return self.faults.holds(self.operation, self.fault)

    def switch(self, *, on: bool) -> None:
        """Script it, or take it back. Doing so twice changes nothing."""
        self.faults.withdraw(self.operation, self.fault)
        if on:
            self.faults.script(self.operation, self.fault)


def console_faults(*, entra: Faults, acs: Faults, cosmos: Faults) -> tuple[ConsoleFault, ...]:
    """The faults that the console offers."""
    busy = {"error": {"code": "TooManyRequests", "message": "Too many requests."}}
    throttled = Fault(status=429, headers={"Retry-After": "1"}, body=busy, times=None)
    dropped, stopped = Fault(drop_answer=True, times=None), Fault(reset=True, times=None)
    return (
        ConsoleFault("throttle_acs", "ACS is busy (429)", acs, "*", throttled),
        ConsoleFault(
            "drop_cosmos_answer",
            "Cosmos DB writes a new item, and its answer is lost (with --storage cosmos)",
            cosmos,
            "create_item",
            dropped,
        ),
        ConsoleFault("stop_entra", "Entra ID can't be reached", entra, "*", stopped),
    )


@dataclass(frozen=True, slots=True)
class ConsoleControl:
    """The routes. Only pages on loopback may use them."""

    entra: Entra
    faults: tuple[ConsoleFault, ...]

    def add_routes(self, application: web.Application) -> None:
        """Add the routes; each is answered 403 unless the request's `Origin` is on loopback.

        - `GET /local/console`: `{"users": [{"alias", "name"}], "faults": [{"name", "text", "on"}]}`
        - `PUT /local/console/faults/{name}`: body `{"on": bool}`; 204, or 404 with the known names
        - `POST /local/console/keys/rotate`: 204
        - `POST /local/console/token`: body `{"user": alias, "teams": bool}`; `{"access_token"}`
        """
        for method, path, handler, name in (
            ("GET", "", self._tell, "local_console"),
            ("PUT", "/faults/{name}", self._switch, "local_console_fault"),
            ("POST", "/keys/rotate", self._rotate, "local_console_keys"),
            ("POST", "/token", self._token, "local_console_token"),
        ):
            application.router.add_route(method, _PATH + path, _for_loopback(handler), name=name)
            if method != "GET":
                preflight = _for_loopback(_preflight)
                application.router.add_route("OPTIONS", _PATH + path, preflight, name=f"{name}_preflight")

    async def _tell(self, _: web.Request) -> web.Response:
        users = [{"alias": user.alias, "name": user.name} for user in self._present()]
        faults = [{"name": fault.name, "text": fault.text, "on": fault.on} for fault in self.faults]
        return web.json_response({"users": users, "faults": faults})

    async def _switch(self, request: web.Request) -> web.Response:
        named = {fault.name: fault for fault in self.faults}
        fault = named.get(request.match_info["name"])
        if fault is None:
            raise web.HTTPNotFound(text=f"No such fault; there are {', '.join(named)}.\n")
        fault.switch(on=(await json_object(request)).get("on") is True)
        return web.Response(status=204)

    async def _rotate(self, _: web.Request) -> web.Response:
        self.entra.rotate()
        return web.Response(status=204)

    async def _token(self, request: web.Request) -> web.Response:
        body = await json_object(request)
        user = next((user for user in self._present() if user.alias == body.get("user")), None)
        if user is None:
            raise web.HTTPNotFound(text="No such user.\n")
        token = self.entra.teams_token(user) if body.get("teams") else self.entra.access_token(user)
        return web.json_response({"access_token": token}, headers={"Cache-Control": "no-store"})

    def _present(self) -> Iterable[User]:
        return (user for user in self.entra.users.values() if not self.entra.user_states.is_deleted(user))


async def _preflight(_: web.Request) -> web.Response:
    methods = {"Access-Control-Allow-Methods": "PUT, POST", "Access-Control-Allow-Headers": "Content-Type"}
    return web.Response(status=204, headers=methods)


def _for_loopback(handler: _Handler) -> _Handler:
    """`handler` for pages on this machine: any page in the browser could send these requests."""

    async def handle(request: web.Request) -> web.Response:
        origin = request.headers.get("Origin", "")
        if not is_loopback(urlsplit(origin).hostname):
            raise web.HTTPForbidden(text="Only pages on this machine may do that.\n")
        response = await handler(request)
        response.headers.update({"Access-Control-Allow-Origin": origin, "Vary": "Origin"})
        return response

    return handle
