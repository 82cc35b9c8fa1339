"""What MSAL gets in place of its own parts: an HTTP client, and caches that remember nothing.

The HTTP client is that of every other upstream, so connections, proxies and certificates work the same way. MSAL's own
would try the addresses of a name one after the other, and keep connections for ever.

No redirects, which would carry the credential along, no retries, a time limit, no cookies. Nothing that an upstream
says enters MSAL unchecked: every answer but a success is a typed error before MSAL sees it, because MSAL keeps the
`error` of a failed request, whatever its type, and joins it into the headers of later ones. Of a success it sees only
the members that it needs, each of the type that it must have.
"""

import asyncio
import json
import math
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

import aiohttp
import msal

from quart_app.auth.on_behalf_of.errors import OnBehalfOfUnavailable, OnBehalfOfUnexpectedAnswer
from quart_app.auth.on_behalf_of.refusals import SPREADING_SECONDS, json_object, refused
from upstream.errors import Cause
from upstream.http_session import new_http_session

LONGEST_BODY = 256 * 1024
"""Bytes. Metadata and tokens take a few kilobytes."""


@dataclass(frozen=True, slots=True)
class CheckedAnswer:
    """A successful answer in the form that MSAL reads, with nothing in it but what was checked."""

    text: str = field(repr=False)
    status_code: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)

    def raise_for_status(self) -> None:
        """There is nothing to raise."""


class HttpClient:
    """What MSAL sends its requests with: `get` for a tenant's metadata, `post` for its tokens.

    Both raise `OnBehalfOfError`. `clock` is in seconds: in the first minutes of its life, errors say what may
    still be spreading.
    """

    def __init__(self, timeout: float, connections: int, clock: Callable[[], float] = time.monotonic) -> None:
        """Make it in the running event loop, which makes the connections; `get` and `post` are for other threads."""
        # A total as well: an answer that trickles in would hold one of the few threads.
        self._timeout = aiohttp.ClientTimeout(total=2 * timeout, sock_connect=timeout, sock_read=timeout)
        self._clock = clock
        self._made_at = clock()
        self._loop = asyncio.get_running_loop()
        self._session = new_http_session(connections, unpack=True)

    def get(self, url: str, **parameters: Any) -> CheckedAnswer:
        return _metadata(self._request("GET", url, **parameters))

    def post(self, url: str, **parameters: Any) -> CheckedAnswer:
        return _token(self._request("POST", url, **parameters))

    async def aclose(self) -> None:
        await self._session.close()

    def _request(
        self, method: str, url: str, params: Any = None, data: Any = None, headers: Any = None, **_: Any
    ) -> bytes:
        """The body of a successful answer."""
        given = {name: value for name, value in (headers or {}).items() if value is not None}
        body = None
        if data:  # MSAL gives some values as bytes
            body = urlencode({name: value for name, value in data.items() if value is not None}).encode()
            given["Content-Type"] = "application/x-www-form-urlencoded"
        asking = self._ask(method, url, params=params or None, data=body, headers=given)
        return asyncio.run_coroutine_threadsafe(asking, self._loop).result()

    async def _ask(self, method: str, url: str, **parts: Any) -> bytes:
        try:
            async with self._session.request(
                method, url, timeout=self._timeout, allow_redirects=False, **parts
            ) as response:
                body = await _read(response)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise OnBehalfOfUnavailable().because(Cause(code=type(error).__name__)) from error
        if response.status != 200:
            just_started = self._clock() - self._made_at < SPREADING_SECONDS
            raise refused(response.status, response.headers, body, just_started=just_started)
        return body


async def _read(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for piece in response.content.iter_chunked(64 * 1024):
        body += piece
        if len(body) > LONGEST_BODY:
            raise OnBehalfOfUnavailable().because(Cause(response.status, "body_too_long"))
    return bytes(body)


def _metadata(body: bytes) -> CheckedAnswer:
    """https://openid.net/specs/openid-connect-discovery-1_0.html#ProviderMetadata"""
    said = _own(body)
    kept = {name: said.get(name) for name in ("issuer", "authorization_endpoint", "token_endpoint")}
    if not all(isinstance(value, str) and _URL.fullmatch(value) for value in kept.values()):
        raise OnBehalfOfUnexpectedAnswer().because(Cause(200, "malformed_metadata"))
    return CheckedAnswer(json.dumps(kept))


def _token(body: bytes) -> CheckedAnswer:
    """https://www.rfc-editor.org/rfc/rfc6749#section-5.1"""
    said = _own(body)
    token, expires_in = said.get("access_token"), _seconds(said.get("expires_in"))
    if not isinstance(token, str) or not _TOKEN.fullmatch(token) or expires_in is None:
        raise OnBehalfOfUnexpectedAnswer().because(Cause(200, "malformed_token_answer"))
    return CheckedAnswer(json.dumps({"token_type": "Bearer", "access_token": token, "expires_in": expires_in}))


def _own(body: bytes) -> dict[str, Any]:
    said = json_object(body)
    if said is None:  # not Entra ID's own: something in between answered
        raise OnBehalfOfUnavailable().because(Cause(200, "no_json_object"))
    return said


def _seconds(value: object) -> int | None:
    """A number of seconds from now; some servers write it as text."""
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,9}", value):
        return int(value)
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and 0 <= value < 1e9:
        return int(value)
    return None


_URL = re.compile(r"https://[A-Za-z0-9._-]{1,255}(:[0-9]{1,5})?/(?![/?#;])[!-~]{1,2000}")
"""MSAL takes the first segment of the path for the tenant, and raises `ValueError` where there is none."""
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]{1,65536}=*")


class RemembersNothing(dict[str, Any]):
    """MSAL's `http_cache`, whose keys don't tell users apart."""

    def __setitem__(self, key: str, value: Any) -> None:
        pass


class KeepsNoTokens(msal.TokenCache):  # type: ignore[misc]
    """MSAL's `token_cache`, which on-behalf-of fills and never reads."""

    def add(self, event: Any, now: Any = None) -> None:
        pass
