"""The Microsoft Graph stand-in: who may do what, the routes, the answers and the errors as Graph writes them.

Sources: https://learn.microsoft.com/graph/api/opentypeextension-post-opentypeextension and its siblings,
https://learn.microsoft.com/graph/extensibility-open-users, https://learn.microsoft.com/graph/errors and
https://learn.microsoft.com/graph/throttling-limits.
"""

import base64
import json
import math
import re
import uuid
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple
from urllib.parse import urlencode

from aiohttp import web

from local_azure.clock import Clock
from local_azure.control import add_fault_routes
from local_azure.faults import Faults
from local_azure.graph.open_extensions import (
    DuplicateExtension,
    ExtensionTooLarge,
    OpenExtension,
    OpenExtensions,
    TooManyExtensions,
)
from local_azure.state import State
from local_azure.user_states import Mark, UserStates

AUDIENCES = ("https://graph.microsoft.com", "00000003-0000-0000-c000-000000000000")
THROTTLE_WINDOW = 10.0
DOCUMENTED_THROTTLE_LIMIT = 455


class DirectoryUser(NamedTuple):
    """A user of the directory, as `GET /users` lists it."""

    tenant_id: str
    object_id: str
    display_name: str


class Graph:
    """Microsoft Graph, as far as identity mappings need it.

    `verify` returns the claims of an access token whose signature and times are good, else `None`. `users` lists the
    directory. Set `extensions.lag_reads` for replication lag. Set `throttle_limit` to answer 429 to more extension
    requests than that in 10 s per app and tenant (Graph's own limit is `DOCUMENTED_THROTTLE_LIMIT`); `None` is off.
    `user_states` marks users who hold a directory role, whom no application may change.
    """

    def __init__(
        self,
        state: State,
        url: str,
        *,
        clock: Clock,
        verify: Callable[[str], dict[str, Any] | None],
        users: Callable[[], Iterable[tuple[str, str, str]]],
    ) -> None:
        self.faults = Faults()
        self.extensions = OpenExtensions(state)
        self.user_states = UserStates(state, clock)
        self.throttle_limit: int | None = None
        self._requests: defaultdict[tuple[str, str], deque[float]] = defaultdict(deque)
        self._url = url
        self._clock = clock
        self._verify = verify
        self._users = users

    def application(self) -> web.Application:
        """A fresh application; its first middleware is `faults.middleware`."""
        application = web.Application(middlewares=[self.faults.middleware, self._answer_errors])
        add_fault_routes(application, self.faults)
        router = application.router
        router.add_get("/v1.0/users", self._list_users, name="list_users", allow_head=False)
        for path, kind in (("/v1.0/me", ""), ("/v1.0/users/{user}", "user_")):
            name = f"get_{kind.rstrip('_') or 'me'}"
            router.add_get(path, self._get_user, name=name, allow_head=False)
            many, one = f"{path}/extensions", f"{path}/extensions/{{extension}}"
            router.add_get(many, self._list_extensions, name=f"list_{kind}extensions", allow_head=False)
            router.add_post(many, self._create_extension, name=f"create_{kind}extension")
            router.add_get(one, self._get_extension, name=f"get_{kind}extension", allow_head=False)
            router.add_patch(one, self._update_extension, name=f"update_{kind}extension")
            router.add_delete(one, self._delete_extension, name=f"delete_{kind}extension")
        return application

    def service_environment(self) -> dict[str, str]:
        """The settings that point the service at this stand-in."""
        return {"GRAPH_BASE_URL": self._url}

    async def _get_user(self, request: web.Request) -> web.Response:
        user = self._authorize(request, write=False)
        query = _Query.of(request)
        context = f"{self._url}/v1.0/$metadata#users({query.selected()})/$entity"
        return web.json_response({"@odata.context": context, **self._describe(user, query)})

    async def _list_users(self, request: web.Request) -> web.Response:
        token = self._bearer(request)
        if not token.has("User.Read.All", "User.ReadWrite.All", "Directory.Read.All", "Directory.ReadWrite.All"):
            raise _denied()
        query = _Query.of(request)
        if query.expands and request.headers.get("ConsistencyLevel", "").lower() == "eventual":
            raise _bad_request("$expand is not supported with advanced queries.")
        users = sorted(user for user in self._directory() if user.tenant_id == token.tenant)
        remaining = [user for user in users if user.object_id > query.after]
        page = remaining[: query.top]
        body: dict[str, Any] = {"@odata.context": f"{self._url}/v1.0/$metadata#users({query.selected()})"}
        if len(remaining) > len(page):
            body["@odata.nextLink"] = f"{self._url}/v1.0/users?{query.next(page[-1].object_id)}"
        body["value"] = [self._describe(user, query) for user in page]
        return web.json_response(body)

    async def _list_extensions(self, request: web.Request) -> web.Response:
        user = self._authorize(request, write=False)
        return web.json_response({"value": [_body(found) for found in self._extensions_of(user, _Query())]})

    async def _get_extension(self, request: web.Request) -> web.Response:
        user = self._authorize(request, write=False)
        found = self.extensions.get(user.tenant_id, user.object_id, _name(request))
        if found is None:
            raise _extension_not_found()
        return web.json_response(_body(found))

    async def _create_extension(self, request: web.Request) -> web.Response:
        user = self._authorize(request, write=True)
        content = await _content(request)
        kind, name = content.get("@odata.type"), content.get("extensionName")
        if not isinstance(kind, str) or kind.removeprefix("#") != "microsoft.graph.openTypeExtension":
            raise _bad_request("The @odata.type property must be microsoft.graph.openTypeExtension.")
        if not isinstance(name, str) or not name:
            raise _bad_request("extensionName is required.")
        extension = OpenExtension(name, _stored(content))
        try:
            self.extensions.create(user.tenant_id, user.object_id, self._bearer(request).app, extension)
        except DuplicateExtension:
            raise _bad_request("An extension already exists with given id.") from None
        except TooManyExtensions:
            raise _bad_request("Maximum number of extensions values supported per application is 2.") from None
        except ExtensionTooLarge:
            raise _bad_request("The size of the extension exceeds the limit of 2 KB.") from None
        context = f"{self._url}/v1.0/$metadata#users('{user.object_id}')/extensions/$entity"
        return web.json_response({"@odata.context": context, **_body(extension)}, status=201)

    async def _update_extension(self, request: web.Request) -> web.Response:
        user = self._authorize(request, write=True)
        extension = OpenExtension(_name(request), _stored(await _content(request)))
        try:
            if not self.extensions.replace(user.tenant_id, user.object_id, extension):
                raise _extension_not_found()
        except ExtensionTooLarge:
            raise _bad_request("The size of the extension exceeds the limit of 2 KB.") from None
        return web.Response(status=204)

    async def _delete_extension(self, request: web.Request) -> web.Response:
        user = self._authorize(request, write=True)
        if not self.extensions.delete(user.tenant_id, user.object_id, _name(request)):
            raise _extension_not_found()
        return web.Response(status=204)

    def _bearer(self, request: web.Request) -> "_Token":
        scheme, _, text = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not text:
            raise _invalid_token("Access token is empty.")
        claims = self._verify(text)
        if claims is None:
            raise _invalid_token("Access token validation failure.")
        if str(claims.get("aud", "")).rstrip("/") not in (*AUDIENCES, self._url):
            raise _invalid_token("Access token validation failure. Invalid audience.")
        return _Token.of(claims)

    def _authorize(self, request: web.Request, *, write: bool) -> DirectoryUser:
        """The user whom the request is about, if its token may do that."""
        token = self._bearer(request)
        wanted = request.match_info.get("user", token.user)
        if "user" not in request.match_info and token.user is None:
            raise _bad_request("/me request is only valid with delegated authentication flow.", code="BadRequest")
        everyone = ("User.ReadWrite.All",) if write else ("User.Read.All", "User.ReadWrite.All")
        own = ("User.ReadWrite",) if write else ("User.Read", "User.ReadWrite")
        if wanted == token.user:
            allowed = token.has(*own, *everyone)
        else:  # delegated writes to another user need an administrator's role, which nobody here has
            allowed = token.has(*everyone) and not (write and token.user is not None)
        if not allowed:
            raise _denied()
        if "/extensions" in request.path:
            self._throttle(token)
        for user in self._directory():
            if (user.tenant_id, user.object_id) == (token.tenant, wanted) and not self.user_states.is_deleted(user):
                if write and token.user is None and self.user_states.has(user, Mark.DIRECTORY_ROLE):
                    raise _denied()
                return user
        raise _Refusal(
            404,
            "Request_ResourceNotFound",
            f"Resource '{wanted}' does not exist or one of its queried reference-property objects are not present.",
        )

    def _throttle(self, token: "_Token") -> None:
        if self.throttle_limit is None:
            return
        now, requests = self._clock(), self._requests[token.app, token.tenant]
        while requests and requests[0] <= now - THROTTLE_WINDOW:
            requests.popleft()
        requests.append(now)  # refused requests count too: https://learn.microsoft.com/graph/throttling
        if len(requests) > self.throttle_limit:
            wait = math.ceil(requests[-self.throttle_limit] + THROTTLE_WINDOW - now)
            raise _Refusal(429, "TooManyRequests", "Too many requests.", {"Retry-After": str(max(wait, 1))})

    def _directory(self) -> Iterable[DirectoryUser]:
        return (DirectoryUser(*user) for user in self._users())

    def _describe(self, user: DirectoryUser, query: "_Query") -> dict[str, Any]:
        known = {"id": user.object_id, "displayName": user.display_name}
        if unknown := set(query.select) - known.keys():
            raise _bad_request(
                f"Could not find a property named '{min(unknown)}' on type 'microsoft.graph.user'.", code="BadRequest"
            )
        body: dict[str, Any] = {name: known[name] for name in query.select or known}
        if query.expands:
            body["extensions"] = [_body(found) for found in self._extensions_of(user, query)]
        return body

    def _extensions_of(self, user: DirectoryUser, query: "_Query") -> list[OpenExtension]:
        found = self.extensions.of(user.tenant_id, user.object_id)
        return found if query.only is None else [extension for extension in found if extension.name == query.only]

    @property
    def _answer_errors(self) -> Any:
        @web.middleware
        async def answer(
            request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
        ) -> web.StreamResponse:
            request_id = str(uuid.uuid4())
            client_request_id = request.headers.get("client-request-id", request_id)
            try:
                response = await self._known(request, handler)
            except _Refusal as refusal:
                date = datetime.fromtimestamp(self._clock(), UTC).strftime("%Y-%m-%dT%H:%M:%S")
                identification = {"date": date, "request-id": request_id, "client-request-id": client_request_id}
                error = {"code": refusal.code, "message": refusal.message, "innerError": identification}
                response = web.json_response({"error": error}, status=refusal.status, headers=refusal.headers)
            response.headers.update({"request-id": request_id, "client-request-id": client_request_id})
            return response

        return answer

    async def _known(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if request.match_info.http_exception is None:
            return await handler(request)
        self._bearer(request)  # Graph looks at the token first
        if request.match_info.http_exception.status == 405:
            raise _Refusal(405, "Request_BadRequest", "Specified HTTP method is not allowed for the request target.")
        segment = request.path.rstrip("/").rpartition("/")[2]
        raise _bad_request(f"Resource not found for the segment '{segment}'.", code="BadRequest")


@dataclass(frozen=True, slots=True)
class _Token:
    """What a token allows. `user` is `None` for an app-only token, whose permissions are its roles."""

    tenant: str
    app: str
    user: str | None
    permissions: frozenset[str]

    @classmethod
    def of(cls, claims: dict[str, Any]) -> "_Token":
        app = str(claims.get("appid") or claims.get("azp") or "")
        scopes = claims.get("scp")
        if isinstance(scopes, str):
            return cls(claims["tid"], app, claims["oid"], frozenset(scopes.split()))
        return cls(claims["tid"], app, None, frozenset(claims.get("roles") or ()))

    def has(self, *permissions: str) -> bool:
        """Whether the token holds at least one of the permissions, whose names have no case."""
        return not {name.lower() for name in self.permissions}.isdisjoint(name.lower() for name in permissions)


@dataclass(frozen=True, slots=True)
class _Query:
    """The OData parameters that the stand-in understands; others are refused."""

    select: tuple[str, ...] = ()
    expands: bool = False
    only: str | None = None
    top: int = 100
    after: str = ""
    text: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, request: web.Request) -> "_Query":
        parameters = dict(request.query)
        if unknown := parameters.keys() - {"$select", "$expand", "$top", "$skiptoken"}:
            raise _bad_request(f"'{min(unknown)}' is not supported by the service.")
        expand = parameters.get("$expand", "")
        filtered = re.fullmatch(r"extensions\(\$filter=id eq '([^']*)'\)", expand)
        if expand and expand != "extensions" and filtered is None:
            raise _bad_request("Parsing OData Select and Expand failed.", code="BadRequest")
        try:
            top = int(parameters.get("$top", "100"))
            after = base64.urlsafe_b64decode(parameters.get("$skiptoken", "")).decode()
        except ValueError:
            raise _bad_request("Invalid page size or skip token.") from None
        if not 1 <= top <= 999:
            raise _bad_request("Invalid page size specified. Must be between 1 and 999 inclusive.")
        return cls(
            select=tuple(name.strip() for name in parameters.get("$select", "").split(",") if name.strip()),
            expands=bool(expand),
            only=None if filtered is None else filtered[1],
            top=top,
            after=after,
            text=tuple((name, value) for name, value in parameters.items() if name != "$skiptoken"),
        )

    def next(self, last: str) -> str:
        """The query of the page that follows the user `last`."""
        return urlencode([*self.text, ("$skiptoken", base64.urlsafe_b64encode(last.encode()).decode())])

    def selected(self) -> str:
        """What the answer's context says about its shape."""
        return ",".join([*self.select, *(["extensions()"] if self.expands else [])])


class _Refusal(Exception):
    def __init__(self, status: int, code: str, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = headers or {}


def _bad_request(message: str, *, code: str = "Request_BadRequest") -> _Refusal:
    return _Refusal(400, code, message)


def _denied() -> _Refusal:
    return _Refusal(403, "Authorization_RequestDenied", "Insufficient privileges to complete the operation.")


def _extension_not_found() -> _Refusal:
    return _Refusal(404, "ResourceNotFound", "Extension with given id not found.")


def _invalid_token(message: str) -> _Refusal:
    challenge = (
        'Bearer realm="", authorization_uri="https://login.microsoftonline.com/common/oauth2/authorize", '
        'client_id="00000003-0000-0000-c000-000000000000"'
    )
    return _Refusal(401, "InvalidAuthenticationToken", message, {"WWW-Authenticate": challenge})


def _name(request: web.Request) -> str:
    return request.match_info["extension"].removeprefix("microsoft.graph.openTypeExtension.")


async def _content(request: web.Request) -> dict[str, Any]:
    try:
        content = await request.json()
    except (json.JSONDecodeError, UnicodeDecodeError):
        content = None
    if not isinstance(content, dict):
        raise _bad_request("Unable to read JSON request payload.", code="BadRequest")
    return content


def _stored(content: dict[str, Any]) -> dict[str, Any]:
    """What an extension keeps of a request's body: a property that is null, like one not sent, is not kept."""
    return {
        name: value
        for name, value in content.items()
        if value is not None and name not in ("extensionName", "id") and not name.startswith("@odata.")
    }


def _body(extension: OpenExtension) -> dict[str, Any]:
    return {
        "@odata.type": "#microsoft.graph.openTypeExtension",
        "extensionName": extension.name,
        "id": extension.name,
        **extension.properties,
    }
