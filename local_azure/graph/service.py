"""The Microsoft Graph stand-in: who may do what, the routes, the answers and the errors as Graph writes them.

Sources: https://learn.microsoft.com/graph/api/opentypeextension-post-opentypeextension and its siblings,
https://learn.microsoft.com/graph/extensibility-open-users, https://learn.microsoft.com/graph/errors and
https://learn.microsoft.com/graph/throttling-limits.
"""

import math
import uuid
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from local_azure.clock import Clock
from local_azure.control import add_fault_routes
from local_azure.faults import Faults
from local_azure.graph import errors
from local_azure.graph.directory_objects import DirectoryObjects, DirectoryUser, ServicePrincipal
from local_azure.graph.open_extensions import (
    DuplicateExtension,
    ExtensionTooLarge,
    OpenExtension,
    OpenExtensions,
    TooManyExtensions,
)
from local_azure.graph.requests import READ_USERS, Query, Token, json_object
from local_azure.graph.seal_key import seal_key
from local_azure.state import State
from local_azure.user_states import Mark, UserStates

AUDIENCES = ("https://graph.microsoft.com", "00000003-0000-0000-c000-000000000000")
THROTTLE_WINDOW = 10.0
DOCUMENTED_THROTTLE_LIMIT = 455


class Graph:
    """Microsoft Graph, as far as identity mappings need it.

    `verify` returns the claims of an access token whose signature and times are valid, otherwise `None`. `users` and
    `service_principals` list the directory. Set `extensions.lag_reads` for replication lag. Set `throttle_limit` to
    answer 429 to more extension requests than that in 10 s per app and tenant (Graph's own limit is
    `DOCUMENTED_THROTTLE_LIMIT`); `None` is off. `user_states` deletes users, and marks those who hold a directory role:
    no application may change them.
    """

    def __init__(
        self,
        state: State,
        url: str,
        *,
        clock: Clock,
        verify: Callable[[str], dict[str, Any] | None],
        users: Callable[[], Iterable[tuple[str, str, str]]],
        service_principals: Callable[[], Iterable[ServicePrincipal]] = tuple,
    ) -> None:
        self.faults = Faults()
        self.extensions = OpenExtensions(state)
        self.user_states = UserStates(state, clock)
        self.throttle_limit: int | None = None
        self._seal_key = seal_key(state.directory)
        self._requests: defaultdict[tuple[str, str], deque[float]] = defaultdict(deque)
        self._url = url
        self._clock = clock
        self._verify = verify
        self._objects = DirectoryObjects(
            url, self._bearer, lambda: (DirectoryUser(*user) for user in users()), service_principals, self.user_states
        )

    def application(self) -> web.Application:
        """A fresh application; its first middleware is `faults.middleware`."""
        application = web.Application(middlewares=[self.faults.middleware, self._answer_errors])
        add_fault_routes(application, self.faults)
        self._objects.add_routes(application)
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
        """The settings that point the service at this stand-in, with a key to seal mappings by."""
        return {"GRAPH_BASE_URL": self._url, "GRAPH_SEAL_KEYS": self._seal_key}

    async def _get_user(self, request: web.Request) -> web.Response:
        user = self._authorize(request, write=False)
        query = Query.of(request)
        context = f"{self._url}/v1.0/$metadata#users({query.selected()})/$entity"
        return web.json_response({"@odata.context": context, **self._describe(user, query)})

    async def _list_users(self, request: web.Request) -> web.Response:
        token = self._bearer(request)
        if not token.has(*READ_USERS):
            raise errors.denied()
        query = Query.of(request)
        if query.expands and request.headers.get("ConsistencyLevel", "").lower() == "eventual":
            raise errors.bad_request("$expand is not supported with advanced queries.")
        remaining = [user for user in self._objects.present(token.tenant) if user.object_id > query.after]
        page = remaining[: query.top]
        body: dict[str, Any] = {"@odata.context": f"{self._url}/v1.0/$metadata#users({query.selected()})"}
        if len(remaining) > len(page):
            body["@odata.nextLink"] = f"{self._url}/v1.0/users?{query.next(page[-1].object_id)}"
        body["value"] = [self._describe(user, query) for user in page]
        return web.json_response(body)

    async def _list_extensions(self, request: web.Request) -> web.Response:
        user = self._authorize(request, write=False)
        return web.json_response({"value": [_body(found) for found in self._extensions_of(user, Query())]})

    async def _get_extension(self, request: web.Request) -> web.Response:
        user = self._authorize(request, write=False)
        found = self.extensions.get(user.tenant_id, user.object_id, _name(request))
        if found is None:
            raise errors.extension_not_found()
        return web.json_response(_body(found))

    async def _create_extension(self, request: web.Request) -> web.Response:
        user = self._authorize(request, write=True)
        content = await json_object(request)
        kind, name = content.get("@odata.type"), content.get("extensionName")
        if not isinstance(kind, str) or kind.removeprefix("#") != "microsoft.graph.openTypeExtension":
            raise errors.bad_request("The @odata.type property must be microsoft.graph.openTypeExtension.")
        if not isinstance(name, str) or not name:
            raise errors.bad_request("extensionName is required.")
        extension = OpenExtension(name, _stored(content))
        try:
            self.extensions.create(user.tenant_id, user.object_id, self._bearer(request).app, extension)
        except DuplicateExtension:
            raise errors.bad_request("An extension already exists with given id.") from None
        except TooManyExtensions:
            raise errors.bad_request("Maximum number of extensions values supported per application is 2.") from None
        except ExtensionTooLarge:
            raise errors.bad_request("The size of the extension exceeds the limit of 2 KB.") from None
        context = f"{self._url}/v1.0/$metadata#users('{user.object_id}')/extensions/$entity"
        return web.json_response({"@odata.context": context, **_body(extension)}, status=201)

    async def _update_extension(self, request: web.Request) -> web.Response:
        user = self._authorize(request, write=True)
        extension = OpenExtension(_name(request), _stored(await json_object(request)))
        try:
            if not self.extensions.replace(user.tenant_id, user.object_id, extension):
                raise errors.extension_not_found()
        except ExtensionTooLarge:
            raise errors.bad_request("The size of the extension exceeds the limit of 2 KB.") from None
        return web.Response(status=204)

    async def _delete_extension(self, request: web.Request) -> web.Response:
        user = self._authorize(request, write=True)
        if not self.extensions.delete(user.tenant_id, user.object_id, _name(request)):
            raise errors.extension_not_found()
        return web.Response(status=204)

    def _bearer(self, request: web.Request) -> Token:
        scheme, _, text = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not text:
            raise errors.invalid_token("Access token is empty.")
        claims = self._verify(text)
        if claims is None:
            raise errors.invalid_token("Access token validation failure.")
        if str(claims.get("aud", "")).rstrip("/") not in (*AUDIENCES, self._url):
            raise errors.invalid_token("Access token validation failure. Invalid audience.")
        return Token.of(claims)

    def _authorize(self, request: web.Request, *, write: bool) -> DirectoryUser:
        """The user whom the request is about, if its token may do that."""
        token = self._bearer(request)
        wanted = request.match_info.get("user", token.user)
        if "user" not in request.match_info and token.user is None:
            raise errors.bad_request("/me request is only valid with delegated authentication flow.", code="BadRequest")
        everyone = ("User.ReadWrite.All",) if write else READ_USERS
        own = ("User.ReadWrite",) if write else ("User.Read", "User.ReadWrite")
        if wanted == token.user:
            allowed = token.has(*own, *everyone)
        else:  # delegated writes to another user need an administrator's role, which nobody here has
            allowed = token.has(*everyone) and not (write and token.user is not None)
        if not allowed:
            raise errors.denied()
        if "/extensions" in request.path:
            self._throttle(token)
        user = self._objects.require(token.tenant, str(wanted))
        if write and token.user is None and self.user_states.has(user, Mark.DIRECTORY_ROLE):
            raise errors.denied()
        return user

    def _throttle(self, token: Token) -> None:
        if self.throttle_limit is None:
            return
        now, requests = self._clock(), self._requests[token.app, token.tenant]
        while requests and requests[0] <= now - THROTTLE_WINDOW:
            requests.popleft()
        requests.append(now)  # refused requests count too: https://learn.microsoft.com/graph/throttling
        if len(requests) > self.throttle_limit:
            wait = math.ceil(requests[-self.throttle_limit] + THROTTLE_WINDOW - now)
            raise errors.Refusal(429, "TooManyRequests", "Too many requests.", {"Retry-After": str(max(wait, 1))})

    def _describe(self, user: DirectoryUser, query: Query) -> dict[str, Any]:
        known = {"id": user.object_id, "displayName": user.display_name}
        if unknown := set(query.select) - known.keys():
            raise errors.bad_request(
                f"Could not find a property named '{min(unknown)}' on type 'microsoft.graph.user'.", code="BadRequest"
            )
        body: dict[str, Any] = {name: known[name] for name in query.select or known}
        if query.expands:
            body["extensions"] = [_body(found) for found in self._extensions_of(user, query)]
        return body

    def _extensions_of(self, user: DirectoryUser, query: Query) -> list[OpenExtension]:
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
            except errors.Refusal as refusal:
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
            raise errors.Refusal(
                405, "Request_BadRequest", "Specified HTTP method is not allowed for the request target."
            )
        segment = request.path.rstrip("/").rpartition("/")[2]
        raise errors.bad_request(f"Resource not found for the segment '{segment}'.", code="BadRequest")


def _name(request: web.Request) -> str:
    return request.match_info["extension"].removeprefix("microsoft.graph.openTypeExtension.")


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
