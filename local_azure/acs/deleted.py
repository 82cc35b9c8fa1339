"""What ACS answers for an identity that was deleted. Nobody recorded it: tests try several answers."""

import json
from dataclasses import asdict, dataclass
from typing import Any

from aiohttp import web

from local_azure.acs.errors import ServiceError


@dataclass(frozen=True, slots=True)
class DeletedIdentityAnswer:
    """The answer to any call about a deleted identity.

    Only the message of the default is known, from Microsoft's authentication server samples; its status and code are
    inferred.
    """

    status: int = 404
    code: str = "IdentityNotFound"
    message: str = "Provided identity doesn't exist."

    def error(self) -> ServiceError:
        """The answer as an error to raise."""
        return ServiceError(self.status, self.code, self.message)


class DeletedIdentities:
    """The answer that holds now. Assign another one to `answer` at any time."""

    def __init__(self, answer: DeletedIdentityAnswer) -> None:
        self.answer = answer
        self._initial = answer

    def add_routes(self, application: web.Application) -> None:
        """Add the routes that change the answer over HTTP, at `/local/deleted-identity`.

        - `PUT`: body is a `DeletedIdentityAnswer` as JSON; what is left out is that of the default; 204, or 400
        - `DELETE`: the answer of the start again; 204
        - `GET`: the answer that holds now, as JSON
        """

        async def put(request: web.Request) -> web.Response:
            self.answer = _parsed(await request.read())
            return web.Response(status=204)

        async def delete(_: web.Request) -> web.Response:
            self.answer = self._initial
            return web.Response(status=204)

        async def get(_: web.Request) -> web.Response:
            return web.json_response(asdict(self.answer))

        path = "/local/deleted-identity"
        application.router.add_put(path, put, name="local_deleted_identity_put")
        application.router.add_delete(path, delete, name="local_deleted_identity_delete")
        application.router.add_get(path, get, name="local_deleted_identity")


def _parsed(body: bytes) -> DeletedIdentityAnswer:
    try:
        content: Any = json.loads(body)
        answer = DeletedIdentityAnswer(**content)
    except (TypeError, ValueError) as error:
        raise web.HTTPBadRequest(text=f"Not an answer: {error}\n") from error
    if type(answer.status) is not int or not 400 <= answer.status <= 599:
        raise web.HTTPBadRequest(text="Not an answer: status must be a number from 400 to 599\n")
    if not isinstance(answer.code, str) or not isinstance(answer.message, str):
        raise web.HTTPBadRequest(text="Not an answer: code and message must be text\n")
    return answer
