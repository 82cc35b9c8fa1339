"""`/api/token`: ACS access tokens for the caller."""

import re
from collections.abc import Mapping

from quart import Blueprint, Response, request
from werkzeug.datastructures import RequestCacheControl
from werkzeug.http import parse_cache_control_header

from quart_app.auth.caller import Caller
from quart_app.auth.guard import Guard
from quart_app.auth.teams_exchange import TeamsExchange
from quart_app.identities import IdentityService, TokenPolicy
from quart_app.settings import INCLUDED_SCOPES, DoorName
from quart_app.web.error_names import ErrorName
from quart_app.web.json_answers import json_response, no_content
from quart_app.web.routes.description import Answer, Details, HeaderParameter, QueryParameter, describes
from quart_app.web.routes.models import EXAMPLE_TOKEN, AcsUserToken, TeamsUserToken

TEAMS_TOKEN_HEADER = "teams-user-aad-token"  # noqa: S105

_SCOPE = f"({'|'.join(re.escape(name) for name in INCLUDED_SCOPES)})"
_SCOPES = f"^[ ,]*{_SCOPE}([ ,]+{_SCOPE})*[ ,]*$"

TOKEN_DESCRIPTION = (
    QueryParameter(
        "scope",
        "What the token is good for, separated by blanks: at most what the deployment allows, which is the default. "
        "`voip` includes `voip.join`; `chat` includes `chat.join`, and that `chat.join.limited`.",
        {"type": "string", "pattern": _SCOPES, "examples": ["voip.join"]},
    ),
    QueryParameter(
        "minutes",
        "For how long the token is good, at most as long as the deployment allows, which is the default.",
        {"type": "integer", "minimum": 60, "maximum": 1440, "examples": [60]},
    ),
    Answer(400, "The token that is asked for is more than the deployment allows.", error=ErrorName.SCOPE_NOT_ALLOWED),
    Answer(
        201,
        "An ACS access token: a new one, or one of the last minutes where the operator allows reuse. Cache-Control: "
        "no-cache asks for a new one.",
        AcsUserToken,
    ),
    Answer(404, "The caller has no ACS identity yet."),
    Answer(409, "The identity belongs to another ACS resource, no longer exists there, or can't be read in the store."),
)
SIGN_OUT_DESCRIPTION = (
    Answer(204, "All tokens of the caller are revoked. The identity stays, and a new token can be had at once."),
    Answer(404, "The caller has no ACS identity."),
    Answer(409, "The identity belongs to another ACS resource, no longer exists there, or can't be read in the store."),
)
TEAMS_DESCRIPTION = (
    HeaderParameter(TEAMS_TOKEN_HEADER, "The Teams user's Entra ID access token for ACS.", EXAMPLE_TOKEN),
    Answer(201, "A new ACS access token for the Teams user.", TeamsUserToken),
    Answer(
        400, "The Teams token is missing, or was issued to another application.", error=ErrorName.TEAMS_TOKEN_MISSING
    ),
    Answer(401, "No valid access token for this API, or a Teams token that is not valid or not for ACS."),
    Answer(403, "A scope is missing in either token, or the Teams token is another user's."),
    Answer(501, "No Teams client is configured, or the caller is no user of Microsoft Entra ID."),
)


class TokenAnswers:
    """Issues and exchanges tokens and writes the answers; shared by both names of each route.

    `policies` are what callers may have, by the door that they came in by.
    """

    def __init__(
        self, identities: IdentityService, policies: Mapping[DoorName, TokenPolicy], teams: TeamsExchange
    ) -> None:
        self._identities = identities
        self._policies = policies
        self._teams = teams

    async def user_token(self, caller: Caller) -> Response:
        """An ACS access token for the caller's own identity. Clients bypass kept ones (RFC 9111, section 5.2.1)."""
        asked = parse_cache_control_header(request.headers.get("Cache-Control", "").lower(), cls=RequestCacheControl)
        fresh = bool(asked.no_cache or asked.no_store or asked.max_age == 0)
        wanted = self._policies[caller.door].narrowed(_scopes(), _minutes())
        issued = await self._identities.issue_token(caller.user, wanted, fresh=fresh, keep=not asked.no_store)
        body: AcsUserToken = {
            "token": issued.token.token,
            "expiresOn": issued.token.expires_on,
            "user": {"communicationUserId": issued.acs_user_id},
        }
        return json_response(body, 201)

    async def sign_out(self, caller: Caller) -> Response:
        """Revoke the caller's ACS access tokens, on every device."""
        await self._identities.sign_out(caller.user)
        return no_content()

    async def teams_token(self, caller: Caller) -> Response:
        """An ACS access token for the caller as a Teams user."""
        teams_token = ",".join(request.headers.getlist(TEAMS_TOKEN_HEADER))  # several are no token: RFC 9110, 5.3
        token = await self._teams.exchange(teams_token, caller)
        body: TeamsUserToken = {"token": token.token, "expiresOn": token.expires_on}
        return json_response(body, 201)


def token_routes(answers: TokenAnswers, guard: Guard) -> Blueprint:
    """The routes of the caller's tokens."""
    blueprint = Blueprint("token", __name__, url_prefix="/api/token")

    @blueprint.get("")
    @describes(
        "Get an ACS access token for the caller",
        Details("Create the caller's identity first. Renew the token some 15 minutes before it ends."),
        *TOKEN_DESCRIPTION,
    )
    @guard.authenticated
    async def get_token(caller: Caller) -> Response:
        return await answers.user_token(caller)

    @blueprint.delete("")
    @describes(
        "Sign the caller out everywhere: revoke all of their ACS access tokens",
        Details("Apps on every device of the caller's then need a new token. The sign-in at Entra ID goes on."),
        *SIGN_OUT_DESCRIPTION,
    )
    @guard.authenticated
    async def sign_out(caller: Caller) -> Response:
        return await answers.sign_out(caller)

    @blueprint.get("/teams")
    @describes(
        "Exchange the caller's Teams token for an ACS access token",
        Details("For the caller as a Teams user; no ACS identity is needed, and none is made."),
        *TEAMS_DESCRIPTION,
    )
    @guard.authenticated
    async def get_teams_token(caller: Caller) -> Response:
        return await answers.teams_token(caller)

    return blueprint


def _scopes() -> tuple[str, ...] | None:
    given = request.args.getlist("scope")
    return None if not given else tuple(" ".join(given).replace(",", " ").split())


def _minutes() -> int | None:
    given = request.args.getlist("minutes")
    if not given:
        return None
    # What is not a number is a lifetime that nobody allows.
    return int(given[0]) if len(given) == 1 and re.fullmatch(r"[0-9]{1,5}", given[0]) else -1
