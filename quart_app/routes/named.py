"""The older route names of Microsoft's samples, kept so that existing clients go on working."""

from quart import Blueprint, Response

from quart_app.auth.caller import Caller
from quart_app.auth.guard import Guard
from quart_app.identities import IdentityService
from quart_app.routes.description import Answer, describes
from quart_app.routes.models import AcsUser
from quart_app.routes.token import TEAMS_DESCRIPTION, TOKEN_DESCRIPTION, TokenAnswers
from quart_app.routes.user import created_user_answer


def named_routes(identities: IdentityService, answers: TokenAnswers, guard: Guard) -> Blueprint:
    """`/getUser`, `/getToken` and `/exchangeToken`."""
    blueprint = Blueprint("named", __name__)

    @blueprint.route("/getUser", methods=["GET", "POST"])
    @describes(
        "Tell the caller's ACS identity, creating it if there is none",
        Answer(200, "The caller had an ACS identity already.", AcsUser),
        Answer(201, "The caller's new ACS identity.", AcsUser),
        Answer(409, "The store can't hold the mapping."),
        Answer(502, "ACS or the store refused the service's own credential."),
    )
    @guard.authenticated
    async def named_get_user(caller: Caller) -> Response:
        return await created_user_answer(identities, caller)

    @blueprint.get("/getToken")
    @describes("Get an ACS access token for the caller", *TOKEN_DESCRIPTION)
    @guard.authenticated
    async def named_get_token(caller: Caller) -> Response:
        return await answers.user_token(caller)

    @blueprint.get("/exchangeToken")
    @describes("Exchange the caller's Teams token for an ACS access token", *TEAMS_DESCRIPTION)
    @guard.authenticated
    async def named_exchange_token(caller: Caller) -> Response:
        return await answers.teams_token(caller)

    return blueprint
