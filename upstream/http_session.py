"""How HTTP sessions are made here: one connection pool per client, nothing looked up per call, nothing sent twice."""

import asyncio
import math
import os
from collections.abc import Callable
from contextvars import Context
from time import monotonic
from typing import Any
from urllib.request import getproxies
from weakref import WeakKeyDictionary

import aiohttp
from aiohttp.client_proto import ResponseHandler

from upstream.certificate_authorities import TrustedAuthorities
from upstream.exchanges import note_exchange

MAXIMUM_AGE_SECONDS = 60.0
"""How long a connection is used at most, so that it does not outlive the address that its name leads to."""


class AgingConnector(aiohttp.TCPConnector):
    """Keeps no connection longer than `maximum_age` seconds, however busy it is. aiohttp itself knows no such age.

    Of the idle ones that used last goes first, so that those which a burst needed, and nothing since, end when they
    have been idle for long. aiohttp takes them in turn, which keeps all of them.

    It reaches into aiohttp 3, so its version is capped. `clock` is in seconds. `trusted` says for each connection which
    authorities count.
    """

    def __init__(
        self, maximum_age: float, clock: Callable[[], float], trusted: TrustedAuthorities, **keywords: Any
    ) -> None:
        super().__init__(ssl=trusted.now(), **keywords)
        self._trusted = trusted
        self._maximum_age = maximum_age
        self._clock = clock
        self._made_at: WeakKeyDictionary[ResponseHandler, float] = WeakKeyDictionary()
        self._usable_since = -math.inf

    def drop_connections(self) -> None:
        """Use no connection again that was made until now, and ask again where names lead: an upstream has moved.

        Idle ones are closed at once, the others when their answer has been read.
        """
        self._usable_since = self._clock()
        self._retire_idle()
        self.clear_dns_cache()

    async def connect(self, *arguments: Any, **keywords: Any) -> Any:
        """See `aiohttp.BaseConnector.connect`."""
        self._retire_idle()
        return await super().connect(*arguments, **keywords)

    async def _create_connection(self, *arguments: Any, **keywords: Any) -> ResponseHandler:
        begun_at = self._clock()  # the address was chosen after that
        self._ssl = self._trusted.now()
        # In an empty context: transports and timers keep the one they are made in, and a connection serves many
        # callers. uvloop goes on for a minute with a TLS handshake that was cancelled early, and so would keep the
        # caller's token.
        making = asyncio.create_task(super()._create_connection(*arguments, **keywords), context=Context())
        try:
            protocol = await making
        except asyncio.CancelledError:
            making.add_done_callback(_close_unwanted)
            raise
        self._made_at[protocol] = begun_at
        return protocol

    def _release(self, key: Any, protocol: ResponseHandler, *, should_close: bool = False) -> None:
        is_over = should_close or self._force_close or protocol.should_close or self._is_retired(protocol)
        if is_over:
            _end(protocol)
        super()._release(key, protocol, should_close=is_over)
        if not is_over and not self._closed:
            self._conns[key].rotate()  # to the end from which aiohttp takes

    def _retire_idle(self) -> None:
        for idle in self._conns.values():
            for protocol, _ in idle:
                if self._is_retired(protocol):
                    _end(protocol)  # the connector passes over closed ones

    def _is_retired(self, protocol: ResponseHandler) -> bool:
        made_at = self._made_at[protocol]
        return made_at <= self._usable_since or self._clock() - made_at > self._maximum_age


def _close_unwanted(making: asyncio.Task[ResponseHandler]) -> None:
    """Whoever wanted the connection left just when it had been made."""
    if not making.cancelled() and making.exception() is None:
        _end(making.result())


def _end(protocol: ResponseHandler) -> None:
    # At once, as aiohttp does when a session is closed: otherwise each waits up to 30 s for the other side's end of TLS
    # (https://docs.python.org/3/library/asyncio-eventloop.html, ssl_shutdown_timeout), and the session's end does not.
    protocol.abort()


def drop_connections(session: aiohttp.ClientSession) -> None:
    """Use no present connection of this session again: an answer proved that the upstream has moved."""
    if isinstance(session.connector, AgingConnector):
        session.connector.drop_connections()


def new_http_session(
    connections: int = 100, *, unpack: bool = False, local: bool = False, keep: bool = True
) -> aiohttp.ClientSession:
    """A session of at most `connections` connections; its maker closes it.

    Which certificates are trusted is settled by the environment (`upstream.certificate_authorities`). No cookies are
    kept. With `trust_env` aiohttp looks for proxies and a netrc file in a thread on every call, so it is used only
    where a proxy is set. A netrc file is for the proxy: every upstream has a credential of its own. A compressed body
    is unpacked only if `unpack`: azure-core's pipeline does it itself.

    local  for what is on this machine: never asked through a proxy, and no netrc file is read
    keep   whether a connection is used again, for `MAXIMUM_AGE_SECONDS`; otherwise each request gets a fresh one, for
           requests that can't be repeated when a kept connection turns out to be cut
    """
    trusted = TrustedAuthorities(os.environ)
    session = aiohttp.ClientSession(
        connector=AgingConnector(MAXIMUM_AGE_SECONDS, monotonic, trusted, limit=connections, force_close=not keep),
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=not local and bool(getproxies().keys() - {"no"}),
        auto_decompress=unpack,
        middlewares=(_in_turn(connections), note_exchange, _send_once),
    )
    # aiohttp would refuse a request that has a credential already, and add one to a request that needs none.
    setattr(session, "_get_netrc_auth", lambda _: None)  # noqa: B010 (no attribute that a type checker knows)
    return session


def _in_turn(connections: int) -> aiohttp.ClientMiddlewareType:
    """Let requests have the connections in the order in which they came.

    aiohttp gives a connection that has just become free to whoever asks next, past those who have waited for one: in a
    burst of callers the last ones waited until all others had done everything.
    """
    places = asyncio.Semaphore(connections)

    async def wait_and_send(request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        async with places:
            return await send(request)

    return wait_and_send


async def _send_once(request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Hide what makes aiohttp repeat an idempotent request on its own: a connection that breaks before the answer.

    Only `upstream.retrying` repeats.
    """
    try:
        return await send(request)
    except aiohttp.ClientConnectorError:
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError):
        raise aiohttp.ClientConnectionError("The connection broke.") from None
