"""`/.well-known/oauth-protected-resource` (RFC 9728): where a client signs in for this API, and with which scope."""

from collections.abc import Collection

from quart import Blueprint, Response
from werkzeug.exceptions import NotFound

from quart_app.auth.guard import public
from quart_app.auth.issuers import AcceptedTokens
from quart_app.web.error_names import ErrorName
from quart_app.web.json_answers import json_response
from quart_app.web.protected_resources import METADATA_PATH, asked_origin
from quart_app.web.routes.description import Answer, Details, describes
from quart_app.web.routes.models import ProtectedResource

DESCRIPTION = (
    Answer(200, "Where to sign in, and with which scopes.", ProtectedResource),
    Answer(404, "There is no such protected route, or the request's Host is no host name.", error=ErrorName.NOT_FOUND),
)


def protected_resource_routes(accepted: AcceptedTokens, guarded_paths: Collection[str]) -> Blueprint:
    """The metadata of the API as a whole, and of each of `guarded_paths`.

    By RFC 9728, section 3.3, a client that follows a challenge takes a document only if its `resource` is exactly the
    URL that it had asked. So each path has its own.
    """
    blueprint = Blueprint("protected_resource", __name__, url_prefix=METADATA_PATH)

    def metadata(path: str) -> Response:
        origin = asked_origin()
        if origin is None:
            raise NotFound
        body: ProtectedResource = {
            "resource": origin + path,
            "authorization_servers": list(accepted.authorization_servers),
            "scopes_supported": list(accepted.full_scopes),
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
        return metadata("")

    @blueprint.get("/<path:path>")
    @public
    async def of_a_route(path: str) -> Response:
        if f"/{path}" not in guarded_paths:
            raise NotFound
        return metadata(f"/{path}")

    return blueprint
