"""How the tests of the Entra ID stand-in talk to it: as a browser, as the service (MSAL), as a validator (PyJWT)."""

import asyncio
import base64
import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import aiohttp
import jwt
import msal
import requests

from local_azure.entra.directory import API, BROWSER, HOME_TENANT, Application

TENANT = HOME_TENANT.tenant_id
ORIGIN = "http://localhost:3000"
REDIRECT_URI = f"{ORIGIN}/signed-in"
API_SCOPE = f"{API.app_id_uri}/access_as_user"
GRAPH_SCOPES = ["https://graph.microsoft.com/User.ReadWrite"]
VERIFIER = "a-verifier-of-at-least-forty-three-characters-0123"
CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode()


def authorization_request(**changes: str | None) -> dict[str, str]:
    """The query of a single-page application's silent sign-in; `None` leaves a parameter out."""
    parameters: dict[str, str | None] = {
        "client_id": BROWSER.client_id,
        "response_type": "code",
        "redirect_uri": REDIRECT_URI,
        "scope": f"{API_SCOPE} openid profile offline_access",
        "state": "state & more",
        "code_challenge": CHALLENGE,
        "code_challenge_method": "S256",
        "prompt": "none",
        "login_hint": "alex@contoso.localhost",
        **changes,
    }
    return {name: value for name, value in parameters.items() if value is not None}


def redemption(code: str, /, **changes: str | None) -> dict[str, str]:
    """The form that redeems a code; `None` leaves a parameter out."""
    parameters: dict[str, str | None] = {
        "grant_type": "authorization_code",
        "client_id": BROWSER.client_id,
        "code": code,
        "redirect_uri": REDIRECT_URI,
        "code_verifier": VERIFIER,
        **changes,
    }
    return {name: value for name, value in parameters.items() if value is not None}


class Browser:
    """A single-page application's browser."""

    def __init__(self, http: aiohttp.ClientSession, url: str) -> None:
        self._http = http
        self._url = url

    async def authorize(self, tenant: str = TENANT, /, **changes: str | None) -> dict[str, str]:
        """Ask for a code and return the parameters of the redirect."""
        answer = await self.authorize_raw(tenant, **changes)
        location = urlsplit(answer.headers["Location"])
        assert answer.status == 302
        assert location._replace(query="", fragment="").geturl() == changes.get("redirect_uri", REDIRECT_URI)
        return dict(parse_qsl(location.query or location.fragment))

    async def authorize_raw(self, tenant: str = TENANT, /, **changes: str | None) -> aiohttp.ClientResponse:
        """Ask for a code and return the answer as it is."""
        address = f"{self._url}/{tenant}/oauth2/v2.0/authorize"
        async with self._http.get(address, params=authorization_request(**changes), allow_redirects=False) as answer:
            await answer.read()
            return answer

    async def redeem(
        self,
        form: dict[str, str],
        *,
        tenant: str = TENANT,
        origin: str | None = ORIGIN,
        authorization: str | None = None,
    ) -> tuple[int, dict[str, Any]]:
        """Post a form to the token endpoint; returns status and body."""
        headers = {"Origin": origin, "Authorization": authorization}
        sent = {name: value for name, value in headers.items() if value}
        async with self._http.post(f"{self._url}/{tenant}/oauth2/v2.0/token", data=form, headers=sent) as answer:
            return answer.status, await answer.json()

    async def sign_in(self, **changes: str | None) -> dict[str, Any]:
        """The whole flow; returns the tokens."""
        code = (await self.authorize(**changes))["code"]
        status, body = await self.redeem(redemption(code, client_id=changes.get("client_id", BROWSER.client_id)))
        assert status == 200, body
        return body


@contextmanager
def confidential_client(
    url: str, *, client: Application = API, credential: Any = None, tenant: str = TENANT, **more: Any
) -> Iterator[msal.ConfidentialClientApplication]:
    """MSAL as the service uses it."""
    with requests.Session() as session:
        yield msal.ConfidentialClientApplication(
            client.client_id,
            authority=f"{url}/{tenant}",
            client_credential=credential or client.secret,
            instance_discovery=False,
            http_client=session,
            **more,
        )


async def with_msal(
    url: str, call: Callable[[msal.ConfidentialClientApplication], dict[str, Any]], **more: Any
) -> dict[str, Any]:
    """Run `call` with an MSAL application in a thread: MSAL is synchronous."""

    def run() -> dict[str, Any]:
        with confidential_client(url, **more) as application:
            return call(application)

    return await asyncio.to_thread(run)


async def on_behalf_of(url: str, assertion: str, scopes: list[str] | None = None, **more: Any) -> dict[str, Any]:
    """What MSAL answers for an on-behalf-of call."""
    asked = scopes or GRAPH_SCOPES
    return await with_msal(url, lambda app: app.acquire_token_on_behalf_of(assertion, asked), **more)


def read(token: str) -> dict[str, Any]:
    """A token's claims, unchecked."""
    claims: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return claims


def error_codes(answer: dict[str, Any]) -> list[int]:
    """The AADSTS numbers of a refused token request."""
    assert "access_token" not in answer
    codes: list[int] = answer["error_codes"]
    return codes
