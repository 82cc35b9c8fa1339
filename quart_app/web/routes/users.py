"""`/api/users/resolve`: the ACS identities of the caller's colleagues, where the operator switched it on."""

from pydantic import TypeAdapter
from quart import Blueprint, Response

from quart_app.auth.caller import Caller
from quart_app.auth.guard import Guard
from quart_app.identities import IdentityService
from quart_app.settings import DoorName
from quart_app.web.bodies import json_body
from quart_app.web.error_names import ErrorName
from quart_app.web.json_answers import json_response
from quart_app.web.limits import RateLimit
from quart_app.web.routes.description import Answer, Details, RequestBody, ScopeBesides, describes
from quart_app.web.routes.models import ResolvedUsers, UsersToResolve

RESOLVE_PATH = "/api/users/resolve"
USERS_TO_RESOLVE = TypeAdapter(UsersToResolve)
WHAT_TO_SEND = 'Send {"userIds": […]}: at most 100 object ids of users, each a GUID.'


def resolve_routes(identities: IdentityService, guard: Guard, scope: str, rate_limit: RateLimit | None) -> Blueprint:
    """The route for users of Microsoft Entra ID whose token carries `scope`; each asks about their own tenant.

    Each user who is asked about counts as a request, because each is a read of the store.
    """
    blueprint = Blueprint("users", __name__)

    @blueprint.post(RESOLVE_PATH)
    @describes(
        "Get the ACS identities of users of the caller's own tenant",
        Details(
            "It answers for users of the caller's own tenant only. Each user who is asked about counts as a request."
        ),
        ScopeBesides(scope),
        RequestBody(
            UsersToResolve,
            "Whom the caller asks about. One who is named twice is answered once.",
            {"userIds": ["a1e5c0de-0001-4a6b-8f21-6d0c3b9e4f01", "a1e5c0de-0002-4a6b-8f21-6d0c3b9e4f02"]},
        ),
        Answer(
            200,
            "Those of the users who have an ACS identity. Who is unknown, has none yet, or whose identity is being "
            "deleted, is left out alike.",
            ResolvedUsers,
        ),
        Answer(400, "The body is not what this route takes.", error=ErrorName.INVALID_BODY),
        Answer(403, "The access token lacks a scope; WWW-Authenticate names it."),
        Answer(408, "The body did not arrive in time."),
        Answer(415, "The body is not said to be JSON."),
        Answer(502, "The store refused the service's own credential, or holds a mapping that can't be read."),
    )
    @guard.authenticated_with(scope, DoorName.ENTRA)
    async def resolve_users(caller: Caller) -> Response:
        wanted = distinct(await json_body(USERS_TO_RESOLVE, WHAT_TO_SEND))
        if rate_limit is not None:
            rate_limit.weigh(caller.user, len(wanted))
        found = await identities.resolve(caller.user.issuer, wanted)
        body: ResolvedUsers = {
            "users": [{"userId": object_id, "acsUserIdentity": identity} for object_id, identity in found.items()]
        }
        return json_response(body)

    return blueprint


def distinct(asked: UsersToResolve) -> tuple[str, ...]:
    """Who is asked about, each once: two spellings of an object id are one user, who is stored in lower case."""
    return tuple(dict.fromkeys(object_id.lower() for object_id in asked["userIds"]))
