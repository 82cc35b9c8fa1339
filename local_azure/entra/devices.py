"""The device authorization grant (RFC 8628): a program shows a code, and its user signs in elsewhere with it."""

import secrets
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from local_azure.clock import Clock
from local_azure.entra import pages, scopes
from local_azure.entra.directory import APPLICATIONS, USERS, User
from local_azure.entra.errors import EntraError, missing_parameter, unknown_client
from local_azure.entra.grants import Grant
from local_azure.entra.token_endpoint import find_tenant

LIFETIME = 15 * 60
"""Seconds (Entra docs, "OAuth 2.0 device authorization grant")."""

INTERVAL = 1
"""Seconds between two polls; Entra ID asks for 5."""

_LETTERS = "BCDFGHJKLMNPQRSTVWXZ"  # without vowels: RFC 8628, section 6.1


@dataclass(slots=True)
class _Request:
    client_id: str
    scope: str
    user_code: str
    expires_at: float
    user: User | None = None
    declined: bool = False


@dataclass(frozen=True, slots=True)
class DeviceCodes:
    """Requests for a sign-in elsewhere, by device code, in memory: a restart forgets them. `url` is Entra's own."""

    url: str
    clock: Clock
    _requests: dict[str, _Request] = field(default_factory=dict)

    async def begin(self, request: web.Request) -> web.Response:
        """`POST /{tenant}/oauth2/v2.0/devicecode`."""
        form = {name: value for name, value in (await request.post()).items() if isinstance(value, str)}
        try:
            return web.json_response(self._begin(request.match_info["tenant"], form))
        except EntraError as error:
            return web.json_response(error.body(self.url, "", "", self.clock()), status=error.status)

    async def show(self, _: web.Request) -> web.Response:
        """`GET /devicelogin`: the page that asks for the code and the user."""
        return pages.device_sign_in(USERS.values())

    async def enter(self, request: web.Request) -> web.Response:
        """`POST /devicelogin`: a code was entered and a user picked, or the sign-in cancelled."""
        form = await request.post()
        code = str(form.get("user_code", "")).upper().replace("-", "").strip()
        waiting = next((each for each in self._requests.values() if each.user_code == code), None)
        user = USERS.get(str(form.get("user", "")))
        if waiting is None or waiting.expires_at <= self.clock():
            return pages.failure(EntraError(70018, "bad_verification_code", "That code didn't work. Check the code."))
        waiting.user, waiting.declined = user, user is None
        return pages.device_signed_in()

    def redeem(self, device_code: str, client_id: str) -> Grant:
        """The sign-in of a device code, which is used up. Raises `EntraError`: pending, declined, expired, unknown."""
        waiting = self._requests.get(device_code)
        if waiting is None or waiting.client_id != client_id:
            raise EntraError(70018, "bad_verification_code", "The device code is not known.")
        if waiting.expires_at <= self.clock():
            raise EntraError(70020, "expired_token", "The device code has expired.")
        if waiting.declined:
            raise EntraError(65004, "authorization_declined", "The user declined to sign in.")
        if waiting.user is None:
            raise EntraError(
                70016,
                "authorization_pending",
                "OAuth 2.0 device flow error. Authorization is pending. Continue polling.",
            )
        del self._requests[device_code]
        return Grant(client_id, waiting.user.tenant_id, waiting.user.object_id, waiting.scope)

    def _begin(self, tenant: str, form: dict[str, str]) -> dict[str, Any]:
        found = find_tenant(tenant)
        if not form.get("client_id"):
            raise missing_parameter("client_id")
        if not form.get("scope"):
            raise missing_parameter("scope")
        client = APPLICATIONS.get(form["client_id"])
        if client is None:
            raise unknown_client(form["client_id"])
        scopes.delegated(scopes.parse(form["scope"], found.tenant_id if found else tenant), client)
        device_code = secrets.token_urlsafe(96)
        user_code = "".join(secrets.choice(_LETTERS) for _ in range(9))
        expires_at = self.clock() + LIFETIME
        self._requests[device_code] = _Request(client.client_id, form["scope"], user_code, expires_at)
        address = f"{self.url}/devicelogin"
        return {
            "user_code": user_code,
            "device_code": device_code,
            "verification_uri": address,
            "expires_in": LIFETIME,
            "interval": INTERVAL,
            "message": f"To sign in, use a web browser to open the page {address} and enter the code {user_code} to "
            "authenticate.",
        }
