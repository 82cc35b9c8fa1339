"""ACS Identity over HTTP: the five operations of azure-rest-api-specs, communication/data-plane/Identity/stable.

They are the same in every version from 2022-06-01 to 2026-09-23; what later versions add is not here.
"""

import base64
import json
import secrets
import time
import uuid
from collections.abc import Callable
from typing import Any

import jwt
from aiohttp import web

from local_azure.acs import errors
from local_azure.acs.authentication import check_bearer, check_signature, is_bearer
from local_azure.acs.deleted import DeletedIdentities, DeletedIdentityAnswer
from local_azure.acs.identities import Identities, TokenStatus
from local_azure.acs.tokens import IssuedToken, TokenIssuer
from local_azure.clock import Clock
from local_azure.control import add_fault_routes
from local_azure.faults import Faults, Handler
from local_azure.keys import KeyFactory
from local_azure.limits import WindowLimit
from local_azure.state import State
from local_azure.user_states import Mark, UserKey, UserStates

API_VERSIONS = ("2021-03-07", "2022-06-01", "2022-10-01", "2023-10-01", "2025-06-30", "2026-09-23")
SCOPES = ("chat", "voip", "chat.join", "chat.join.limited", "voip.join")
LIFETIME_MINUTES = range(60, 1441)
DEFAULT_LIFETIME_MINUTES = 1440

IDENTITY_OPERATIONS = ("delete_identity", "revoke_access_tokens", "issue_access_token")
"""The operations on one identity."""

# A Teams user's token is for this application, the first-party app of ACS, named by its id or its URI.
TEAMS_AUDIENCES = ("https://auth.msft.communication.azure.com", "1fd5118e-2576-4263-8130-9503064c837a")
TEAMS_SCOPES = frozenset({"Teams.ManageCalls", "Teams.ManageChats"})

Verify = Callable[[str], dict[str, Any] | None]


class Acs:
    """One ACS resource. `verify` gives the claims of a token that the Entra stand-in signed, or `None`.

    Operations, for `faults`: `create_identity`, `exchange_teams_token`, and those of `IDENTITY_OPERATIONS`.
    `deleted_identity` is what a call about a deleted identity is answered; `deleted_identities.answer` changes it.
    `user_states` marks users whose Teams tokens are not exchanged. `limits` holds how often each operation may be
    called before the answer is 429; at first nothing is limited.
    """

    def __init__(
        self,
        state: State,
        url: str,
        *,
        clock: Clock,
        new_key: KeyFactory,
        verify: Verify,
        deleted_identity: DeletedIdentityAnswer | None = None,
    ) -> None:
        self.faults = Faults()
        self.limits: dict[str, WindowLimit] = {}
        self._url = url
        self._clock = clock
        self._verify_entra_token = verify
        self.deleted_identities = DeletedIdentities(deleted_identity or DeletedIdentityAnswer())
        self.user_states = UserStates(state, clock)
        self._identities = Identities(state, clock, new_key, self.deleted_identities)
        self._issuer = TokenIssuer(self._identities.signing_key, self._identities.resource_id)

    def application(self) -> web.Application:
        """A fresh application over the same data."""
        application = web.Application(middlewares=[self.faults.middleware, self._answer])
        router = application.router
        router.add_post("/identities", self._create, name="create_identity")
        router.add_delete("/identities/{id}", self._delete, name="delete_identity")
        router.add_post("/identities/{id}/:revokeAccessTokens", self._revoke, name="revoke_access_tokens")
        router.add_post("/identities/{id}/:issueAccessToken", self._issue, name="issue_access_token")
        router.add_post("/teamsUser/:exchangeAccessToken", self._exchange, name="exchange_teams_token")
        router.add_get("/local/identities", self._list, name="local_identities")
        router.add_post("/local/token-status", self._token_status, name="local_token_status")
        self.deleted_identities.add_routes(application)
        add_fault_routes(application, self.faults)
        return application

    def service_environment(self) -> dict[str, str]:
        """The settings that point the service at this resource."""
        return {"ACS_CONNECTION_STRING": f"endpoint={self._url}/;accesskey={self._identities.access_key}"}

    def move_to_cloud(self, id_prefix: str) -> None:
        """Be a resource of another cloud, whose ids begin with `id_prefix`, such as `8:gcch-acs:`."""
        self._identities.id_prefix = id_prefix

    def live_identities(self) -> list[str]:
        """The ids that were minted and not deleted, oldest first."""
        return self._identities.live()

    def all_identities(self) -> list[str]:
        """The ids that were minted, the deleted ones too, oldest first."""
        return self._identities.all()

    def mint(self) -> str:
        """Make an identity as the route does; its id."""
        return self._identities.create()

    def issue_token(self, identity: str, scopes: list[str], minutes: int) -> str:
        """An access token for an identity, as the route would answer it."""
        return self._new_token(identity, scopes, minutes).token

    def forget(self, identity: str) -> None:
        """Lose an identity behind its users' backs."""
        self._identities.forget(identity)

    def foreign_id(self) -> str:
        """The id of an identity that belongs to another resource."""
        return self._identities.foreign()

    def rotate_access_key(self) -> None:
        """Replace the access key; what was signed with the old one is denied from now on."""
        self._identities.rotate_access_key()

    def verify_token(self, token: str) -> dict[str, Any]:
        """The claims of an ACS access token that is good now.

        Raises `jwt.InvalidTokenError` when it was not signed here, has expired or was revoked.
        """
        claims = self._issuer.verify(token)
        if self._identities.token_status(token) is not TokenStatus.GOOD:
            raise jwt.InvalidTokenError("The token has expired or was revoked.")
        return claims

    def token_status(self, token: str) -> TokenStatus:
        """What happened to an ACS access token."""
        return self._identities.token_status(token)

    async def _create(self, request: web.Request) -> web.Response:
        body = await _json(request)
        scopes = _scopes(body.get("createTokenWithScopes"), "CreateTokenWithScopes")
        minutes = _minutes(body.get("expiresInMinutes"))
        identity = self._identities.create()
        answer: dict[str, Any] = {"identity": {"id": identity}}
        if scopes:
            answer["accessToken"] = _as_json(self._new_token(identity, scopes, minutes))
        return web.json_response(answer, status=201)

    async def _delete(self, request: web.Request) -> web.Response:
        identity = request.match_info["id"]
        self._identities.require(identity)
        self._identities.delete(identity)
        return web.Response(status=204)

    async def _revoke(self, request: web.Request) -> web.Response:
        identity = request.match_info["id"]
        self._identities.require(identity)
        self._identities.revoke_tokens(identity)
        return web.Response(status=204)

    async def _issue(self, request: web.Request) -> web.Response:
        body = await _json(request)
        scopes = _scopes(body.get("scopes"), "Scopes")
        if not scopes:
            raise errors.required("Scopes")
        minutes = _minutes(body.get("expiresInMinutes"))
        identity = request.match_info["id"]
        self._identities.require(identity)
        return web.json_response(_as_json(self._new_token(identity, scopes, minutes)))

    async def _exchange(self, request: web.Request) -> web.Response:
        body = await _json(request)
        claims = self._teams_claims(body.get("token"))
        app_id = _guid(body.get("appId"), "AppId")
        if app_id != claims.get("azp", claims.get("appid")):
            raise errors.invalid("AAD application is not the expected one.", "appId")
        user_id = _guid(body.get("userId"), "UserId")
        if user_id != claims["oid"]:
            raise errors.invalid("Provided AAD token issued for unexpected user.", "userId")
        if self.user_states.has(UserKey(claims["tid"], claims["oid"]), Mark.WITHOUT_TEAMS):
            raise errors.forbidden()
        token = self._issuer.for_teams_user(claims["oid"], claims["tid"], self._clock(), claims["exp"])
        self._identities.remember_token(token.token, f"8:orgid:{claims['oid']}", token.expires_at)
        return web.json_response(_as_json(token))

    async def _list(self, _: web.Request) -> web.Response:
        return web.json_response({"live": self.live_identities(), "all": self.all_identities()})

    async def _token_status(self, request: web.Request) -> web.Response:
        """Body: `{"token": "…"}`; the answer is `{"status": "good"}`, or `revoked`, `expired`, `unknown`."""
        body = await _json(request)
        return web.json_response({"status": self.token_status(str(body.get("token")))})

    def _new_token(self, identity: str, scopes: list[str], minutes: int) -> IssuedToken:
        now = self._clock()
        token = self._issuer.for_identity(identity, scopes, now, minutes)
        # Of two tokens of one second the second would be the first again, revoked or not.
        while self.token_status(token.token) is TokenStatus.REVOKED:
            now += 1
            token = self._issuer.for_identity(identity, scopes, now, minutes)
        self._identities.remember_token(token.token, identity, token.expires_at)
        return token

    def _teams_claims(self, token: Any) -> dict[str, Any]:
        claims = self._verify_entra_token(token) if isinstance(token, str) and token else None
        # That a token without a Teams scope gets this same answer is inferred; it was never recorded.
        if (
            claims is None
            or claims.get("aud") not in TEAMS_AUDIENCES
            or claims.get("exp", 0) <= self._clock()
            or not TEAMS_SCOPES.intersection(str(claims.get("scp", "")).split())
        ):
            raise errors.invalid_teams_token()
        return claims

    async def _authenticate(self, request: web.Request) -> None:
        if is_bearer(request):
            check_bearer(request, self._verify_entra_token, self._clock)
        else:
            check_signature(request, await request.read(), self._identities.access_key, self._clock)

    def _limit(self, operation: str) -> None:
        limit = self.limits.get(operation)
        seconds = limit.take() if limit is not None else None
        if seconds is not None:
            raise errors.throttled(seconds)

    @property
    def _answer(self) -> Any:
        @web.middleware
        async def answer(request: web.Request, handler: Handler) -> web.StreamResponse:
            if (request.match_info.route.name or "").startswith("local_"):
                return await handler(request)
            started = time.perf_counter()
            try:
                await self._authenticate(request)
                if request.match_info.http_exception is not None:
                    raise errors.no_operation(request.match_info.http_exception)
                _check_version(request)
                self._limit(request.match_info.route.name or "")
                response = await handler(request)
                reports_versions = True
            except errors.ServiceError as error:
                response = error.response()
                reports_versions = error.reports_versions
            _add_headers(request, response, time.perf_counter() - started, reports_versions=reports_versions)
            return response

        return answer


def _check_version(request: web.Request) -> None:
    version = request.query.get("api-version")
    if version is None:
        raise errors.version_missing()
    if version not in API_VERSIONS:
        raise errors.version_unsupported(str(request.url.with_query(None)), version)


def _add_headers(request: web.Request, response: web.StreamResponse, seconds: float, *, reports_versions: bool) -> None:
    # Strict-Transport-Security, which the real service sends, is left out: a browser would apply it to every port of
    # localhost, the service's own plain HTTP included.
    response.headers["Request-Context"] = "appId="
    response.headers["MS-CV"] = base64.b64encode(secrets.token_bytes(16)).rstrip(b"=").decode() + ".0"
    response.headers["X-Processing-Time"] = f"{round(seconds * 1000)}ms"
    response.headers["X-Cache"] = "CONFIG_NOCACHE"
    response.headers["X-Azure-Ref"] = base64.b64encode(secrets.token_bytes(36)).decode()
    if reports_versions:
        response.headers["api-supported-versions"] = ", ".join(API_VERSIONS)
    if client_request_id := request.headers.get("x-ms-client-request-id"):
        response.headers["x-ms-client-request-id"] = client_request_id


async def _json(request: web.Request) -> dict[str, Any]:
    text = await request.read()
    try:
        body = json.loads(text) if text else {}
    except ValueError as error:
        raise errors.invalid("The request body is not valid JSON.", "body") from error  # inferred
    if not isinstance(body, dict):
        raise errors.invalid("The request body must be a JSON object.", "body")  # inferred
    return body


def _scopes(value: Any, field: str) -> list[str]:
    if value is None:
        return []
    if not isinstance(value, list) or not all(scope in SCOPES for scope in value):
        raise errors.invalid(f"{field}: unknown scope. Known are {', '.join(SCOPES)}.", field)  # text inferred
    return list(dict.fromkeys(value))


def _minutes(value: Any) -> int:
    if value is None:
        return DEFAULT_LIFETIME_MINUTES
    if type(value) is not int or value not in LIFETIME_MINUTES:
        interval = f"[{LIFETIME_MINUTES[0]}, {LIFETIME_MINUTES[-1]}]"
        message = f"ExpiresInMinutes value {value} is invalid. Value must be within the {interval} interval."
        raise errors.invalid(message, "ExpiresInMinutes")
    return value


def _guid(value: Any, field: str) -> str:
    if not value:
        raise errors.required(field)
    try:
        return str(uuid.UUID(value))
    except (ValueError, AttributeError, TypeError) as error:
        target = field[0].lower() + field[1:]
        raise errors.invalid(f"Provided {field} has invalid format.", target) from error


def _as_json(token: IssuedToken) -> dict[str, str]:
    return {"token": token.token, "expiresOn": token.expires_on}
