"""The Entra ID stand-in: its routes, and what tests ask of it."""

import uuid
from collections.abc import Mapping
from typing import Any

from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import rsa

from local_azure.clock import Clock
from local_azure.control import add_fault_routes
from local_azure.entra import managed_identity, metadata, pages, scopes
from local_azure.entra.authorize import AuthorizationEndpoint
from local_azure.entra.clients import Clients
from local_azure.entra.conditions import Conditions
from local_azure.entra.devices import DeviceCodes
from local_azure.entra.directory import (
    API,
    BROWSER,
    DAEMON,
    HOME_TENANT,
    MANAGED_IDENTITY,
    TEAMS,
    USERS,
    Application,
    User,
)
from local_azure.entra.errors import EntraError, no_endpoint
from local_azure.entra.grants import Grants
from local_azure.entra.signing_keys import SigningKeys
from local_azure.entra.token_endpoint import TENANT_ALIASES, TokenEndpoint, find_tenant
from local_azure.entra.tokens import CERTIFICATE, LIFETIME, PUBLIC, SECRET, TokenIssuer
from local_azure.entra.user_control import UserControl, json_object
from local_azure.faults import Faults, Handler
from local_azure.keys import KeyFactory
from local_azure.oidc_issuer import OidcIssuer
from local_azure.state import State
from local_azure.user_states import UserStates

API_SCOPE = f"{API.app_id_uri}/access_as_user"


class Entra:
    """Microsoft Entra ID on loopback, at `url`.

    `users` are the directory's, by alias; `user_states` deletes and marks them; `conditions` scripts what on-behalf-of
    runs into; `clients` takes client certificates; `keys` are the signing keys; `oidc_issuer` is another issuer that
    shares the port. `api_token_version` is the access-token
    version that the API registration accepts (`requestedAccessTokenVersion`): 1 or 2.
    """

    def __init__(self, state: State, url: str, *, clock: Clock, new_key: KeyFactory) -> None:
        self.faults = Faults()
        self.url = url
        self.users = USERS
        self.api_token_version = metadata.VERSION_2
        self.user_states = UserStates(state, clock)
        self.conditions = Conditions(state)
        self.keys = SigningKeys(state, clock, new_key)
        self.clients = Clients(url, self.keys, clock)
        self.oidc_issuer = OidcIssuer(url, clock, new_key)
        self._user_control = UserControl(lambda: self.users, self.user_states)
        self._clock = clock
        self._grants = Grants(state, clock)
        self._tokens = TokenIssuer(url, self.keys, clock)

    def application(self) -> web.Application:
        """A fresh application; its route names are the operations that `faults` knows."""
        application = web.Application(middlewares=[self.faults.middleware, self._answer_unknown])
        authorization = AuthorizationEndpoint(self._grants, self.conditions, self.user_states)
        devices = DeviceCodes(self.url, self._clock)
        token = TokenEndpoint(
            self.url,
            self._clock,
            self.keys,
            self.clients,
            self._grants,
            self.conditions,
            self.user_states,
            self._tokens,
            lambda: self.api_token_version,
            devices.redeem,
        )
        self.oidc_issuer.add_routes(application)  # before the tenants, whose paths begin with anything
        add = application.router.add_route
        add("GET", "/common/discovery/instance", self._instance_discovery, name="instance_discovery")
        for version, part in ((metadata.VERSION_1, ""), (metadata.VERSION_2, "/v2.0")):
            configuration, keys = self._configuration(version), self._key_set(version)
            path = f"/{{tenant}}{part}/.well-known/openid-configuration"
            add("GET", path, configuration, name=f"openid_configuration_v{version}")
            add("GET", f"/{{tenant}}/discovery{part}/keys", keys, name=f"keys_v{version}")
        oauth2 = "/{tenant}/oauth2/v2.0"
        add("GET", f"{oauth2}/authorize", authorization.show, name="authorize")
        add("POST", f"{oauth2}/authorize", authorization.pick, name="authorize_pick")
        add("POST", f"{oauth2}/token", token.answer, name="token")
        add("OPTIONS", f"{oauth2}/token", token.preflight, name="token_preflight")
        add("POST", f"{oauth2}/devicecode", devices.begin, name="device_code")
        add("GET", "/devicelogin", devices.show, name="device_login")
        add("POST", "/devicelogin", devices.enter, name="device_login_enter")
        add("GET", f"{oauth2}/logout", _logout, name="logout")
        identity = managed_identity.ManagedIdentityEndpoint(self.managed_identity_token, self.verify)
        add("GET", managed_identity.PATH, identity.answer, name="managed_identity_token")
        self._add_control_routes(application)
        return application

    def service_environment(self) -> dict[str, str]:
        """The settings that point the service at this Entra and its registrations."""
        return {
            "ENTRA_AUTHORITY_HOST": self.url,
            "ENTRA_TENANT_ID": HOME_TENANT.tenant_id,
            "ENTRA_CLIENT_ID": API.client_id,
            "ENTRA_CLIENT_SECRET": str(API.secret),
            "TEAMS_CLIENT_IDS": TEAMS.client_id,
            "DOCS_CLIENT_ID": BROWSER.client_id,
        }

    def managed_identity_environment(self) -> dict[str, str]:
        """The platform's variables for a process that is to run with the user-assigned managed identity, and its id."""
        return {
            **managed_identity.environment(self.url),
            "ENTRA_MANAGED_IDENTITY_CLIENT_ID": MANAGED_IDENTITY.client_id,
        }

    def verify(self, token: str) -> dict[str, Any] | None:
        """The claims of an unexpired token that a published key signed; otherwise `None`."""
        claims = self.keys.verify(token)
        expires = claims.get("exp") if claims else None
        return claims if isinstance(expires, int | float) and expires > self._clock() else None

    def rotate(self) -> None:
        """Start to sign with a new key; the others stay published."""
        self.keys.rotate()

    def retire(self) -> None:
        """Publish only the newest key."""
        self.keys.retire()

    def sign_with_own_key(self) -> str:
        """Sign the tokens for the API with its own key, as after claims mapping; returns its `kid`.

        Only metadata that is asked for with `?appid=<client id of the API>` leads to it.
        """
        return self.keys.give_own(API.client_id).kid

    def sign_with_the_tenants_key(self) -> None:
        """Undo `sign_with_own_key`."""
        self.keys.take_own(API.client_id)

    def access_token(
        self,
        user: User | str,
        *,
        client: Application = BROWSER,
        scope: str = "access_as_user",
        version: int | None = None,
        lifetime: float = LIFETIME,
        **claim_overrides: Any,
    ) -> str:
        """A user's access token for the API; `user` is an alias or any user, also one beyond the directory.

        `scope` goes into `scp` as it is; `version` is the API's own by default; `lifetime` is in seconds and may be
        negative; a claim given as `None` is left out.
        """
        return self._tokens.user_access_token(
            self._user(user),
            client,
            scopes.parse(API_SCOPE, HOME_TENANT.tenant_id),
            tuple(scope.split()),
            version=version or self.api_token_version,
            proof=PUBLIC if client.is_public else SECRET,
            lifetime=lifetime,
            overrides=claim_overrides,
        )

    def graph_token(
        self,
        user: User | str,
        *,
        client: Application = BROWSER,
        scope: str = "User.ReadWrite",
        resource: str = scopes.GRAPH,
        lifetime: float = LIFETIME,
        **claim_overrides: Any,
    ) -> str:
        """A user's access token for Microsoft Graph, as any program gets it that the user signs in to, such as Graph
        Explorer; `resource` is Graph's address in this cloud; other parameters as for `access_token`.
        """
        return self._tokens.user_access_token(
            self._user(user),
            client,
            scopes.parse(f"{resource}/{scopes.DEFAULT}", HOME_TENANT.tenant_id),
            tuple(scope.split()),
            version=metadata.VERSION_1,
            lifetime=lifetime,
            overrides=claim_overrides,
        )

    def teams_token(
        self,
        user: User | str,
        *,
        client: Application = TEAMS,
        scope: str = " ".join(scopes.TEAMS_SCOPES),
        lifetime: float = LIFETIME,
        **claim_overrides: Any,
    ) -> str:
        """A user's access token for ACS, as a Teams client gets it; parameters as for `access_token`."""
        return self._tokens.user_access_token(
            self._user(user),
            client,
            scopes.parse(f"{scopes.TEAMS_RESOURCE}/{scopes.DEFAULT}", HOME_TENANT.tenant_id),
            tuple(scope.split()),
            version=metadata.VERSION_1,
            lifetime=lifetime,
            overrides=claim_overrides,
        )

    def app_only_token(
        self,
        client: Application = DAEMON,
        *,
        scope: str = f"{API.app_id_uri}/.default",
        tenant_id: str = HOME_TENANT.tenant_id,
        version: int | None = None,
        lifetime: float = LIFETIME,
        **claim_overrides: Any,
    ) -> str:
        """An app's own access token for the resource of `scope`; other parameters as for `access_token`."""
        requested = scopes.parse(scope, tenant_id)
        fallback = self.api_token_version if requested.for_api else metadata.VERSION_1
        return self._tokens.app_access_token(
            client, tenant_id, requested, version=version or fallback, lifetime=lifetime, overrides=claim_overrides
        )

    def managed_identity_token(self, resource: str = scopes.TOKEN_EXCHANGE, **claim_overrides: Any) -> str:
        """A token of the user-assigned managed identity, which the API registration trusts as federated credential."""
        return self._tokens.app_access_token(
            MANAGED_IDENTITY,
            HOME_TENANT.tenant_id,
            scopes.parse(f"{resource}/{scopes.DEFAULT}", HOME_TENANT.tenant_id),
            version=metadata.VERSION_2 if resource == scopes.TOKEN_EXCHANGE else metadata.VERSION_1,
            proof=CERTIFICATE,
            overrides=claim_overrides,
        )

    def sign(
        self, claims: Mapping[str, Any], headers: Mapping[str, Any] | None = None, key: rsa.RSAPrivateKey | None = None
    ) -> str:
        """Any claims as a token, well-formed or not; see `SigningKeys.sign`."""
        return self.keys.sign(claims, headers, key)

    def _user(self, user: User | str) -> User:
        return self.users[user] if isinstance(user, str) else user

    @web.middleware
    async def _answer_unknown(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        refused = request.match_info.http_exception
        if refused is None or request.path.startswith("/local/"):
            return await handler(request)
        if request.path == managed_identity.PATH:
            return managed_identity.refused(refused.status, f"{request.method} is not allowed here.")
        error = no_endpoint(request.method, request.path, refused)
        headers = {"Allow": refused.headers["Allow"]} if "Allow" in refused.headers else {}
        trace_id = str(uuid.uuid4())
        correlation_id = request.headers.get("client-request-id") or trace_id
        body = error.body(self.url, trace_id, correlation_id, self._clock())
        return web.json_response(body, status=refused.status, headers=headers)

    async def _instance_discovery(self, _: web.Request) -> web.Response:
        return _public_json(metadata.instance_discovery(self.url))

    def _configuration(self, version: int) -> Any:
        async def answer(request: web.Request) -> web.Response:
            alias = request.match_info["tenant"]
            try:
                tenant = find_tenant(alias)
            except EntraError as error:
                return _public_json(error.body(self.url, "", "", self._clock()), status=error.status)
            tenant_id = tenant.tenant_id if tenant else None
            app_id = request.query.get("appid")
            return _public_json(metadata.openid_configuration(self.url, tenant_id, alias, version, app_id))

        return answer

    def _key_set(self, version: int) -> Any:
        async def answer(request: web.Request) -> web.Response:
            alias = request.match_info["tenant"]
            try:
                find_tenant(alias)
            except EntraError as error:
                return _public_json(error.body(self.url, "", "", self._clock()), status=error.status)
            common, app_id = alias in TENANT_ALIASES, request.query.get("appid")
            return _public_json(metadata.key_set(self.url, self.keys, version, common=common, app_id=app_id))

        return answer

    def _add_control_routes(self, application: web.Application) -> None:
        add = application.router.add_route
        add_fault_routes(application, self.faults)
        self._user_control.add_routes(application)
        add("POST", "/local/token", self._local_token, name="local_token")
        add("POST", "/local/keys/rotate", self._local_rotate, name="local_keys_rotate")
        add("POST", "/local/keys/retire", self._local_retire, name="local_keys_retire")
        add("PUT", "/local/keys/own", self._local_own_key, name="local_keys_own_put")
        add("DELETE", "/local/keys/own", self._local_own_key, name="local_keys_own_delete")
        add("PUT", "/local/conditions/{user}", self._local_conditions, name="local_conditions_put")
        add("DELETE", "/local/conditions", self._local_conditions_clear, name="local_conditions_delete")

    async def _local_token(self, request: web.Request) -> web.Response:
        body = await json_object(request)
        user = self._user_control.named(body.get("user", "alex"))
        if body.get("door") == "oidc":
            token = self.oidc_issuer.access_token(user.alias)
        elif body.get("teams"):
            token = self.teams_token(user)
        elif body.get("graph"):
            token = self.graph_token(user)
        else:
            token = self.access_token(user, scope=" ".join(API.scopes if body.get("resolve") else API.scopes[:1]))
        return web.json_response({"access_token": token}, headers={"Cache-Control": "no-store"})

    async def _local_rotate(self, _: web.Request) -> web.Response:
        self.rotate()
        return web.Response(status=204)

    async def _local_retire(self, _: web.Request) -> web.Response:
        self.retire()
        return web.Response(status=204)

    async def _local_own_key(self, request: web.Request) -> web.Response:
        if request.method == "PUT":
            self.sign_with_own_key()
        else:
            self.sign_with_the_tenants_key()
        return web.Response(status=204)

    async def _local_conditions(self, request: web.Request) -> web.Response:
        """Body: `{"consent_missing": bool, "multi_factor_required": bool}`; what is left out or false is cleared."""
        user = self._user_control.named(request.match_info["user"])
        body = await json_object(request)
        self.conditions.clear(user)
        if body.get("consent_missing"):
            self.conditions.remove_consent(user)
        if body.get("multi_factor_required"):
            self.conditions.require_multi_factor(user)
        return web.Response(status=204)

    async def _local_conditions_clear(self, _: web.Request) -> web.Response:
        self.conditions.clear()
        return web.Response(status=204)


async def _logout(request: web.Request) -> web.Response:
    """There is no session to end: the stand-in asks each time."""
    address = request.query.get("post_logout_redirect_uri", "")
    if BROWSER.allows_redirect(address):
        return web.Response(status=302, headers={"Location": address})
    return pages.signed_out()


def _public_json(body: dict[str, Any], *, status: int = 200) -> web.Response:
    headers = {"Cache-Control": "max-age=86400, private", "Access-Control-Allow-Origin": "*"}
    return web.json_response(body, status=status, headers=headers)
