"""The token endpoint: authorization code, refresh token, device code, client credentials and on-behalf-of."""

import base64
import hashlib
import json
import secrets
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web

from local_azure.clock import Clock
from local_azure.entra import metadata, scopes
from local_azure.entra.clients import Client, Clients
from local_azure.entra.conditions import MULTI_FACTOR_CHALLENGE, Conditions
from local_azure.entra.directory import Tenant, User, is_loopback, tenant_named, user_with_object_id
from local_azure.entra.errors import EntraError, missing_parameter, unknown_tenant
from local_azure.entra.grants import CODE, REFRESH_TOKEN, Grant, Grants
from local_azure.entra.scopes import Requested
from local_azure.entra.signing_keys import SigningKeys
from local_azure.entra.tokens import LIFETIME, TokenIssuer, client_info, is_multi_factor
from local_azure.user_states import UserStates

ON_BEHALF_OF = "urn:ietf:params:oauth:grant-type:jwt-bearer"
DEVICE_CODE = "urn:ietf:params:oauth:grant-type:device_code"
MSAL_JS_DEVICE_CODE = "device_code"
TENANT_ALIASES = ("common", "organizations")

Form = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class TokenEndpoint:
    """Answers token requests.

    `api_version` tells the access-token version that the API registration accepts. `device_sign_in` gives the sign-in
    of a device code to its client, and raises `EntraError` while there is none.
    """

    url: str
    clock: Clock
    keys: SigningKeys
    clients: Clients
    grants: Grants
    conditions: Conditions
    user_states: UserStates
    tokens: TokenIssuer
    api_version: Callable[[], int]
    device_sign_in: Callable[[str, str], Grant]

    async def answer(self, request: web.Request) -> web.Response:
        """`POST /{tenant}/oauth2/v2.0/token`."""
        trace_id = str(uuid.uuid4())
        correlation_id = request.headers.get("client-request-id") or str(uuid.uuid4())
        form = {name: value for name, value in (await request.post()).items() if isinstance(value, str)}
        try:
            body, status, code = self._grant(request, form), 200, 0
        except EntraError as error:
            body, status, code = error.body(self.url, trace_id, correlation_id, self.clock()), error.status, error.code
        headers = {
            "Cache-Control": "no-store, no-cache",
            "Pragma": "no-cache",
            "client-request-id": correlation_id,
            "x-ms-request-id": trace_id,
            "x-ms-ests-server": "2.1.0 - local ProdSlices",
            "x-ms-clitelem": f"1,{code},0,,",
            **_cross_origin(request),
        }
        return web.json_response(body, status=status, headers=headers)

    async def preflight(self, request: web.Request) -> web.Response:
        """`OPTIONS /{tenant}/oauth2/v2.0/token`: single-page applications redeem codes cross-origin."""
        allowed = _cross_origin(request)
        if allowed:
            allowed["Access-Control-Allow-Methods"] = "POST, OPTIONS"
            allowed["Access-Control-Allow-Headers"] = request.headers.get("Access-Control-Request-Headers", "")
            allowed["Access-Control-Max-Age"] = "600"
        return web.Response(headers=allowed)

    def _grant(self, request: web.Request, form: Form) -> dict[str, Any]:
        tenant = find_tenant(request.match_info["tenant"])
        grant_type = form.get("grant_type")
        if not grant_type:
            raise missing_parameter("grant_type")
        flows = {
            "authorization_code": self._authorization_code,
            "refresh_token": self._refresh_token,
            "client_credentials": self._client_credentials,
            DEVICE_CODE: self._device_code,
            MSAL_JS_DEVICE_CODE: self._device_code,
            ON_BEHALF_OF: self._on_behalf_of,
        }
        flow = flows.get(grant_type)
        if flow is None:
            raise EntraError(
                70003, "unsupported_grant_type", f"The app requested an unsupported grant type '{grant_type}'."
            )
        client = self.clients.authenticate(form, request.headers.get("Authorization"), f"{self.url}{request.path}")
        if grant_type in {"authorization_code", "refresh_token"}:
            _check_origin(client, request.headers.get("Origin"))
        return flow(tenant, client, form)

    def _authorization_code(self, tenant: Tenant | None, client: Client, form: Form) -> dict[str, Any]:
        code = _required(form, "code")
        grant = self.grants.read(CODE, code, client.application.client_id)
        _check_tenant(tenant, grant.tenant_id)
        if form.get("redirect_uri", "") != grant.redirect_uri:
            raise EntraError(
                500112,
                "invalid_grant",
                f"The reply address '{form.get('redirect_uri', '')}' does not match the reply address "
                f"'{grant.redirect_uri}' provided when requesting Authorization code.",
            )
        _check_verifier(grant, form.get("code_verifier", ""))
        self.grants.redeem(code)
        return self._answer_for_user(client, replace(grant, scope=form.get("scope") or grant.scope), form)

    def _refresh_token(self, tenant: Tenant | None, client: Client, form: Form) -> dict[str, Any]:
        grant = self.grants.read(REFRESH_TOKEN, _required(form, "refresh_token"), client.application.client_id)
        _check_tenant(tenant, grant.tenant_id)
        return self._answer_for_user(client, replace(grant, scope=form.get("scope") or grant.scope, nonce=""), form)

    def _device_code(self, tenant: Tenant | None, client: Client, form: Form) -> dict[str, Any]:
        grant = self.device_sign_in(_required(form, "device_code"), client.application.client_id)
        _check_tenant(tenant, grant.tenant_id)
        return self._answer_for_user(client, grant, form)

    def _client_credentials(self, tenant: Tenant | None, client: Client, form: Form) -> dict[str, Any]:
        if tenant is None:
            raise EntraError(
                50059,
                "invalid_request",
                "No tenant-identifying information found in either the request or implied by any provided credentials.",
            )
        if client.application.is_public:
            raise EntraError(7000218, "invalid_client", "A public client has no credentials of its own.")
        scope = _required(form, "scope")
        scopes.require_default(scope)
        requested = scopes.parse(scope, tenant.tenant_id)
        token = self.tokens.app_access_token(
            client.application,
            tenant.tenant_id,
            requested,
            version=self._version(requested),
            proof=client.proof,
            claims_challenges=wants_claims_challenges(form.get("claims")),
        )
        return {"token_type": "Bearer", "expires_in": LIFETIME, "ext_expires_in": LIFETIME, "access_token": token}

    def _on_behalf_of(self, tenant: Tenant | None, client: Client, form: Form) -> dict[str, Any]:
        if form.get("requested_token_use") != "on_behalf_of":
            raise missing_parameter("requested_token_use")
        assertion = _required(form, "assertion")
        scope = _required(form, "scope")
        if client.application.is_public:
            raise EntraError(7000218, "invalid_client", "A public client cannot act on behalf of a user.")
        claims = self._checked_assertion(assertion, client)
        user = _user_of(claims)
        _check_tenant(tenant, user.tenant_id)
        requested = scopes.parse(scope, user.tenant_id)
        multi_factor = is_multi_factor(claims)
        self.conditions.check(user, client.application, requested.resource, multi_factor=multi_factor)
        grant = Grant(client.application.client_id, user.tenant_id, user.object_id, scope, multi_factor=multi_factor)
        return self._answer_for_user(client, grant, form, user)

    def _checked_assertion(self, assertion: str, client: Client) -> dict[str, Any]:
        """The claims of a user's access token for this very client. Raises `EntraError`.

        Entra docs, "OAuth 2.0 On-Behalf-Of flow": the token's audience must be the app that makes the request, and
        application tokens cannot be used.
        """
        claims = self.keys.verify(assertion)
        application = client.application
        if claims is None or claims.get("aud") not in {application.client_id, application.app_id_uri}:
            raise EntraError(
                50013, "invalid_grant", "Assertion failed signature validation. [Reason - The key was not found.]"
            )
        expires = claims.get("exp")
        if not isinstance(expires, int | float) or expires <= self.clock():
            raise EntraError(500133, "invalid_grant", "Assertion is not within its valid time range.")
        if not claims.get("scp") or not claims.get("oid") or not claims.get("tid"):
            raise EntraError(
                7000114,
                "invalid_grant",
                f"Application '{claims.get('azp', claims.get('appid'))}' is not allowed to make application "
                "on-behalf-of calls.",
            )
        return claims

    def _answer_for_user(self, client: Client, grant: Grant, form: Form, user: User | None = None) -> dict[str, Any]:
        user = user or user_with_object_id(grant.tenant_id, grant.object_id)
        if user is None or self.user_states.is_deleted(user):
            raise EntraError(50034, "invalid_grant", "The user account does not exist in the directory.")
        requested = scopes.parse(grant.scope, grant.tenant_id)
        permissions = scopes.delegated(requested, client.application)
        challenges = grant.claims_challenges or wants_claims_challenges(form.get("claims"))
        multi_factor = grant.multi_factor or answers_challenge(form.get("claims"))
        token = self.tokens.user_access_token(
            user,
            client.application,
            requested,
            permissions,
            version=self._version(requested),
            proof=client.proof,
            claims_challenges=challenges,
            multi_factor=multi_factor,
        )
        answer: dict[str, Any] = {
            "token_type": "Bearer",
            "scope": " ".join(f"{requested.resource}/{permission}" for permission in permissions),
            "expires_in": LIFETIME,
            "ext_expires_in": LIFETIME,
            "access_token": token,
        }
        if "offline_access" in requested.openid:
            kept = replace(grant, claims_challenges=challenges, multi_factor=multi_factor)
            answer["refresh_token"] = self.grants.issue(REFRESH_TOKEN, kept)
        if "openid" in requested.openid:
            answer["id_token"] = self.tokens.id_token(user, client.application, requested.openid, grant.nonce)
        if form.get("client_info") == "1":
            answer["client_info"] = client_info(user)
        return answer

    def _version(self, requested: Requested) -> int:
        """The resource's registration decides, not the endpoint that was used (Entra docs, "Access tokens")."""
        return self.api_version() if requested.for_api else metadata.VERSION_1


def find_tenant(name: str) -> Tenant | None:
    """The tenant of a path, `None` for `common` and `organizations`. Raises `EntraError`."""
    if name in TENANT_ALIASES:
        return None
    tenant = tenant_named(name)
    if tenant is None:
        raise unknown_tenant(name)
    return tenant


def wants_claims_challenges(claims: str | None) -> bool:
    """Whether the `claims` parameter declares the client capability `cp1` (Entra docs, "Claims challenges")."""
    capabilities = _requested_claims(claims).get("xms_cc")
    values = capabilities.get("values") if isinstance(capabilities, dict) else None
    return isinstance(values, list) and any(str(value).lower() == "cp1" for value in values)


def answers_challenge(claims: str | None) -> bool:
    """Whether the `claims` parameter sends the multi-factor challenge back."""
    asked = json.loads(MULTI_FACTOR_CHALLENGE)["access_token"]["polids"]
    return bool(_requested_claims(claims).get("polids") == asked)


def _requested_claims(claims: str | None) -> dict[str, Any]:
    if not claims:
        return {}
    try:
        requested = json.loads(claims)
    except ValueError as error:
        raise EntraError(50125, "invalid_request", "The claims parameter is not JSON.") from error
    access_token = requested.get("access_token") if isinstance(requested, dict) else None
    return access_token if isinstance(access_token, dict) else {}


def _required(form: Form, name: str) -> str:
    value = form.get(name)
    if not value:
        raise missing_parameter(name)
    return value


def _check_tenant(tenant: Tenant | None, tenant_id: str) -> None:
    if tenant is not None and tenant.tenant_id != tenant_id:
        raise EntraError(
            90072,
            "invalid_grant",
            f"The user account does not exist in tenant '{tenant.name}' and cannot access the application in that "
            "tenant.",
        )


def _check_verifier(grant: Grant, verifier: str) -> None:
    """RFC 7636, section 4.6, with S256."""
    if not grant.code_challenge and not verifier:
        return
    digest = hashlib.sha256(verifier.encode()).digest()
    challenge = base64.urlsafe_b64encode(digest).rstrip(b"=")
    if not secrets.compare_digest(challenge, grant.code_challenge.encode()):
        raise EntraError(
            501481,
            "invalid_grant",
            "The Code_Verifier does not match the code_challenge supplied in the authorization request.",
        )


def _check_origin(client: Client, origin: str | None) -> None:
    """Only single-page applications redeem cross-origin, and they must."""
    if client.application.single_page and origin is None:
        raise EntraError(
            9002327,
            "invalid_request",
            "Tokens issued for the 'Single-Page Application' client-type may only be redeemed via cross-origin "
            "requests.",
        )
    if origin is not None and not client.application.single_page:
        raise EntraError(
            9002326,
            "invalid_request",
            "Cross-origin token redemption is permitted only for the 'Single-Page Application' client-type. Request "
            f"origin: '{origin}'.",
        )


def _cross_origin(request: web.Request) -> dict[str, str]:
    origin = request.headers.get("Origin")
    if origin is None or not is_loopback(urlsplit(origin).hostname):
        return {}
    return {"Access-Control-Allow-Origin": origin, "Vary": "Origin"}


def _user_of(claims: Mapping[str, Any]) -> User:
    """The user of an assertion. Tests sign tokens for users beyond the directory; the signature vouches for them."""
    tenant_id, object_id = str(claims["tid"]), str(claims["oid"])
    username = str(claims.get("preferred_username", claims.get("unique_name", "")))
    known = user_with_object_id(tenant_id, object_id)
    return known or User("", tenant_id, object_id, str(claims.get("name", "")), username, tenant_id)
