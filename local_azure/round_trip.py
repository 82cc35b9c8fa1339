"""One full round trip as a client makes it: sign in with Entra ID, get an ACS identity, get an ACS access token."""

import base64
import hashlib
import json
import secrets
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

import aiohttp

from local_azure.entra.directory import API, BROWSER, HOME_TENANT, User

Echo = Callable[[str], None]

TIMEOUT_SECONDS = 30
_SHOWN_CHARACTERS = 24


class RoundTripFailed(Exception):
    """An answer was not the expected one; the message says which."""


@dataclass(frozen=True, slots=True)
class RoundTrip:
    """Who to call. `trust` verifies the Entra stand-in; the service speaks plain HTTP on loopback.

    `verify` gives the claims of an ACS access token after checking it.
    """

    entra_url: str
    service_url: str
    trust: ssl.SSLContext
    verify: Callable[[str], dict[str, Any]]
    token_header: Callable[[str], dict[str, Any]]

    async def make(self, user: User, echo: Echo) -> None:
        """Make the round trip for `user` and tell every step. Raises `RoundTripFailed`, `aiohttp.ClientError`."""
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
        async with aiohttp.ClientSession(timeout=timeout) as session:
            echo(f"Signing in as {user.name} ({user.alias}), authorization code with PKCE:")
            access_token = await self._sign_in(session, user, echo)
            headers = {"Authorization": f"Bearer {access_token}"}
            echo("\nCalling the service with that access token:")
            await self._call(session, "POST", "/api/user", headers, (200, 201), echo)
            answer = await self._call(session, "GET", "/api/token", headers, (201,), echo)
        token = answer["token"]
        echo("\nThe ACS access token holds (signature verified):")
        echo(_indented({"header": self.token_header(token), "claims": self.verify(token)}))

    async def _sign_in(self, session: aiohttp.ClientSession, user: User, echo: Echo) -> str:
        verifier = secrets.token_urlsafe(48)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()
        redirect_uri = f"{self.service_url}/docs"
        scope = f"{API.app_id_uri}/{API.scopes[0]}"
        endpoint = f"{self.entra_url}/{HOME_TENANT.tenant_id}/oauth2/v2.0"
        state = secrets.token_urlsafe(16)
        parameters = {
            "client_id": BROWSER.client_id,
            "response_type": "code",
            "response_mode": "query",
            "redirect_uri": redirect_uri,
            "scope": scope,
            "state": state,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
            "login_hint": user.username,
            "prompt": "none",
        }
        async with session.get(
            f"{endpoint}/authorize", params=parameters, allow_redirects=False, ssl=self.trust
        ) as response:
            echo(f"  GET  {endpoint}/authorize -> {response.status}")
            query = parse_qs(urlsplit(response.headers.get("Location", "")).query)
        if query.get("state") != [state] or "code" not in query:
            raise RoundTripFailed("The Entra ID stand-in did not answer the sign-in with an authorization code.")
        form = {
            "client_id": BROWSER.client_id,
            "grant_type": "authorization_code",
            "code": query["code"][0],
            "redirect_uri": redirect_uri,
            "code_verifier": verifier,
            "scope": scope,
        }
        # A single-page application's code is redeemed from its own origin only (AADSTS9002327).
        origin = {"Origin": self.service_url}
        async with session.post(f"{endpoint}/token", data=form, headers=origin, ssl=self.trust) as response:
            echo(f"  POST {endpoint}/token -> {response.status}")
            answer = await response.json()
        if response.status != 200:
            raise RoundTripFailed("The Entra ID stand-in did not exchange the authorization code for a token.")
        return str(answer["access_token"])

    async def _call(
        self,
        session: aiohttp.ClientSession,
        method: str,
        path: str,
        headers: dict[str, str],
        expected: tuple[int, ...],
        echo: Echo,
    ) -> dict[str, Any]:
        async with session.request(method, f"{self.service_url}{path}", headers=headers) as response:
            answer: dict[str, Any] = await response.json()
        echo(f"  {method} {self.service_url}{path} -> {response.status}")
        echo(_indented(_shortened(answer)))
        if response.status not in expected:
            raise RoundTripFailed(f"{method} {path} was answered with {response.status}.")
        return answer


def _shortened(answer: dict[str, Any]) -> dict[str, Any]:
    token = answer.get("token")
    if not isinstance(token, str):
        return answer
    return answer | {"token": f"{token[:_SHOWN_CHARACTERS]}… ({len(token)} characters)"}


def _indented(value: Any) -> str:
    text = json.dumps(value, indent=2, ensure_ascii=False)
    return "\n".join(f"    {line}" for line in text.splitlines())
