"""`/api/user`: the caller's ACS identity."""

from quart import Blueprint, Response

from quart_app.auth.caller import Caller
from quart_app.auth.guard import Guard
from quart_app.identities import IdentityService
from quart_app.web.error_names import ErrorName
from quart_app.web.json_answers import json_response, no_content
from quart_app.web.routes.description import Answer, Details, describes
from quart_app.web.routes.models import AcsUser

CREATION_DESCRIPTION = (
    Answer(200, "The caller had an ACS identity already.", AcsUser),
    Answer(201, "The caller's new ACS identity.", AcsUser),
    Answer(
        409, "The store can't hold the mapping, or what it holds can't be read.", error=ErrorName.MAPPING_UNREADABLE
    ),
)


def user_routes(identities: IdentityService, guard: Guard) -> Blueprint:
    """The routes of the caller's identity."""
    blueprint = Blueprint("user", __name__, url_prefix="/api/user")

    @blueprint.get("")
    @describes(
        "Get the caller's ACS identity",
        Details("Nothing is created: a caller without an identity is told so."),
        Answer(200, "The caller's ACS identity.", AcsUser),
        Answer(404, "The caller has no ACS identity yet."),
        Answer(409, "What is stored as the caller's identity can't be read.", error=ErrorName.MAPPING_UNREADABLE),
    )
    @guard.authenticated
    async def get_user(caller: Caller) -> Response:
        return user_answer(await identities.find(caller.user))

    @blueprint.post("")
    @describes(
        "Create the caller's ACS identity, if there is none",
        Details("It is safe to repeat and to race: a user has one identity, and every answer names it."),
        *CREATION_DESCRIPTION,
    )
    @guard.authenticated
    async def create_user(caller: Caller) -> Response:
        return await created_user_answer(identities, caller)

    @blueprint.delete("")
    @describes(
        "Delete the caller's ACS identity, its tokens and its data",
        Details("It can't be undone. Where there is nothing to delete, it succeeds too."),
        Answer(204, "The caller has no ACS identity any more."),
        Answer(
            409,
            "What is stored is sealed by a key that the service does not hold: the operator must look at it.",
            error=ErrorName.MAPPING_UNREADABLE,
        ),
    )
    @guard.authenticated
    async def delete_user(caller: Caller) -> Response:
        await identities.delete(caller.user)
        return no_content()

    return blueprint


def user_answer(acs_user_id: str, status: int = 200) -> Response:
    """The answer that holds an ACS identity."""
    body: AcsUser = {"acsUserIdentity": acs_user_id}
    return json_response(body, status)


async def created_user_answer(identities: IdentityService, caller: Caller) -> Response:
    """Make sure that the caller has an identity, and return it: 201 when it is new, else 200."""
    identity = await identities.get_or_create(caller.user)
    return user_answer(identity.acs_user_id, 201 if identity.created else 200)
