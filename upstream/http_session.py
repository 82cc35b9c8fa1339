"""How HTTP sessions are made here: one connection pool per client, nothing looked up per call, nothing sent twice."""

from urllib.request import getproxies

import aiohttp

from upstream import certificate_authorities


def new_http_session(connections: int = 100, *, unpack: bool = False) -> aiohttp.ClientSession:
    """A session of at most `connections` connections; whoever made it closes it.

    Which certificates are trusted is settled by the environment (`upstream.certificate_authorities`), mostly when
    aiohttp is imported: reading the system's takes tens of milliseconds, and aiohttp has done so. No cookies are kept.
    With `trust_env` aiohttp looks for proxies and a netrc file in a thread on every call, so it is used only where a
    proxy is set. A compressed body is unpacked only if `unpack`: azure-core's pipeline does it itself.
    """
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=connections, ssl=certificate_authorities.for_aiohttp()),
        cookie_jar=aiohttp.DummyCookieJar(),
        trust_env=bool(getproxies().keys() - {"no"}),
        auto_decompress=unpack,
        middlewares=(_send_once,),
    )


async def _send_once(request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Hide what makes aiohttp repeat an idempotent request by itself: a connection that breaks before the answer.

    Repeating is the business of `upstream.retrying` alone.
    """
    try:
        return await send(request)
    except aiohttp.ClientConnectorError:
        raise
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError):
        raise aiohttp.ClientConnectionError("The connection broke.") from None
