"""ACS tokens for as long as the user stays signed in.

MSAL hands out an Entra ID token from its cache until five minutes before its end; azure-core's policy asks the
credential for a new one five minutes before the old one's end; the chat SDK's own credential begins at ten. A Teams
user's ACS token ends with the Entra ID token that it was exchanged for, which MSAL would give once more at that time.
`AcsTokens` renews earlier than all of them, and tells MSAL when its cache won't do.

The chat SDK's credential (azure-communication-chat 1.3) must not do the renewing in asyncio: where two coroutines ask
it for a token after the end of the old one, the second spins and the event loop stands still. The credential here is
the SDK's in type, and asks `AcsTokens` each time.
"""

import asyncio
import contextlib
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self, TypeVar

import aiohttp
import msal
from azure.communication.chat.aio import CommunicationTokenCredential
from azure.core.credentials import AccessToken

from acs_auth_client.entra import EntraTokens, SignIn
from acs_auth_client.errors import AcsAuthError, PassingTrouble
from acs_auth_client.rules import MINUTE, claims_of_challenge, expiry, renewal_time, retry_after

Answer = TypeVar("Answer")

PATIENCE_SECONDS = 30.0
"""How long a caller without a usable token waits for trouble to pass."""

RENEWAL = "acs-token-renewal"
"""The name of the task that gets a token."""

_USABLE_SECONDS = MINUTE
_LONGEST_PAUSE_SECONDS = MINUTE
_LOOK_EVERY_SECONDS = MINUTE  # the clock of a computer that slept has moved on, its timers have not
_TEAMS_TOKEN_LEFT_SECONDS = 20 * MINUTE  # more than any renewal is ahead of the end
_REQUEST_TIMEOUT = aiohttp.ClientTimeout(total=30)
_TEAMS_RESOURCE = "https://auth.msft.communication.azure.com"
_TEAMS_SCOPES = [f"{_TEAMS_RESOURCE}/Teams.ManageCalls", f"{_TEAMS_RESOURCE}/Teams.ManageChats"]


@dataclass(frozen=True, slots=True)
class AcsToken:
    """An ACS access token; `expires_at` is in seconds since the epoch."""

    token: str = field(repr=False)
    expires_at: float


class AcsTokens:
    """The ACS tokens of one user. Use as an async context manager: inside it, tokens are renewed in the background.

    `service`   the authentication service, such as `https://auth.contoso.com`
    `msal_app`  MSAL, made with `client_capabilities=["CP1"]`: without it a claims challenge is refused, not told
    `scope`     of the service's API: `api://<client id of the API>/access_as_user`
    `teams`     get the tokens of the signed-in Teams user, not those of the user's own ACS identity
    `sign_in`   lets the user sign in; by default MSAL opens the system's browser
    `clock` tells seconds since the epoch, `sleep` waits for seconds, `draw` draws from 0 to 1.
    """

    def __init__(
        self,
        service: str,
        msal_app: msal.PublicClientApplication,
        scope: str,
        *,
        teams: bool = False,
        sign_in: SignIn | None = None,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._service = service.rstrip("/")
        self._entra = EntraTokens(msal_app, sign_in)
        self._scope = scope
        self._teams = teams
        self._clock = clock
        self._sleep = sleep
        self._draw = draw
        self._held: AcsToken | None = None
        self._renew_at = 0.0
        self._flight: asyncio.Task[AcsToken] | None = None
        self._user_id: str | None = None
        self._session: aiohttp.ClientSession | None = None
        self._looking: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(timeout=_REQUEST_TIMEOUT, cookie_jar=aiohttp.DummyCookieJar())
        self._looking = asyncio.create_task(self._look())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop()
        if self._session is not None:
            await self._session.close()
        self._session = None

    @property
    def user_id(self) -> str | None:
        """The user's ACS id (`8:acs:…`), known with the first token; a Teams user has none."""
        return self._user_id

    @property
    def renewing(self) -> bool:
        """Whether a request for a token is on its way."""
        return self._flight is not None

    async def get(self) -> AcsToken:
        """A token that is good for a minute or more; renewed in the background long before its end.

        Raises `AcsAuthError` when there is none and none can be had: at once for what a repeat can't cure, after half a
        minute of trouble otherwise. The next call tries again.
        """
        if self._looking is None:
            raise _closed()
        if self._held is not None and self._held.expires_at - self._clock() > _USABLE_SECONDS:
            if self._clock() >= self._renew_at:
                self._renew()
            return self._held
        flight = self._renew()
        try:
            return await asyncio.shield(flight)  # a caller that gives up leaves the others theirs
        except asyncio.CancelledError:
            if flight.cancelled():
                raise _closed() from None
            raise

    async def credential(self) -> "AcsCredential":
        """The credential for `azure.communication.chat.aio.ChatClient`. Raises `AcsAuthError`."""
        return AcsCredential(self, await self.get())

    async def sign_out_everywhere(self) -> None:
        """End every ACS token of this user, on all devices; the ACS identity stays. Nothing is renewed afterwards.

        The sign-in at Entra ID is MSAL's to end (`remove_account`). Raises `AcsAuthError`; its `error` is
        `sign_out_not_offered` where the service is too old to do this.
        """
        await self._stop()  # a token issued after the sign-out would survive it
        try:
            await self._persistently(lambda: self._call("DELETE", "/api/token"), PATIENCE_SECONDS)
        except AcsAuthError as error:
            if error.error == "identity_not_found":
                return
            if error.status in (404, 405):
                message = "The service can't sign out everywhere yet; its operator must update it."
                raise AcsAuthError(message, "sign_out_not_offered", error.status, error.request_id) from error
            raise

    async def _stop(self) -> None:
        self._held = None
        for task in (self._looking, self._flight):
            if task is not None:
                task.cancel()
                await asyncio.wait({task})
        self._looking = self._flight = None

    async def _look(self) -> None:
        """Renew in the background when it is time; once there has been a token."""
        while True:
            if self._held is not None and self._clock() >= self._renew_at:
                with contextlib.suppress(AcsAuthError):  # whoever needs a token after the end of this one is told
                    await asyncio.shield(self._renew())
            left = self._renew_at - self._clock() if self._held is not None else _LOOK_EVERY_SECONDS
            await self._sleep(min(max(left, 1.0), _LOOK_EVERY_SECONDS))

    def _renew(self) -> asyncio.Task[AcsToken]:
        if self._flight is None:
            self._flight = asyncio.create_task(self._obtain(), name=RENEWAL)
            self._flight.add_done_callback(self._landed)
        return self._flight

    def _landed(self, flight: asyncio.Task[AcsToken]) -> None:
        self._flight = None
        if not flight.cancelled():
            flight.exception()  # told to whoever waits; a background renewal has nobody

    async def _obtain(self) -> AcsToken:
        left = self._held.expires_at - self._clock() if self._held is not None else 0.0
        try:
            token = await self._persistently(self._ask_for_token, max(left, PATIENCE_SECONDS))
        except AcsAuthError as error:
            # Only what may pass is tried again without being asked: else one sign-in might open after the other.
            passing = isinstance(error, PassingTrouble)
            self._renew_at = self._clock() + _LONGEST_PAUSE_SECONDS if passing else float("inf")
            raise
        self._held = token
        self._renew_at = renewal_time(self._clock(), token.expires_at, self._draw())
        return token

    async def _persistently(self, attempt: Callable[[], Awaitable[Answer]], patience: float) -> Answer:
        """Repeat what passing trouble stopped, after the pause that was asked for, within `patience` seconds."""
        give_up_at = self._clock() + patience
        failures = 0
        while True:
            try:
                return await attempt()
            except PassingTrouble as trouble:
                backoff = 1 + self._draw() * min(_LONGEST_PAUSE_SECONDS, 2.0**failures)
                pause = backoff if trouble.pause is None else trouble.pause + self._draw()
                if self._clock() + pause > give_up_at:
                    raise
                failures += 1
            await self._sleep(pause)

    async def _ask_for_token(self) -> AcsToken:
        path = "/api/token/teams" if self._teams else "/api/token"
        try:
            answer = await self._call("GET", path)
        except AcsAuthError as error:
            if error.error != "identity_not_found":
                raise
            await self._call("POST", "/api/user")
            answer = await self._call("GET", path)
        token, expires_at = answer.get("token"), expiry(answer.get("expiresOn"))
        if not isinstance(token, str) or expires_at is None:
            raise AcsAuthError(
                f"What answers at {self._service} is not the authentication service.", "unexpected_answer"
            )
        if expires_at <= self._clock():
            raise AcsAuthError("The new token has already expired: this computer's clock is wrong.", "clock_wrong")
        user = answer.get("user")
        self._user_id = user.get("communicationUserId") if isinstance(user, dict) else None
        return AcsToken(token, expires_at)

    async def _call(self, method: str, path: str) -> dict[str, Any]:
        """One request; a refused Entra ID token is replaced once, with the claims that the service asks for."""
        response = await self._send(method, path, claims=None, refused=False)
        if response.status == 401:
            claims = claims_of_challenge(response.headers.get("WWW-Authenticate"))
            response = await self._send(method, path, claims=claims, refused=claims is None)
        return self._read(response)

    async def _send(self, method: str, path: str, *, claims: str | None, refused: bool) -> "_Response":
        if self._session is None:
            raise _closed()
        token = await self._entra.get([self._scope], claims=claims, refused=refused)
        headers = {"Authorization": f"Bearer {token}"}
        if self._teams:
            headers["teams-user-aad-token"] = await self._entra.get(
                _TEAMS_SCOPES, claims=None, refused=refused, left=_TEAMS_TOKEN_LEFT_SECONDS
            )
        try:
            async with self._session.request(
                method, f"{self._service}{path}", headers=headers, allow_redirects=False
            ) as response:
                is_json = response.content_type == "application/json"
                body = await response.json() if is_json else {}
                return _Response(response.status, response.headers, body if isinstance(body, dict) else {})
        except (TimeoutError, aiohttp.ClientError, ValueError) as error:
            raise PassingTrouble(f"{self._service} can't be reached.", "unreachable") from error

    def _read(self, response: "_Response") -> dict[str, Any]:
        status, body = response.status, response.body
        if status < 300:
            return body
        name, message = body.get("error"), body.get("message")
        named = isinstance(name, str) and isinstance(message, str)
        if not named:
            name, message = "unexpected_answer", f"The answer has status {status} and is not the service's own."
        # An error page of a proxy in front of the service is passing trouble, an error of the service's own is not.
        passing = status in (429, 503) or (status >= 500 and not named)
        error = (PassingTrouble if passing else AcsAuthError)(str(message), str(name), status, body.get("requestId"))
        if isinstance(error, PassingTrouble):
            error.pause = retry_after(response.headers.get("Retry-After"), self._clock())
        raise error


def _closed() -> AcsAuthError:
    return AcsAuthError("Use AcsTokens inside `async with`, and not after the sign-out.", "closed")


@dataclass(frozen=True, slots=True)
class _Response:
    """An answer of the service; the names of `headers` have no case, `body` is empty unless it is a JSON object."""

    status: int
    headers: Mapping[str, str]
    body: dict[str, Any] = field(repr=False)


class AcsCredential(CommunicationTokenCredential):
    """The chat SDK's credential by type; the token is always that of `AcsTokens`."""

    def __init__(self, tokens: AcsTokens, first: AcsToken) -> None:
        super().__init__(first.token)
        self._tokens = tokens

    async def get_token(self, *scopes: str, **kwargs: Any) -> AccessToken:
        """A token that is good for a minute or more. Raises `AcsAuthError`."""
        token = await self._tokens.get()
        return AccessToken(token.token, int(token.expires_at))
