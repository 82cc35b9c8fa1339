"""Users and service principals as objects of the directory: those that exist, and users who were deleted."""

import uuid
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any, NamedTuple

from aiohttp import web

from local_azure.graph.errors import bad_request, denied, resource_not_found
from local_azure.graph.requests import READ_DIRECTORY, READ_USERS, Query, Token, json_object
from local_azure.user_states import UserKey, UserStates

MAXIMUM_IDS = 1000

_ANY = "directoryobject"
_USER, _SERVICE_PRINCIPAL = "user", "serviceprincipal"
_TYPES = {_ANY, _USER, _SERVICE_PRINCIPAL, "group", "device", "application", "administrativeunit", "directoryrole"}


class DirectoryUser(NamedTuple):
    """A user of the directory, as `GET /users` lists it."""

    tenant_id: str
    object_id: str
    display_name: str


class ServicePrincipal(NamedTuple):
    """An application's object; here every tenant has the same one."""

    object_id: str
    app_id: str
    display_name: str


class DirectoryObjects:
    """Answers about objects of the directory.

    `url` is Graph's own, `token` reads and checks the token of a request, `users` and `service_principals` give the
    directory.

    Sources: https://learn.microsoft.com/graph/api/directoryobject-getbyids,
    https://learn.microsoft.com/graph/api/directory-deleteditems-get,
    https://learn.microsoft.com/graph/api/directory-deleteditems-list and
    https://learn.microsoft.com/graph/api/serviceprincipal-get
    (microsoftgraph/microsoft-graph-docs-contrib, api-reference/v1.0/api).
    """

    def __init__(
        self,
        url: str,
        token: Callable[[web.Request], Token],
        users: Callable[[], Iterable[DirectoryUser]],
        service_principals: Callable[[], Iterable[ServicePrincipal]],
        states: UserStates,
    ) -> None:
        self._url = url
        self._token = token
        self._users = users
        self._service_principals = service_principals
        self._states = states

    def add_routes(self, application: web.Application) -> None:
        """Add the routes; their names are the operations."""
        router = application.router
        router.add_post("/v1.0/directoryObjects/getByIds", self._get_by_ids, name="get_by_ids")
        items = "/v1.0/directory/{items:deleted[Ii]tems}"  # the documentation spells it both ways
        router.add_get(f"{items}/microsoft.graph.user", self._list_deleted, name="list_deleted_users", allow_head=False)
        router.add_get(f"{items}/{{id}}", self._get_deleted, name="get_deleted_item", allow_head=False)

        for path in ("(appId='{app}')", "/{id}"):
            router.add_get(
                f"/v1.0/servicePrincipals{path}",
                self._get_service_principal,
                name="get_service_principal" if "app" in path else "get_service_principal_by_id",
                allow_head=False,
            )

    def present(self, tenant: str) -> list[DirectoryUser]:
        """The users of a tenant who were not deleted, by object id."""
        deleted = self._states.deleted()
        return sorted(user for user in self._users() if user.tenant_id == tenant and user[:2] not in deleted)

    def require(self, tenant: str, object_id: str) -> DirectoryUser:
        """One user who was not deleted. Raises `Refusal`."""
        for user in self._users():
            if (user.tenant_id, user.object_id) == (tenant, object_id) and not self._states.is_deleted(user):
                return user
        raise resource_not_found(object_id)

    async def _get_by_ids(self, request: web.Request) -> web.Response:
        token = self._token(request)
        if not token.has(*READ_DIRECTORY):
            raise denied()
        selected = Query.of(request).select
        body = await json_object(request)
        ids, types = _ids(body.get("ids")), _types(body.get("types"))
        found: list[dict[str, Any]] = []
        if types & {_ANY, _USER}:
            found += [_user(user) for user in self.present(token.tenant) if user.object_id.lower() in ids]
        if types & {_ANY, _SERVICE_PRINCIPAL}:
            found += [_application(each) for each in self._service_principals() if each.object_id.lower() in ids]
        context = f"{self._url}/v1.0/$metadata#directoryObjects"
        return web.json_response({"@odata.context": context, "value": [_selected(each, selected) for each in found]})

    async def _list_deleted(self, request: web.Request) -> web.Response:
        token = self._token(request)
        if not token.has(*READ_USERS):
            raise denied()
        query = Query.of(request)
        if query.expands:
            raise bad_request("$expand is not supported by the stand-in here.")
        deleted = sorted(self._deleted(token.tenant), key=lambda each: str(each["id"]))
        remaining = [each for each in deleted if each["id"] > query.after]
        page = remaining[: query.top]
        body: dict[str, Any] = {"@odata.context": f"{self._url}/v1.0/$metadata#users({query.selected()})"}
        if len(remaining) > len(page):
            following = query.next(page[-1]["id"])
            body["@odata.nextLink"] = f"{self._url}/v1.0/directory/deletedItems/microsoft.graph.user?{following}"
        body["value"] = [_selected(each, query.select) for each in page]
        return web.json_response(body)

    async def _get_deleted(self, request: web.Request) -> web.Response:
        token = self._token(request)
        if not token.has(*READ_USERS):
            raise denied()
        wanted = request.match_info["id"].lower()
        found = next((each for each in self._deleted(token.tenant) if each["id"].lower() == wanted), None)
        if found is None:
            raise resource_not_found(wanted)
        context = f"{self._url}/v1.0/$metadata#directoryObjects/$entity"
        return web.json_response({"@odata.context": context, **_selected(found, Query.of(request).select)})

    async def _get_service_principal(self, request: web.Request) -> web.Response:
        token = self._token(request)
        match = request.match_info
        wanted = match.get("app", match.get("id", "")).lower()
        principals = self._service_principals()
        found = next(
            (each for each in principals if wanted == (each.app_id if "app" in match else each.object_id)), None
        )
        # "A service principal can retrieve its own application and service principal details without being granted
        # any application permissions."
        is_own = found is not None and token.user is None and token.app == found.app_id
        if not is_own and not token.has(*READ_DIRECTORY, "Application.Read.All", "Application.ReadWrite.All"):
            raise denied()
        if found is None:
            raise resource_not_found(wanted)
        described = {name: value for name, value in _application(found).items() if name != "@odata.type"}
        context = f"{self._url}/v1.0/$metadata#servicePrincipals/$entity"
        return web.json_response({"@odata.context": context, **_selected(described, Query.of(request).select)})

    def _deleted(self, tenant: str) -> list[dict[str, Any]]:
        times = self._states.restorable()
        users = [user for user in self._users() if user.tenant_id == tenant and user[:2] in times]
        return [_user(user) | {"deletedDateTime": _date(times[UserKey(*user[:2])])} for user in users]


def _ids(value: Any) -> set[str]:
    if not isinstance(value, list) or not value:
        raise bad_request("The collection 'ids' is required.")  # text inferred
    if len(value) > MAXIMUM_IDS:
        raise bad_request(f"Too many ids: at most {MAXIMUM_IDS} are accepted.")  # text inferred
    for each in value:
        try:
            uuid.UUID(each)
        except (ValueError, AttributeError, TypeError):
            raise bad_request(f"Invalid object identifier '{each}'.") from None
    return {each.lower() for each in value}


def _types(value: Any) -> set[str]:
    if value is None:
        return {_ANY}
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise bad_request("The collection 'types' must hold names of types.")  # text inferred
    types = {each.lower().removeprefix("microsoft.graph.") for each in value}
    if unknown := types - _TYPES:
        raise bad_request(f"Invalid resource type '{min(unknown)}'.")  # text inferred
    return types or {_ANY}


def _user(user: DirectoryUser) -> dict[str, Any]:
    return {"@odata.type": "#microsoft.graph.user", "id": user.object_id, "displayName": user.display_name}


def _application(principal: ServicePrincipal) -> dict[str, Any]:
    return {
        "@odata.type": "#microsoft.graph.servicePrincipal",
        "id": principal.object_id,
        "appId": principal.app_id,
        "displayName": principal.display_name,
        "servicePrincipalType": "Application",
    }


def _selected(described: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    if not names:
        return described
    return {name: value for name, value in described.items() if name in names or name == "@odata.type"}


def _date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
