"""What trusted proxies say of the client: its address, whether it used TLS, and the host that it asked for."""

from collections.abc import Iterable
from typing import Any

from quart_app.web.middleware import Application, Middleware


def behind_proxies(trusted_hops: int) -> Middleware:
    """Believe the last `trusted_hops` proxies' `X-Forwarded-…` headers; with 0, nobody's.

    Each proxy adds a value to `X-Forwarded-For`. Of the others, many replace all earlier values by one, so what is
    there comes from the trusted proxies even if it has fewer values than there are proxies.
    https://developer.mozilla.org/en-US/docs/Web/HTTP/Reference/Headers/X-Forwarded-Proto
    """

    def around(application: Application) -> Application:
        if not trusted_hops:
            return application

        async def behind(scope: Any, receive: Any, send: Any) -> None:
            told = _told(scope, trusted_hops) if scope["type"] in ("http", "websocket") else scope
            await application(told, receive, send)

        return behind

    return around


def _told(scope: Any, trusted_hops: int) -> dict[str, Any]:
    headers = scope["headers"]
    clients = _values(b"x-forwarded-for", headers)
    schemes = _values(b"x-forwarded-proto", headers)
    hosts = _values(b"x-forwarded-host", headers)
    told = dict(scope)
    if len(clients) >= trusted_hops:
        told["client"] = (clients[-trusted_hops], 0)
    if schemes and (scheme := schemes[-min(trusted_hops, len(schemes))].lower()) in ("http", "https"):
        told["scheme"] = scheme
    if hosts:
        host = hosts[-min(trusted_hops, len(hosts))]
        told["headers"] = [*((name, value) for name, value in headers if name != b"host"), (b"host", host.encode())]
    return told


def _values(name: bytes, headers: Iterable[tuple[bytes, bytes]]) -> list[str]:
    joined = ",".join(value.decode("latin1") for given, value in headers if given.lower() == name)
    return [value.strip() for value in joined.split(",")] if joined else []
