"""The ACS Identity client over the Azure SDK: one client, one connection pool, no retries below our own policy."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import aiohttp
from azure.communication.identity import CommunicationUserIdentifier
from azure.communication.identity.aio import CommunicationIdentityClient
from azure.core.credentials import AzureKeyCredential
from azure.core.exceptions import AzureError, DecodeError, HttpResponseError, IncompleteReadError
from azure.core.pipeline import PipelineRequest, PipelineResponse
from azure.core.pipeline.policies import AsyncHTTPPolicy, ContentDecodePolicy
from azure.core.pipeline.transport import AioHttpTransport
from azure.core.rest import AsyncHttpResponse, HttpRequest

from quart_app.acs.answers import acs_token, acs_user_id
from quart_app.acs.interface import (
    AcsCredentialsRejected,
    AcsError,
    AcsToken,
    AcsUnavailable,
    Answered,
    IdentityGone,
    IdentityNotOwned,
    IdentityRefused,
    TokenRequest,
    UnexpectedAnswer,
)
from quart_app.acs.refusals import CREDENTIAL_REFUSED, IDENTITY_ADVICE, KEY_ADVICE, error_for, row_for
from quart_app.credentials import AzureCredential
from quart_app.settings import AcsConnectionString
from upstream.errors import Cause, Throttled, Unavailable, UpstreamError, plain
from upstream.http_session import new_http_session
from upstream.refusals import UNKNOWN_ADVICE
from upstream.retry_after import retry_after

T = TypeVar("T")

_DEFAULT_LIFETIME_MINUTES = 1440  # azure-rest-api-specs: CommunicationIdentity.json 2023-10-01


@dataclass(frozen=True, slots=True)
class AcsOptions:
    """Which ACS resource is used and how; either `connection_string`, or `endpoint` (https) with `credential`.

    token_scopes            what issued tokens are good for (`chat`, `voip`, …); at least one
    token_lifetime_minutes  60 to 1440 (azure-rest-api-specs: CommunicationIdentity.json 2023-10-01)
    connect_seconds         for a connection, TLS included
    read_seconds            between two pieces of an answer
    mint_seconds            for the creation of an identity: longer, because a caller who gives up does not learn its id
    connections             the most connections at once

    The credential stays the caller's: its maker closes it. Raises `ValueError`.
    """

    token_scopes: tuple[str, ...]
    token_lifetime_minutes: int = _DEFAULT_LIFETIME_MINUTES
    connection_string: AcsConnectionString | None = None
    endpoint: str | None = None
    credential: AzureCredential | None = None
    connect_seconds: float = 3.0
    read_seconds: float = 8.0
    mint_seconds: float = 30.0
    connections: int = 100

    def __post_init__(self) -> None:
        by_key = self.connection_string is not None
        by_credential = self.endpoint is not None and self.credential is not None
        if by_key == by_credential:
            raise ValueError("Pass either a connection string, or an endpoint with a credential.")
        if not self.token_scopes:
            raise ValueError("Pass at least one token scope.")
        if not 60 <= self.token_lifetime_minutes <= 1440:
            raise ValueError("The token lifetime must be 60 to 1440 minutes.")


class SdkAcsClient:
    """`AcsClient` over azure-communication-identity. Make it inside the running event loop, once per process.

    Every call is one request, bounded by the options' times. What repeats it is `acs.guarded`. `clock` (seconds since
    the epoch) is for `Retry-After` dates.
    """

    def __init__(self, options: AcsOptions, *, clock: Callable[[], float] = time.time) -> None:
        self._scopes = list(options.token_scopes)
        self._lifetime = _lifetime(options.token_lifetime_minutes)
        self._attempt_seconds = options.connect_seconds + options.read_seconds
        self._mint_seconds = options.mint_seconds
        self._clock = clock
        self._credential_advice = KEY_ADVICE if options.connection_string is not None else IDENTITY_ADVICE
        self._session = new_http_session(options.connections)
        # A mint is not repeated once it may have happened, so it never uses a kept connection that may be cut by now.
        self._minting_session = new_http_session(options.connections, keep=False)
        self._client = _lean_client(options, self._session)
        self._minting = _lean_client(options, self._minting_session)

    async def create_identity(self) -> str:
        """See `AcsClient.create_identity`."""

        async def create() -> str:
            created = await self._minting.create_user(read_timeout=self._mint_seconds)
            return acs_user_id(created.properties["id"])

        return await self._call(create, _about_service, seconds=self._mint_seconds)

    async def delete_identity(self, acs_user_id: str) -> None:
        """See `AcsClient.delete_identity`."""
        user = CommunicationUserIdentifier(acs_user_id)
        try:
            await self._call(lambda: self._client.delete_user(user), _about_identity)
        except IdentityGone:
            return

    async def issue_token(self, acs_user_id: str, request: TokenRequest | None = None) -> AcsToken:
        """See `AcsClient.issue_token`."""
        user = CommunicationUserIdentifier(acs_user_id)
        scopes = list(self._scopes if request is None else request.scopes)
        lifetime = self._lifetime if request is None else _lifetime(request.minutes)

        async def issue() -> AcsToken:
            issued = await self._client.get_token(user, scopes, token_expires_in=lifetime)
            return acs_token(issued.token, issued.expires_on)

        return await self._call(issue, _about_identity)

    async def revoke_tokens(self, acs_user_id: str) -> None:
        """See `AcsClient.revoke_tokens`."""
        user = CommunicationUserIdentifier(acs_user_id)
        await self._call(lambda: self._client.revoke_tokens(user), _about_identity)

    async def exchange_teams_token(self, teams_token: str, client_id: str, user_object_id: str) -> AcsToken:
        """See `AcsClient.exchange_teams_token`."""

        async def exchange() -> AcsToken:
            issued = await self._client.get_token_for_teams_user(teams_token, client_id, user_object_id)
            return acs_token(issued.token, issued.expires_on)

        return await self._call(exchange, _about_service, teams=True)

    async def aclose(self) -> None:
        """See `AcsClient.aclose`."""
        await self._client.close()
        await self._minting.close()
        await self._session.close()
        await self._minting_session.close()

    async def _call(
        self,
        operation: Callable[[], Awaitable[T]],
        describe: Callable[["_AcsAnswer"], AcsError | None],
        *,
        teams: bool = False,
        seconds: float | None = None,
    ) -> T:
        try:
            async with asyncio.timeout(seconds or self._attempt_seconds):
                return await operation()
        except UpstreamError:  # from the credential, which the SDK asked for a token
            raise
        except Exception as error:  # whatever the SDK raises ends here
            # Causes are cut off because the texts of lower layers hold URLs, and so the user's ACS id.
            raise self._translate(error, describe, teams=teams) from None

    def _translate(
        self, error: Exception, describe: Callable[["_AcsAnswer"], AcsError | None], *, teams: bool
    ) -> AcsError:
        answer = _answer(error)
        if answer is None:
            return _without_answer(error).because(Cause(code=type(error).__name__))
        row = row_for(answer.status, answer.code, answer.target, teams=teams)
        meant = describe(answer)
        if meant is None:
            seconds = retry_after(answer.headers, self._clock)
            meant = error_for(row, answer.status, answer.target, seconds)
            advice = row.advice if row else UNKNOWN_ADVICE
            if isinstance(meant, AcsCredentialsRejected):
                advice = self._credential_advice
            cause = _cause(answer, advice)
            meant = meant.because(cause)
            return _unproven(answer, meant).because(cause) if describe is _about_identity else meant
        return meant.because(_cause(answer))


@dataclass(frozen=True, slots=True)
class _AcsAnswer:
    """An answer other than success: `{"error": {"code", "message", "target"}}` with its status and headers."""

    status: int
    headers: Mapping[str, str]
    code: str | None
    message: str
    target: str


class _ReadJson(AsyncHTTPPolicy[HttpRequest, AsyncHttpResponse]):
    """Reads what ACS answers. A request passes through nothing but this and the signing.

    The SDK's other twelve policies take longer than sending the request (docs/contribute/performance-lab.md), and do
    what is done here elsewhere, or not at all: they would send a failed create up to four times, follow redirects with
    the request's signature, and log request URLs, which hold ACS ids.
    """

    async def send(self, request: PipelineRequest[HttpRequest]) -> PipelineResponse[HttpRequest, AsyncHttpResponse]:
        response = await self.next.send(request)
        if response.http_response.status_code in (200, 201):
            response.context[ContentDecodePolicy.CONTEXT_NAME] = json.loads(response.http_response.content)
        return response


def _lifetime(minutes: int) -> timedelta | None:
    # ACS's own default is not named: the SDK writes a number by compiling an expression each time.
    return timedelta(minutes=minutes) if minutes != _DEFAULT_LIFETIME_MINUTES else None


def _lean_client(options: AcsOptions, session: aiohttp.ClientSession) -> CommunicationIdentityClient:
    transport = AioHttpTransport(
        session=session,
        session_owner=False,
        connection_timeout=options.connect_seconds,
        read_timeout=options.read_seconds,
    )
    # The SDK's own way to sign requests has no public name.
    signing = _client(options, transport=transport)._identity_service_client._config.authentication_policy  # noqa: SLF001
    return _client(options, transport=transport, policies=[_ReadJson(), signing])


def _client(options: AcsOptions, **keywords: Any) -> CommunicationIdentityClient:
    if options.connection_string is not None:
        key = AzureKeyCredential(options.connection_string.access_key)
        return CommunicationIdentityClient(options.connection_string.endpoint, key, **keywords)
    assert options.endpoint is not None  # noqa: S101 (AcsOptions)
    assert options.credential is not None  # noqa: S101 (AcsOptions)
    return CommunicationIdentityClient(options.endpoint.rstrip("/"), options.credential, **keywords)


def _answer(error: Exception) -> _AcsAnswer | None:
    """What ACS answered; `None` when it did not answer, or not to the end."""
    response = getattr(error, "response", None)
    if not isinstance(error, HttpResponseError) or isinstance(error, IncompleteReadError) or response is None:
        return None
    details = error.error
    return _AcsAnswer(
        status=error.status_code or 0,
        headers=response.headers,
        code=_text(details and details.code) or None,
        message=_text(details and details.message),
        target=_text(details and details.target),
    )


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _without_answer(error: Exception) -> AcsError:
    if isinstance(error, TimeoutError | json.JSONDecodeError | UnicodeDecodeError):  # no answer, or not ACS's own
        return AcsUnavailable()
    if isinstance(error, AzureError) and (not isinstance(error, DecodeError) or isinstance(error, IncompleteReadError)):
        # azure-core raises ServiceRequestError also for connections that broke after the request was sent; only
        # aiohttp's own exception says that there never was a connection.
        never_connected = isinstance(error.inner_exception, _NO_CONNECTION)
        return AcsUnavailable(nothing_happened=never_connected)
    return UnexpectedAnswer(None)


_NO_CONNECTION = (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)


def _about_service(_: _AcsAnswer) -> AcsError | None:
    return None


def _about_identity(answer: _AcsAnswer) -> AcsError | None:
    if answer.code == "IdentityNotOwned":
        return IdentityNotOwned()
    # Only the message of a deleted identity's answer is on record (Microsoft's authentication server samples).
    if answer.code and answer.message.startswith("Provided identity doesn't exist"):
        return IdentityGone()
    return None


def _cause(answer: _AcsAnswer, advice: str | None = None) -> Cause:
    return Cause(answer.status, plain(answer.code), plain(answer.headers.get("MS-CV")), advice)


def _unproven(answer: _AcsAnswer, otherwise: AcsError) -> AcsError:
    """An answer about an identity that may mean that it is gone; `acs.absence` decides.

    The status is no guide: ACS answers 401 about the service's own credential and about an identity.
    """
    if answer.code is None or answer.code == CREDENTIAL_REFUSED or not 400 <= answer.status < 500:
        return otherwise
    if isinstance(otherwise, Throttled | Unavailable):
        return otherwise
    return IdentityRefused(Answered(answer.status, answer.code), otherwise)
