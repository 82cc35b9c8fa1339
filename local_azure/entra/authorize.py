"""The authorization endpoint: authorization code with PKCE, and a page on which one picks a local user."""

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlencode

from aiohttp import web

from local_azure.entra import pages, scopes
from local_azure.entra.conditions import Conditions
from local_azure.entra.directory import APPLICATIONS, Application, Tenant, User, user_hinted, users_of
from local_azure.entra.errors import EntraError, missing_parameter, unknown_client
from local_azure.entra.grants import CODE, Grant, Grants
from local_azure.entra.token_endpoint import answers_challenge, find_tenant, wants_claims_challenges
from local_azure.user_states import UserStates

Query = Mapping[str, str]

_RESPONSE_MODES = ("query", "fragment", "form_post")
_CHALLENGE_LENGTH = 43  # base64url of SHA-256, RFC 7636, section 4.2


@dataclass(frozen=True, slots=True)
class AuthorizationEndpoint:
    """Answers authorization requests (RFC 6749, section 4.1; RFC 7636)."""

    grants: Grants
    conditions: Conditions
    user_states: UserStates

    async def show(self, request: web.Request) -> web.Response:
        """`GET /{tenant}/oauth2/v2.0/authorize`: the user picker, or at once the answer for `prompt=none`."""
        return self._answer(request, None)

    async def pick(self, request: web.Request) -> web.Response:
        """`POST /{tenant}/oauth2/v2.0/authorize`: a user has been picked, or the sign-in cancelled."""
        picked = (await request.post()).get("user")
        return self._answer(request, picked if isinstance(picked, str) else "")

    def _answer(self, request: web.Request, picked: str | None) -> web.Response:
        query = request.query
        try:
            tenant = find_tenant(request.match_info["tenant"])
            client = _client(query)
        except EntraError as error:  # no redirect to an address that may not be the client's: RFC 6749, 4.1.2.1
            return pages.failure(error)
        try:
            _check(tenant, client, query)
            user = self._signed_in(tenant, query, picked)
        except EntraError as error:
            return _redirect(query, {"error": error.error, "error_description": str(error)})
        if user is None:
            return pages.user_picker(client, self._hinted_first(tenant, query), request.raw_path)
        if query.get("prompt") == "consent":
            self.conditions.give_consent(user)
        grant = Grant(
            client.client_id,
            user.tenant_id,
            user.object_id,
            query["scope"],
            redirect_uri=query["redirect_uri"],
            code_challenge=query.get("code_challenge", ""),
            nonce=query.get("nonce", ""),
            claims_challenges=wants_claims_challenges(query.get("claims")),
            multi_factor=answers_challenge(query.get("claims")),
        )
        return _redirect(query, {"code": self.grants.issue(CODE, grant)})

    def _signed_in(self, tenant: Tenant | None, query: Query, picked: str | None) -> User | None:
        """Who signs in, or `None` when the page has to ask. Raises `EntraError`."""
        if picked == "":
            raise EntraError(65004, "access_denied", "The user declined to sign in.")
        if picked is not None:
            user = self._hinted(tenant, picked)
            if user is None:
                raise EntraError(50034, "access_denied", "The user account does not exist in the directory.")
            return user
        if query.get("prompt") != "none":
            return None
        user = self._hinted(tenant, query.get("login_hint", ""))
        if user is None:
            raise EntraError(50058, "login_required", "A silent sign-in request was sent but no user is signed in.")
        return user

    def _hinted_first(self, tenant: Tenant | None, query: Query) -> list[User]:
        hinted = self._hinted(tenant, query.get("login_hint", ""))
        present = [user for user in users_of(tenant) if not self.user_states.is_deleted(user)]
        return sorted(present, key=lambda user: user != hinted)

    def _hinted(self, tenant: Tenant | None, login_hint: str) -> User | None:
        user = user_hinted(tenant, login_hint)
        return None if user is None or self.user_states.is_deleted(user) else user


def _client(query: Query) -> Application:
    """The client, once its redirect URI has proved to be its own."""
    client_id, redirect_uri = query.get("client_id"), query.get("redirect_uri")
    if not client_id:
        raise missing_parameter("client_id")
    if not redirect_uri:
        raise missing_parameter("redirect_uri")
    client = APPLICATIONS.get(client_id)
    if client is None:
        raise unknown_client(client_id)
    if not client.allows_redirect(redirect_uri):
        raise EntraError(
            50011,
            "invalid_request",
            f"The redirect URI '{redirect_uri}' specified in the request does not match the redirect URIs configured "
            f"for the application '{client_id}'.",
        )
    return client


def _check(tenant: Tenant | None, client: Application, query: Query) -> None:
    if query.get("response_mode", "query") not in _RESPONSE_MODES:
        raise EntraError(900144, "invalid_request", "The response_mode must be 'query', 'fragment' or 'form_post'.")
    if query.get("response_type") != "code":
        raise EntraError(
            70005, "unsupported_response_type", "The response_type must be 'code': the others are not enabled."
        )
    if not query.get("scope"):
        raise missing_parameter("scope")
    scopes.delegated(scopes.parse(query["scope"], tenant.tenant_id if tenant else "organizations"), client)
    wants_claims_challenges(query.get("claims"))
    if client.single_page and not query.get("code_challenge"):
        raise EntraError(
            9002325,
            "invalid_request",
            "Proof Key for Code Exchange is required for cross-origin authorization code redemption.",
        )
    if query.get("code_challenge"):
        if query.get("code_challenge_method") != "S256":
            raise EntraError(50149, "invalid_request", "Invalid Code_Challenge_method parameter.")
        if len(query["code_challenge"]) != _CHALLENGE_LENGTH:
            raise EntraError(501491, "invalid_request", "Invalid size of Code_Challenge parameter.")


def _redirect(query: Query, parameters: dict[str, str]) -> web.Response:
    if "state" in query:
        parameters = {**parameters, "state": query["state"]}
    address = query["redirect_uri"]
    if query.get("response_mode") == "form_post":
        return pages.post_back(address, parameters)
    query_separator = "&" if "?" in address else "?"
    separator = "#" if query.get("response_mode") == "fragment" else query_separator
    headers = {"Location": f"{address}{separator}{urlencode(parameters)}", "Cache-Control": "no-store"}
    return web.Response(status=302, headers={**headers, "Referrer-Policy": "no-referrer"})
