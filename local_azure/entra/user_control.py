"""Control routes on the directory's users: list, mark, delete, restore and purge them."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from local_azure.entra.directory import User
from local_azure.user_states import Mark, NotRestorable, UserStates

_FIELDS = ("alias", "name", "username", "tenant_id", "object_id")


@dataclass(frozen=True, slots=True)
class UserControl:
    """What tests and the command line do with users; `users` gives them by alias."""

    users: Callable[[], Mapping[str, User]]
    states: UserStates

    def add_routes(self, application: web.Application) -> None:
        """Add the routes; 404 names the known users.

        - `GET /local/users`: every user, with the marks given and whether the user was deleted
        - `PUT /local/users/{user}`: body maps marks (`Mark`) to booleans; what is left out or false is cleared; 204
        - `DELETE /local/users/{user}`: delete; 204
        - `POST /local/users/{user}/restore`: 204, or 409 for a user who can't be restored
        - `POST /local/users/{user}/purge`: delete for good; 204
        """
        add = application.router.add_route
        add("GET", "/local/users", self._list, name="local_users")
        add("PUT", "/local/users/{user}", self._mark, name="local_user_put")
        add("DELETE", "/local/users/{user}", self._delete, name="local_user_delete")
        add("POST", "/local/users/{user}/restore", self._restore, name="local_user_restore")
        add("POST", "/local/users/{user}/purge", self._purge, name="local_user_purge")

    def named(self, alias: object) -> User:
        """The user with this alias. Raises `web.HTTPNotFound`."""
        users = self.users()
        user = users.get(alias) if isinstance(alias, str) else None
        if user is None:
            raise web.HTTPNotFound(text=f"No such user; there are {', '.join(users)}.\n")
        return user

    async def _list(self, _: web.Request) -> web.Response:
        return web.json_response(
            [
                {
                    **{field: getattr(user, field) for field in _FIELDS},
                    "marks": [mark for mark in Mark if self.states.has(user, mark)],
                    "deleted": self.states.is_deleted(user),
                }
                for user in self.users().values()
            ]
        )

    async def _mark(self, request: web.Request) -> web.Response:
        user = self._user(request)
        body = await json_object(request)
        if unknown := body.keys() - set(Mark):
            raise web.HTTPBadRequest(text=f"Unknown marks {sorted(unknown)}; known are {sorted(Mark)}.\n")
        self.states.clear_marks(user)
        self.states.mark(user, *(Mark(name) for name, holds in body.items() if holds))
        return web.Response(status=204)

    async def _delete(self, request: web.Request) -> web.Response:
        self.states.delete(self._user(request))
        return web.Response(status=204)

    async def _restore(self, request: web.Request) -> web.Response:
        try:
            self.states.restore(self._user(request))
        except NotRestorable:
            raise web.HTTPConflict(text="The user was not deleted, or can't be restored any more.\n") from None
        return web.Response(status=204)

    async def _purge(self, request: web.Request) -> web.Response:
        self.states.purge(self._user(request))
        return web.Response(status=204)

    def _user(self, request: web.Request) -> User:
        return self.named(request.match_info["user"])


async def json_object(request: web.Request) -> dict[str, Any]:
    """The body of a control request; nothing counts as an empty object. Raises `web.HTTPBadRequest`."""
    try:
        body = json.loads(await request.text() or "{}")
    except json.JSONDecodeError as error:
        raise web.HTTPBadRequest(text="The body must be JSON.\n") from error
    if not isinstance(body, dict):
        raise web.HTTPBadRequest(text="The body must be a JSON object.\n")
    return body
