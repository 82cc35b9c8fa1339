"""RFC 9728: a client that knows only the address of the API finds out where to sign in, and with which scope."""

import ssl
from urllib.parse import parse_qsl, urlsplit, urlunsplit

import aiohttp
import httpx2
import pytest
from mcp.client.auth import OAuthClientProvider, TokenStorage
from mcp.shared.auth import AuthorizationCodeResult, OAuthClientInformationFull, OAuthClientMetadata, OAuthToken
from pydantic import AnyUrl
from quart import Quart
from quart.typing import TestClientProtocol as Client

from local_azure.entra.directory import BROWSER
from local_azure.environment import LocalAzure
from tests.quart_app.conftest import Bearer
from tests.support.answers import error_of
from tests.support.entra_client import API_SCOPE, ORIGIN, REDIRECT_URI, TENANT
from tests.support.running_service import served
from upstream.http_session import new_http_session

WELL_KNOWN = "/.well-known/oauth-protected-resource"


class Remembered(TokenStorage):
    """The client's registration, made beforehand as Entra ID wants it, and nothing else at first."""

    def __init__(self) -> None:
        self.tokens: OAuthToken | None = None
        self.registration = OAuthClientInformationFull(
            client_id=BROWSER.client_id, redirect_uris=[AnyUrl(REDIRECT_URI)], token_endpoint_auth_method="none"
        )

    async def get_tokens(self) -> OAuthToken | None:
        return self.tokens

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self.tokens = tokens

    async def get_client_info(self) -> OAuthClientInformationFull:
        return self.registration

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        self.registration = client_info


class Person:
    """Signs in where the client sends them: the local user Alex, without being asked."""

    def __init__(self, http: aiohttp.ClientSession) -> None:
        self._http = http
        self.asked: list[str] = []
        self._answer: dict[str, str] = {}

    async def visit(self, address: str) -> None:
        self.asked.append(address)
        known = "prompt=none&login_hint=alex@contoso.localhost"
        async with self._http.get(f"{address}&{known}", headers={}, allow_redirects=False) as answer:
            self._answer = dict(parse_qsl(urlsplit(answer.headers["Location"]).query))

    async def come_back(self) -> AuthorizationCodeResult:
        return AuthorizationCodeResult(code=self._answer["code"], state=self._answer["state"])


async def from_a_page(request: httpx2.Request) -> None:
    """The registration is one of a single-page application, whose codes only a page of another origin may redeem."""
    request.headers["Origin"] = ORIGIN


async def test_a_foreign_client_finds_issuer_and_scope_by_the_challenge_alone_and_signs_in(
    app: Quart, local_azure: LocalAzure
) -> None:
    trust = ssl.create_default_context()
    async with served(app) as address, new_http_session() as http:
        person, storage = Person(http), Remembered()
        provider = OAuthClientProvider(
            server_url=f"{address}/api/user",
            client_metadata=OAuthClientMetadata(
                redirect_uris=[AnyUrl(REDIRECT_URI)],
                grant_types=["authorization_code"],
                token_endpoint_auth_method="none",
            ),
            storage=storage,
            redirect_handler=person.visit,
            callback_handler=person.come_back,
        )
        async with httpx2.AsyncClient(auth=provider, verify=trust, event_hooks={"request": [from_a_page]}) as client:
            answer = await client.post(f"{address}/api/user")
    assert answer.status_code == 201
    assert [answer.json()["acsUserIdentity"]] == local_azure.acs.live_identities()
    (asked,) = person.asked
    assert urlunsplit((*urlsplit(asked)[:3], "", "")) == f"{local_azure.entra.url}/{TENANT}/oauth2/v2.0/authorize"
    assert dict(parse_qsl(urlsplit(asked).query))["scope"] == API_SCOPE


async def test_the_document_says_who_issues_tokens_and_what_to_ask_for(client: Client, local_azure: LocalAzure) -> None:
    answer = await client.get(WELL_KNOWN)
    assert answer.status_code == 200
    assert answer.mimetype == "application/json"
    assert answer.headers["Cache-Control"] == "no-store"
    assert await answer.get_json() == {
        "resource": "http://localhost",
        "authorization_servers": [f"{local_azure.entra.url}/{TENANT}/v2.0"],
        "scopes_supported": [API_SCOPE],
        "bearer_methods_supported": ["header"],
        "resource_name": "ACS authentication service",
        "resource_documentation": "http://localhost/docs",
    }


@pytest.mark.parametrize("path", ["/api/user", "/api/token", "/api/token/teams", "/getUser", "/getToken"])
async def test_a_challenge_leads_to_a_document_about_exactly_the_url_that_was_asked(client: Client, path: str) -> None:
    """RFC 9728, section 3.3."""
    challenge = (await client.get(path)).headers["WWW-Authenticate"]
    named = challenge.partition('resource_metadata="')[2].partition('"')[0]
    assert named == f"http://localhost{WELL_KNOWN}{path}"
    document = await (await client.get(urlsplit(named).path)).get_json()
    assert document["resource"] == f"http://localhost{path}"


async def test_every_401_names_the_document_also_that_of_a_bad_token(client: Client) -> None:
    answer = await client.get("/api/user", headers={"Authorization": "Bearer no.token.atall"})
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"].startswith('Bearer error="invalid_token", ')
    assert answer.headers["WWW-Authenticate"].endswith(f', resource_metadata="http://localhost{WELL_KNOWN}/api/user"')


async def test_no_other_answer_names_it(client: Client, bearer: Bearer, local_azure: LocalAzure) -> None:
    token = local_azure.entra.access_token("alex", scope="other_scope")
    forbidden = await client.get("/api/user", headers={"Authorization": f"Bearer {token}"})
    assert forbidden.status_code == 403
    assert "resource_metadata" not in forbidden.headers["WWW-Authenticate"]
    assert "WWW-Authenticate" not in (await client.get("/api/user", headers=bearer("alex"))).headers


@pytest.mark.parametrize("path", ["/api/nothing", "/health/live", "/docs", "/api/user/", "/API/user"])
async def test_what_is_no_protected_route_has_no_document(client: Client, path: str) -> None:
    assert await error_of(await client.get(WELL_KNOWN + path)) == (404, "not_found")


@pytest.mark.parametrize("host", ['x", error="', "a b", "", "host/..", "user@host", "h\u00f6st", "host:port", "x?y"])
async def test_a_host_that_can_be_none_is_never_repeated(client: Client, host: str) -> None:
    refused = await client.get("/api/user", headers={"Host": host})
    assert refused.headers["WWW-Authenticate"] == "Bearer"
    assert await error_of(await client.get(WELL_KNOWN, headers={"Host": host})) == (404, "not_found")


@pytest.mark.parametrize("host", ["api.example.com", "localhost:5000", "[::1]:5000", "10.0.0.4"])
async def test_the_address_is_that_by_which_the_client_asked(client: Client, host: str) -> None:
    document = await (await client.get(WELL_KNOWN, headers={"Host": host})).get_json()
    assert document["resource"] == f"http://{host}"
