"""One error model: every refusal and every failure of the service gets its answer here."""

import base64
import logging
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Any

from quart import Quart, Response, g, request
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from quart_app.acs.interface import (
    AcsCredentialsRejected,
    AcsError,
    AcsMisconfigured,
    AcsThrottled,
    AcsUnavailable,
    TeamsTokenRefused,
    TeamsUserNotAllowed,
    UnexpectedAnswer,
)
from quart_app.auth.on_behalf_of.errors import (
    AssertionRefused,
    CallerNotAllowed,
    CallerNotFound,
    ConsentRequired,
    InteractionRequired,
    OnBehalfOfError,
    OnBehalfOfThrottled,
    OnBehalfOfUnavailable,
    OnBehalfOfUnexpectedAnswer,
)
from quart_app.auth.refusals import (
    InsufficientRole,
    InsufficientScope,
    InvalidAccessToken,
    MalformedCredentials,
    NoAccessToken,
    Reason,
    TokenRefused,
)
from quart_app.auth.signing_keys import SigningKeysUnavailable
from quart_app.auth.step_up import StepUpNotPossible, StepUpRequired
from quart_app.auth.teams_tokens import TeamsClientsUnknown, TeamsExchangeNotOffered, TeamsTokenInvalid
from quart_app.credentials import ManagedIdentityError, ManagedIdentityThrottled, ManagedIdentityUnavailable
from quart_app.identities import IdentityNotFound, MappedIdentityGone, MappedIdentityNotOwned, TooManyFlights
from quart_app.identities.token_policy import LifetimeNotAllowed, ScopeNotAllowed
from quart_app.web.bodies import InvalidBody
from quart_app.web.error_names import ErrorName
from quart_app.web.json_answers import as_json, json_response
from quart_app.web.limits import TooBusy, TooManyRequests
from quart_app.web.pages import NO_SUCH_PAGE, page, wants_page
from quart_app.web.protected_resources import metadata_url
from quart_app.web.security_headers import SECURITY_HEADERS
from quart_app.web.stack_traces import stack_trace
from storage.mapping import (
    ExtensionLimitReached,
    MappingUnreadable,
    StorageFull,
    StoreAccessDenied,
    StoreError,
    StoreMisconfigured,
    StoreThrottled,
    StoreUnavailable,
    StoreUnexpectedAnswer,
    StoreUserNotFound,
    Unreadable,
)

logger = logging.getLogger(__name__)

DEFAULT_RETRY_AFTER_SECONDS = 5.0
STORAGE_FULL_RETRY_AFTER_SECONDS = 30
"""How long a refused write is remembered (`identities.refused_writes`)."""


@dataclass(frozen=True, slots=True)
class ErrorResponse:
    """What the client gets: a stable name, which has its status, a sentence that says what to do, and headers."""

    error: ErrorName
    message: str
    headers: Mapping[str, str] = field(default_factory=dict)

    def body(self, request_id: str) -> dict[str, Any]:
        """The members of the JSON answer."""
        return {
            "code": self.error.status,
            "error": self.error.value,
            "message": self.message,
            "requestId": request_id,
        }


INVALID_TOKEN = "Send a valid access token for this API: Authorization: Bearer <access token>."  # noqa: S105
MALFORMED_CREDENTIALS = "Send one Authorization header: Bearer, a space, and the access token."
INTERNAL_ERROR = ErrorResponse(
    ErrorName.INTERNAL_ERROR, "Something went wrong here. Report the requestId to the operator."
)


def describe(error: BaseException, authority_host: str) -> ErrorResponse:
    """The answer to an error, by the nearest of its class's bases that has one; without any, an internal error.

    `authority_host` is the root of the Entra ID to which a claims challenge sends the client.
    """
    for kind in type(error).__mro__:
        answer = _ANSWERS.get(kind)
        if answer is not None:
            return answer if isinstance(answer, ErrorResponse) else answer(error, authority_host)
    return INTERNAL_ERROR


def reason_of(error: BaseException) -> Reason | None:
    """Why a token was refused, if that is what the error says."""
    return error.reason if isinstance(error, TokenRefused | TeamsTokenInvalid) else None


def register_error_handlers(app: Quart, authority_host: str, *, told_more: bool) -> None:
    """Answer every error with the one model.

    `told_more` (development only) adds to a refused token the reason, and to an error of the service where it was
    raised. That a token has expired is always said.
    """

    async def answer(error: Exception) -> Response:
        try:
            response = describe(error, authority_host)
        except Exception:
            logger.exception("an error could not be described")
            response = INTERNAL_ERROR
        if response.error.status == HTTPStatus.UNAUTHORIZED:
            response = _naming_metadata(response)
        reason = reason_of(error)
        g.error, g.reason = response.error.value, reason.value if reason else None
        if response is INTERNAL_ERROR:
            logger.error("unexpected error", exc_info=error)
        body = response.body(g.get("request_id", ""))
        if reason is not None and (told_more or reason is Reason.EXPIRED):
            body["reason"] = reason.value
        if told_more and response.error.status >= 500:
            body["stack_trace"] = stack_trace(error)
        if response.error is ErrorName.NOT_FOUND and wants_page(request.method, request.accept_mimetypes):
            return page("Not found", NO_SUCH_PAGE, response.error.status)
        return json_response(body, response.error.status, response.headers)

    app.register_error_handler(Exception, answer)


class RefusedWebsocket:
    """Quart's `asgi_websocket_class` of a service without WebSockets: each is answered 405.

    Quart 0.23 refuses one too, and then waits for its client to go, which it may never do.
    """

    def __init__(self, app: Quart, scope: Any) -> None:
        pass

    async def __call__(self, receive: Any, send: Any) -> None:
        response = describe(MethodNotAllowed(), "")
        body = as_json(response.body("")).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await send({"type": "websocket.http.response.start", "status": response.error.status, "headers": headers})
        await send({"type": "websocket.http.response.body", "body": body, "more_body": False})


def refusal_by_the_server(status: int) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Headers and body of the answer to a request that the HTTP server can't read, so the application never sees it."""
    name = next((name for name in _REFUSED_BY_THE_SERVER if name.status == status), ErrorName.BAD_REQUEST)
    response = ErrorResponse(name, "The request is not well-formed HTTP, or its head is too large.")
    headers = [(b"content-type", b"application/json"), *SECURITY_HEADERS]
    return headers, as_json({**response.body(""), "code": status}).encode()


def refusal_while_starting() -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Headers and body of the 503 that is answered until the application is open."""
    name = ErrorName.SERVICE_UNAVAILABLE
    response = ErrorResponse(name, "The service is starting. Repeat the request after the time in Retry-After.")
    retry_after = str(math.ceil(DEFAULT_RETRY_AFTER_SECONDS)).encode()
    headers = [(b"content-type", b"application/json"), (b"retry-after", retry_after), *SECURITY_HEADERS]
    return headers, as_json({**response.body(""), "code": name.status}).encode()


def refusal_when_busy(request_id: str) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Headers and body of the 503 to a request beyond the limits, as `describe` gives it for `TooBusy`."""
    body = as_json(_WHEN_BUSY.body(request_id)).encode()
    # The length, because the server would otherwise send the body in chunks, which costs it half as much again.
    return [*_WHEN_BUSY_HEADERS, (b"content-length", str(len(body)).encode())], body


def _unavailable(what: str) -> "_Answer":
    def answer(error: Any, _: str) -> ErrorResponse:
        seconds = getattr(error, "retry_after", None) or DEFAULT_RETRY_AFTER_SECONDS
        return ErrorResponse(
            ErrorName.SERVICE_UNAVAILABLE,
            f"{what} Repeat the request after the time in Retry-After.",
            {"Retry-After": str(math.ceil(seconds))},
        )

    return answer


def _too_many_requests(error: Any, _: str) -> ErrorResponse:
    message = "Too many requests. Repeat this one after the time in Retry-After."
    return ErrorResponse(ErrorName.TOO_MANY_REQUESTS, message, {"Retry-After": str(math.ceil(error.retry_after))})


def _challenge(error: str, description: str, **more: str) -> dict[str, str]:
    """RFC 6750, section 3."""
    parts = {"error": error, "error_description": description, **more}
    return {"WWW-Authenticate": "Bearer " + ", ".join(f'{name}="{value}"' for name, value in parts.items())}


def _naming_metadata(response: ErrorResponse) -> ErrorResponse:
    """RFC 9728, section 5.1: a challenge says how to find out where to sign in; no claims challenge does."""
    challenge, metadata = response.headers.get("WWW-Authenticate"), metadata_url()
    if challenge is None or metadata is None or response.error is ErrorName.INSUFFICIENT_CLAIMS:
        return response
    separator = " " if challenge == "Bearer" else ", "
    named = f'{challenge}{separator}resource_metadata="{metadata}"'
    return replace(response, headers={**response.headers, "WWW-Authenticate": named})


def _insufficient_scope(error: Any, _: str) -> ErrorResponse:
    message = f"The access token lacks the scope {error.scope} of this API; ask for it when you get the token."
    headers = _challenge("insufficient_scope", message, scope=error.scope)
    return ErrorResponse(ErrorName.INSUFFICIENT_SCOPE, message, headers)


def _claims_challenge(error: Any, authority_host: str) -> ErrorResponse:
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
    return ErrorResponse(ErrorName.INSUFFICIENT_CLAIMS, message, {"WWW-Authenticate": challenge})


def _teams_token(error: Any, _: str) -> ErrorResponse:
    name, message = _TEAMS_TOKEN[error.part]
    headers = _challenge("invalid_token", message) if name.status == 401 else {}
    return ErrorResponse(name, message, headers)


def _framework_refusal(error: Any, _: str) -> ErrorResponse:
    status = error.code or 500
    headers = {name: value for name, value in error.get_headers() if name.lower() in ("allow", "retry-after")}
    name = _FRAMEWORK_NAMES.get(status)
    if name is None:
        return INTERNAL_ERROR
    message = _FRAMEWORK_MESSAGES.get(HTTPStatus(status), "The request can't be served as it is.")
    return ErrorResponse(name, message, headers)


_FRAMEWORK_NAMES = {
    name.status: name
    for name in (
        ErrorName.BAD_REQUEST,
        ErrorName.NOT_FOUND,
        ErrorName.METHOD_NOT_ALLOWED,
        ErrorName.REQUEST_TIMEOUT,
        ErrorName.REQUEST_ENTITY_TOO_LARGE,
        ErrorName.UNSUPPORTED_MEDIA_TYPE,
        ErrorName.NOT_IMPLEMENTED,
    )
}

_INVALID_TOKEN = ErrorResponse(ErrorName.INVALID_TOKEN, INVALID_TOKEN, _challenge("invalid_token", INVALID_TOKEN))

_CONSENT = "The user or an administrator must first consent to what this API does for the user in Microsoft Graph."

_STEP_UP = (
    "A policy requires the user to sign in again and prove more, for example by multi-factor authentication. Let the "
    "client declare the capability cp1 when it gets its token (MSAL: clientCapabilities), so that it can be told what."
)

_INTERACTION = (
    "A policy requires the user to sign in interactively, for example by multi-factor authentication or with a new "
    "password. Let the user sign out of the client and in again."
)

_USER_NOT_FOUND = "The user does not exist in the directory; an administrator must look at the account."

_USER_NOT_ALLOWED = (
    "The organization does not let this user in: the account is disabled, not assigned to the application, or blocked "
    "by a policy. An administrator must look at it."
)

_TEAMS_USER_NOT_ALLOWED = (
    "Azure Communication Services does not let this user act as a Teams user: guests can't, nor can users without a "
    "Teams licence."
)

_BUSY = "The service is busy."
_UNEXPECTED = "answered in a way that this service does not know; report the requestId."

_ROLE = "The user lacks the role that this API requires; let an administrator of the sign-in assign it."

_FRAMEWORK_MESSAGES = {
    HTTPStatus.NOT_FOUND: "There is no such route; /docs lists them.",
    HTTPStatus.METHOD_NOT_ALLOWED: "This route does not take that method; the Allow header lists those it takes.",
    HTTPStatus.REQUEST_TIMEOUT: "The request's body did not arrive in time; send it together with the request.",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "The request's body is larger than 16 KiB; send a smaller one.",
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: "Send the body as JSON: Content-Type: application/json.",
}

_TEAMS_TOKEN = {
    "missing": (
        ErrorName.TEAMS_TOKEN_MISSING,
        "Send the Teams user's Entra ID access token in the header teams-user-aad-token.",
    ),
    "user": (
        ErrorName.TEAMS_TOKEN_USER,
        "The Teams token must be that of the caller: its oid and tid must equal the caller's.",
    ),
    "client": (
        ErrorName.TEAMS_TOKEN_CLIENT,
        "The Teams token was issued to an application that is not one of TEAMS_CLIENT_IDS.",
    ),
    "token": (
        ErrorName.TEAMS_TOKEN_TOKEN,
        "The Teams token was not accepted; get a fresh one with the Teams.ManageCalls and Teams.ManageChats scopes of "
        "ACS.",
    ),
    "audience": (
        ErrorName.TEAMS_TOKEN_AUDIENCE,
        "The Teams token is for another API; get one for ACS: https://auth.msft.communication.azure.com with the "
        "scopes Teams.ManageCalls and Teams.ManageChats.",
    ),
    "scope": (
        ErrorName.TEAMS_TOKEN_SCOPE,
        "The Teams token allows neither Teams.ManageCalls nor Teams.ManageChats of ACS.",
    ),
}


def _mapping_unreadable(error: MappingUnreadable, _: str) -> ErrorResponse:
    unreadable = error.unreadable
    if unreadable.reason is Unreadable.SEAL_KEY_NOT_HELD:
        text = (
            "The caller's stored identity is sealed by a key that this service does not hold; report the requestId to "
            "the operator, who must add the key to GRAPH_SEAL_KEYS."
        )
    elif unreadable.users_may_write:
        text = (
            "The caller's stored identity is damaged, unsealed or sealed for someone else. Call DELETE /api/user, then "
            "POST /api/user for a new one."
        )
    else:
        text = "The caller's stored identity is damaged; report the requestId to the operator."
    return ErrorResponse(ErrorName.MAPPING_UNREADABLE, text)


_REFUSED_BY_THE_SERVER = (
    ErrorName.REQUEST_TIMEOUT,
    ErrorName.REQUEST_ENTITY_TOO_LARGE,
    ErrorName.REQUEST_HEADER_FIELDS_TOO_LARGE,
    ErrorName.NOT_IMPLEMENTED,
)

_NOT_FOUND = ErrorResponse(ErrorName.USER_NOT_FOUND, _USER_NOT_FOUND, _challenge("insufficient_scope", _USER_NOT_FOUND))

_Answer = Callable[[Any, str], ErrorResponse]

_ANSWERS: Mapping[type, ErrorResponse | _Answer] = {
    NoAccessToken: ErrorResponse(ErrorName.INVALID_TOKEN, INVALID_TOKEN, {"WWW-Authenticate": "Bearer"}),
    MalformedCredentials: ErrorResponse(
        ErrorName.INVALID_REQUEST, MALFORMED_CREDENTIALS, _challenge("invalid_request", MALFORMED_CREDENTIALS)
    ),
    InvalidAccessToken: _INVALID_TOKEN,
    InsufficientScope: _insufficient_scope,
    InsufficientRole: ErrorResponse(ErrorName.INSUFFICIENT_ROLE, _ROLE, _challenge("insufficient_scope", _ROLE)),
    SigningKeysUnavailable: _unavailable("Access tokens can't be verified at the moment."),
    IdentityNotFound: ErrorResponse(
        ErrorName.IDENTITY_NOT_FOUND, "The caller has no ACS identity yet; create one with POST /api/user."
    ),
    MappedIdentityNotOwned: ErrorResponse(
        ErrorName.IDENTITY_RESOURCE_MISMATCH,
        "The caller's ACS identity belongs to another ACS resource. Point the service back to that resource, or call "
        "DELETE /api/user and then POST /api/user for a new identity.",
    ),
    MappedIdentityGone: ErrorResponse(
        ErrorName.IDENTITY_GONE,
        "The caller's ACS identity no longer exists in ACS. Call DELETE /api/user, then POST /api/user for a new one.",
    ),
    InvalidBody: lambda error, _: ErrorResponse(ErrorName.INVALID_BODY, str(error)),
    ScopeNotAllowed: lambda error, _: ErrorResponse(ErrorName.SCOPE_NOT_ALLOWED, str(error)),
    LifetimeNotAllowed: lambda error, _: ErrorResponse(ErrorName.LIFETIME_NOT_ALLOWED, str(error)),
    StepUpRequired: _claims_challenge,
    HTTPException: _framework_refusal,
    TeamsTokenInvalid: _teams_token,
    TeamsTokenRefused: _teams_token,
    TeamsClientsUnknown: ErrorResponse(
        ErrorName.TEAMS_EXCHANGE_NOT_CONFIGURED,
        "No client application is allowed to have Teams tokens exchanged; the operator must name it in the setting "
        "TEAMS_CLIENT_IDS.",
    ),
    TeamsExchangeNotOffered: ErrorResponse(
        ErrorName.TEAMS_EXCHANGE_NOT_OFFERED,
        "Teams tokens are exchanged only for users of Microsoft Entra ID, and the caller signs in elsewhere.",
    ),
    StepUpNotPossible: ErrorResponse(ErrorName.STEP_UP_REQUIRED, _STEP_UP, _challenge("insufficient_scope", _STEP_UP)),
    StoreAccessDenied: _INVALID_TOKEN,
    InteractionRequired: ErrorResponse(
        ErrorName.STEP_UP_REQUIRED, _INTERACTION, _challenge("insufficient_scope", _INTERACTION)
    ),
    CallerNotFound: _NOT_FOUND,
    StoreUserNotFound: _NOT_FOUND,
    CallerNotAllowed: ErrorResponse(
        ErrorName.USER_NOT_ALLOWED, _USER_NOT_ALLOWED, _challenge("insufficient_scope", _USER_NOT_ALLOWED)
    ),
    TeamsUserNotAllowed: ErrorResponse(
        ErrorName.TEAMS_USER_NOT_ALLOWED,
        _TEAMS_USER_NOT_ALLOWED,
        _challenge("insufficient_scope", _TEAMS_USER_NOT_ALLOWED),
    ),
    ConsentRequired: ErrorResponse(ErrorName.CONSENT_REQUIRED, _CONSENT, _challenge("insufficient_scope", _CONSENT)),
    AssertionRefused: _INVALID_TOKEN,
    OnBehalfOfThrottled: _unavailable("Microsoft Entra ID is busy."),
    OnBehalfOfUnavailable: _unavailable("Microsoft Entra ID can't be reached."),
    OnBehalfOfError: ErrorResponse(
        ErrorName.UPSTREAM_CREDENTIALS_REJECTED,
        "Microsoft Entra ID refused this service's own credential or registration; the operator must look at it.",
    ),
    OnBehalfOfUnexpectedAnswer: ErrorResponse(
        ErrorName.UNEXPECTED_UPSTREAM_ANSWER, f"Microsoft Entra ID {_UNEXPECTED}"
    ),
    ManagedIdentityThrottled: _unavailable("The managed identity endpoint is busy."),
    ManagedIdentityUnavailable: _unavailable("The managed identity endpoint can't be reached."),
    ManagedIdentityError: ErrorResponse(
        ErrorName.UPSTREAM_CREDENTIALS_REJECTED,
        "The platform gives this service no token of its managed identity; the operator must look at it.",
    ),
    ExtensionLimitReached: ErrorResponse(
        ErrorName.EXTENSION_LIMIT_REACHED,
        "The user object in Microsoft Graph can't hold another extension of this application; remove one, or let the "
        "operator choose the Cosmos DB store.",
    ),
    MappingUnreadable: _mapping_unreadable,
    AcsCredentialsRejected: ErrorResponse(
        ErrorName.UPSTREAM_CREDENTIALS_REJECTED,
        "Azure Communication Services refused this service's own credential; the operator must renew it.",
    ),
    StoreMisconfigured: ErrorResponse(
        ErrorName.UPSTREAM_CREDENTIALS_REJECTED,
        "The mapping store refused this service; the operator must look at its set-up.",
    ),
    StorageFull: ErrorResponse(
        ErrorName.STORAGE_FULL,
        "The mapping store has no room for another write; the operator must make some.",
        {"Retry-After": str(STORAGE_FULL_RETRY_AFTER_SECONDS)},
    ),
    StoreThrottled: _unavailable("The mapping store is busy."),
    StoreUnavailable: _unavailable("The mapping store can't be reached."),
    AcsThrottled: _unavailable("Azure Communication Services is busy."),
    AcsUnavailable: _unavailable("Azure Communication Services can't be reached."),
    AcsMisconfigured: ErrorResponse(
        ErrorName.UPSTREAM_CREDENTIALS_REJECTED,
        "Azure Communication Services refused what this service asked for; the operator must look at its set-up.",
    ),
    UnexpectedAnswer: ErrorResponse(
        ErrorName.UNEXPECTED_UPSTREAM_ANSWER, f"Azure Communication Services {_UNEXPECTED}"
    ),
    StoreUnexpectedAnswer: ErrorResponse(ErrorName.UNEXPECTED_UPSTREAM_ANSWER, f"The mapping store {_UNEXPECTED}"),
    StoreError: _unavailable("The mapping store failed."),
    AcsError: _unavailable("Azure Communication Services failed."),
    TooManyRequests: _too_many_requests,
    TooBusy: _unavailable(_BUSY),
    TooManyFlights: _unavailable(_BUSY),
    TimeoutError: _unavailable("The request took too long."),
}

_WHEN_BUSY = describe(TooBusy(), "")
_WHEN_BUSY_HEADERS = (
    (b"content-type", b"application/json"),
    *((name.lower().encode(), value.encode()) for name, value in _WHEN_BUSY.headers.items()),
)
