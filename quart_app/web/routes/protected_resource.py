"""`/.well-known/oauth-protected-resource` (RFC 9728): where a client signs in for this API, and with which scope."""

from collections.abc import Collection, Iterable, Mapping

from quart import Blueprint, Response
from werkzeug.exceptions import NotFound

from quart_app.auth.doors import Door
from quart_app.auth.guard import public
from quart_app.web.error_names import ErrorName
from quart_app.web.json_answers import json_response
from quart_app.web.protected_resources import METADATA_PATH, asked_origin
from quart_app.web.routes.description import Answer, Details, describes
from quart_app.web.routes.models import ProtectedResource

DESCRIPTION = (
    Answer(200, "Where to sign in, and with which scopes.", ProtectedResource),
    Answer(404, "There is no such protected route, or the request's Host is no host name.", error=ErrorName.NOT_FOUND),
)


def protected_resource_routes(
    doors: Collection[Door], guarded_paths: Collection[str], scopes_besides: Mapping[str, str]
) -> Blueprint:
    """The metadata of the API as a whole, and of each of `guarded_paths`, where clients of all `doors` find theirs.

    `scopes_besides` are, by path, the scopes that only some need: a client that follows the challenge of another path
    asks for nothing that it has no use for.

    By RFC 9728, section 3.3, a client that follows a challenge takes a document only if its `resource` is exactly the
    URL that it had asked. So each path has its own.
    """
    blueprint = Blueprint("protected_resource", __name__, url_prefix=METADATA_PATH)

    def metadata(path: str, besides: Iterable[str]) -> Response:
        origin = asked_origin()
        if origin is None:
            raise NotFound
        body: ProtectedResource = {
            "resource": origin + path,
            "authorization_servers": [issuer for door in doors for issuer in door.authorization_servers],
            "scopes_supported": [*dict.fromkeys(scope for door in doors for scope in door.full_scopes), *besides],
            "bearer_methods_supported": ["header"],
            "resource_name": "ACS authentication service",
            "resource_documentation": f"{origin}/docs",
        }
        return json_response(body)

    @blueprint.get("")
    @describes(
        "Where clients sign in for this API (RFC 9728)",
        Details("Each protected route has such a document too, below this path: a challenge names it."),
        *DESCRIPTION,
    )
    @public
    async def get_protected_resource() -> Response:
        return metadata("", scopes_besides.values())

    @blueprint.get("/<path:path>")
    @public
    async def of_a_route(path: str) -> Response:
        if f"/{path}" not in guarded_paths:
            raise NotFound
        return metadata(f"/{path}", [scope for needing, scope in scopes_besides.items() if needing == f"/{path}"])

    return blueprint
