"""The older route names of Microsoft's samples, kept so that existing clients go on working."""

from quart import Blueprint, Response

from quart_app.auth.caller import Caller
from quart_app.auth.guard import Guard
from quart_app.identities import IdentityService
from quart_app.web.routes.description import OlderNameOf, describes
from quart_app.web.routes.token import TEAMS_DESCRIPTION, TOKEN_DESCRIPTION, TokenAnswers
from quart_app.web.routes.user import CREATION_DESCRIPTION, created_user_answer


def older_name_routes(identities: IdentityService, answers: TokenAnswers, guard: Guard) -> Blueprint:
    """`/getUser`, `/getToken` and `/exchangeToken`."""
    blueprint = Blueprint("older_names", __name__)

    @blueprint.route("/getUser", methods=["GET", "POST"])
    @describes(
        "Get the caller's ACS identity, creating it if there is none",
        OlderNameOf("POST /api/user"),
        *CREATION_DESCRIPTION,
    )
    @guard.authenticated
    async def older_get_user(caller: Caller) -> Response:
        return await created_user_answer(identities, caller)

    @blueprint.get("/getToken")
    @describes("Get an ACS access token for the caller", OlderNameOf("GET /api/token"), *TOKEN_DESCRIPTION)
    @guard.authenticated
    async def older_get_token(caller: Caller) -> Response:
        return await answers.user_token(caller)

    @blueprint.get("/exchangeToken")
    @describes(
        "Exchange the caller's Teams token for an ACS access token",
        OlderNameOf("GET /api/token/teams"),
        *TEAMS_DESCRIPTION,
    )
    @guard.authenticated
    async def older_exchange_token(caller: Caller) -> Response:
        return await answers.teams_token(caller)

    return blueprint
