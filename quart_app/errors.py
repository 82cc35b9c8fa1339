"""One error model, one JSON writer: every refusal and every failure leaves the service through this module."""

import base64
import json
import logging
import math
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from quart import Quart, Response, g
from werkzeug.exceptions import HTTPException, MethodNotAllowed
from werkzeug.http import HTTP_STATUS_CODES

from quart_app.auth.access_tokens import InsufficientRole, InsufficientScope
from quart_app.auth.guard import NoAccessToken
from quart_app.auth.on_behalf_of_errors import (
    AssertionRefused,
    ConsentRequired,
    OnBehalfOfError,
    OnBehalfOfThrottled,
    OnBehalfOfUnavailable,
)
from quart_app.auth.signed_tokens import InvalidAccessToken
from quart_app.auth.signing_keys import SigningKeysUnavailable
from quart_app.auth.step_up import StepUpNotPossible, StepUpRequired
from quart_app.auth.teams_tokens import TeamsClientsUnknown, TeamsExchangeNotOffered, TeamsTokenInvalid
from quart_app.communication import (
    CommunicationCredentialsRejected,
    CommunicationError,
    CommunicationThrottled,
    CommunicationUnavailable,
    TeamsTokenRefused,
    UnexpectedAnswer,
)
from quart_app.identities import IdentityNotFound, MappedIdentityGone, MappedIdentityNotOwned
from quart_app.limits import TooBusy, TooManyRequests
from storage.mapping import (
    ExtensionLimitReached,
    StoreAccessDenied,
    StoreError,
    StoreMisconfigured,
    StoreThrottled,
    StoreUnavailable,
)

logger = logging.getLogger(__name__)

DEFAULT_RETRY_AFTER_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Refusal:
    """What the client is told: a status, a stable name and a sentence that says what to do."""

    status: int
    error: str
    message: str
    headers: Mapping[str, str] = field(default_factory=dict)


INVALID_TOKEN = "Send a valid access token for this API: Authorization: Bearer <access token>."  # noqa: S105
INTERNAL_ERROR = Refusal(500, "internal_error", "Something went wrong here. Report the requestId to the operator.")


def json_response(body: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """The one way a JSON answer is written."""
    return Response(_as_json(body), status, headers=dict(headers or {}), mimetype="application/json")


def no_content() -> Response:
    """204, which has neither a body nor a type."""
    response = Response("", 204)
    del response.headers["Content-Type"]
    return response


def describe(error: BaseException, authority_host: str) -> Refusal:
    """The answer to an error; one that is not known is an internal error.

    `authority_host` is the root of the Entra ID to which a claims challenge sends the client.
    """
    if isinstance(error, StepUpRequired):
        return _claims_challenge(error, authority_host)
    for kind, answer in _ANSWERS.items():
        if isinstance(error, kind):
            return answer(error) if callable(answer) else answer
    if isinstance(error, HTTPException):
        return _framework_refusal(error)
    return INTERNAL_ERROR


def register_error_handlers(app: Quart, authority_host: str, *, stack_traces: bool) -> None:
    """Answer every error with the one model. `stack_traces` (development only) adds where it was raised."""

    async def answer(error: Exception) -> Response:
        refusal = describe(error, authority_host)
        g.error = refusal.error
        if refusal is INTERNAL_ERROR:
            logger.error("unexpected error", exc_info=error)
        body: dict[str, Any] = {
            "code": refusal.status,
            "error": refusal.error,
            "message": refusal.message,
            "requestId": g.get("request_id", ""),
        }
        if stack_traces:
            body["stack_trace"] = "".join(traceback.format_exception(error))
        return json_response(body, refusal.status, refusal.headers)

    app.register_error_handler(Exception, answer)


class RefusedWebsocket:
    """Quart's `asgi_websocket_class` of a service without WebSockets: each is answered 405.

    Quart 0.23 refuses one too, and then waits for its client to go, which need never do so.
    """

    def __init__(self, app: Quart, scope: Any) -> None:
        pass

    async def __call__(self, receive: Any, send: Any) -> None:
        refusal = describe(MethodNotAllowed(), "")
        content = {"code": refusal.status, "error": refusal.error, "message": refusal.message, "requestId": ""}
        body = _as_json(content).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await send({"type": "websocket.http.response.start", "status": refusal.status, "headers": headers})
        await send({"type": "websocket.http.response.body", "body": body, "more_body": False})


def _unavailable(what: str) -> Callable[[Any], Refusal]:
    def answer(error: Any) -> Refusal:
        seconds = getattr(error, "retry_after", None) or DEFAULT_RETRY_AFTER_SECONDS
        return Refusal(
            503,
            "service_unavailable",
            f"{what} Repeat the request after the time in Retry-After.",
            {"Retry-After": str(math.ceil(seconds))},
        )

    return answer


def _too_many_requests(error: Any) -> Refusal:
    message = "You send too many requests. Repeat this one after the time in Retry-After."
    return Refusal(429, "too_many_requests", message, {"Retry-After": str(math.ceil(error.retry_after))})


def _challenge(error: str, description: str, **more: str) -> dict[str, str]:
    """RFC 6750, section 3."""
    parts = {"error": error, "error_description": description, **more}
    return {"WWW-Authenticate": "Bearer " + ", ".join(f'{name}="{value}"' for name, value in parts.items())}


def _insufficient_scope(error: Any) -> Refusal:
    message = "The access token lacks the scope of this API; ask for it when you get the token."
    return Refusal(403, "insufficient_scope", message, _challenge("insufficient_scope", message, scope=error.scope))


def _claims_challenge(error: StepUpRequired, authority_host: str) -> Refusal:
    """The form that MSAL clients act on: https://learn.microsoft.com/entra/identity-platform/claims-challenge.

    Nothing is added to it: the parser that Microsoft's documentation gives to clients takes a comma for the end of a
    parameter, also within quotes.
    """
    message = "Sign in again with the claims of the WWW-Authenticate header, and repeat the request with that token."
    encoded = base64.b64encode(error.claims.encode()).decode()
    challenge = (
        f'Bearer realm="{error.tenant_id}", '
        f'authorization_uri="{authority_host}/{error.tenant_id}/oauth2/v2.0/authorize", '
        f'error="insufficient_claims", claims="{encoded}"'
    )
    return Refusal(401, "insufficient_claims", message, {"WWW-Authenticate": challenge})


def _teams_token(error: Any) -> Refusal:
    status, message = _TEAMS_TOKEN[error.part]
    headers = _challenge("invalid_token", message) if status == 401 else {}
    return Refusal(status, f"teams_token_{error.part}", message, headers)


def _framework_refusal(error: HTTPException) -> Refusal:
    status = HTTPStatus(error.code or 500)
    headers = {name: value for name, value in error.get_headers() if name.lower() in ("allow", "retry-after")}
    message = _FRAMEWORK_MESSAGES.get(status, "The request can't be served as it is.")
    # Not HTTPStatus's own names: they change between versions of Python.
    return Refusal(status.value, HTTP_STATUS_CODES[status].lower().replace(" ", "_"), message, headers)


_as_json = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode

_INVALID_TOKEN = Refusal(401, "invalid_token", INVALID_TOKEN, _challenge("invalid_token", INVALID_TOKEN))

_CONSENT = "The user or an administrator must first consent to what this API does for the user in Microsoft Graph."

_STEP_UP = (
    "A policy wants the user to sign in again and prove more, for example by multi-factor authentication. Let the "
    "client declare the capability cp1 when it gets its token (MSAL: clientCapabilities), so that it can be told what."
)

_ROLE = "The user lacks the role that this API requires; let an administrator of the sign-in assign it."

_FRAMEWORK_MESSAGES = {
    HTTPStatus.NOT_FOUND: "There is no such route; /docs lists them.",
    HTTPStatus.METHOD_NOT_ALLOWED: "This route does not take that method; the Allow header lists those it takes.",
    HTTPStatus.REQUEST_TIMEOUT: "The request's body did not arrive in time; no route here needs a body.",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "The request is too large; no route here needs a body.",
}

_TEAMS_TOKEN = {
    "missing": (400, "Send the Teams user's Entra ID access token in the header teams-user-aad-token."),
    "user": (403, "The Teams token must be that of the caller: its oid and tid must equal the caller's."),
    "client": (400, "The Teams token was issued to an application that is not one of TEAMS_CLIENT_IDS."),
    "token": (401, "The Teams token was not accepted; get a fresh one with the Teams.ManageCalls and "
              "Teams.ManageChats scopes of ACS."),
    "audience": (401, "The Teams token is for another API; get one for ACS: https://auth.msft.communication.azure.com "
                 "with the scopes Teams.ManageCalls and Teams.ManageChats."),
    "scope": (403, "The Teams token allows neither Teams.ManageCalls nor Teams.ManageChats of ACS."),
}  # fmt: skip

_ANSWERS: Mapping[type[BaseException], Refusal | Callable[[Any], Refusal]] = {
    NoAccessToken: Refusal(401, "invalid_token", INVALID_TOKEN, {"WWW-Authenticate": "Bearer"}),
    InvalidAccessToken: _INVALID_TOKEN,
    InsufficientScope: _insufficient_scope,
    InsufficientRole: Refusal(403, "insufficient_role", _ROLE, _challenge("insufficient_scope", _ROLE)),
    SigningKeysUnavailable: _unavailable("Access tokens can't be verified at the moment."),
    IdentityNotFound: Refusal(
        404, "identity_not_found", "The caller has no ACS identity yet; create one with POST /api/user."
    ),
    MappedIdentityNotOwned: Refusal(
        409,
        "identity_resource_mismatch",
        "The caller's ACS identity belongs to another ACS resource. Point the service back to that resource, or call "
        "DELETE /api/user and then POST /api/user for a new identity.",
    ),
    MappedIdentityGone: Refusal(
        409,
        "identity_gone",
        "The caller's ACS identity no longer exists in ACS. Call DELETE /api/user, then POST /api/user for a new one.",
    ),
    TeamsTokenInvalid: _teams_token,
    TeamsTokenRefused: _teams_token,
    TeamsClientsUnknown: Refusal(
        501,
        "teams_exchange_not_configured",
        "No client application is allowed to have Teams tokens exchanged; the operator must name it in the setting "
        "TEAMS_CLIENT_IDS.",
    ),
    TeamsExchangeNotOffered: Refusal(
        501,
        "teams_exchange_not_offered",
        "Teams tokens are exchanged for users of Microsoft Entra ID alone; this service's users sign in elsewhere.",
    ),
    StepUpNotPossible: Refusal(403, "step_up_required", _STEP_UP, _challenge("insufficient_scope", _STEP_UP)),
    StoreAccessDenied: _INVALID_TOKEN,
    ConsentRequired: Refusal(403, "consent_required", _CONSENT, _challenge("insufficient_scope", _CONSENT)),
    AssertionRefused: _INVALID_TOKEN,
    OnBehalfOfThrottled: _unavailable("Microsoft Entra ID is busy."),
    OnBehalfOfUnavailable: _unavailable("Microsoft Entra ID can't be reached."),
    OnBehalfOfError: Refusal(
        502,
        "upstream_credentials_rejected",
        "Microsoft Entra ID refused this service's own credential or registration; the operator must look at it.",
    ),
    ExtensionLimitReached: Refusal(
        409,
        "extension_limit_reached",
        "The user object in Microsoft Graph can't hold another extension of this application; remove one, or let the "
        "operator choose the Cosmos DB store.",
    ),
    CommunicationCredentialsRejected: Refusal(
        502,
        "upstream_credentials_rejected",
        "Azure Communication Services refused this service's own credential; the operator must renew it.",
    ),
    StoreMisconfigured: Refusal(
        502,
        "upstream_credentials_rejected",
        "The mapping store refused this service; the operator must look at its set-up.",
    ),
    StoreThrottled: _unavailable("The mapping store is busy."),
    StoreUnavailable: _unavailable("The mapping store can't be reached."),
    CommunicationThrottled: _unavailable("Azure Communication Services is busy."),
    CommunicationUnavailable: _unavailable("Azure Communication Services can't be reached."),
    UnexpectedAnswer: Refusal(
        502,
        "unexpected_upstream_answer",
        "Azure Communication Services answered in a way that this service does not know; report the requestId.",
    ),
    StoreError: _unavailable("The mapping store did not do its part."),
    CommunicationError: _unavailable("Azure Communication Services did not do its part."),
    TooManyRequests: _too_many_requests,
    TooBusy: _unavailable("The service is busy."),
    TimeoutError: _unavailable("The request took too long."),
}
