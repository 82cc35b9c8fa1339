"""Headers that every answer carries: https://cheatsheetseries.owasp.org/cheatsheets/REST_Security_Cheat_Sheet.html."""

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hypercorn.typing import (
        ASGIFramework,
        ASGIReceiveCallable,
        ASGISendCallable,
        ASGISendEvent,
        Scope,
    )

_HEADERS = (
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
)
_OVER_TLS = (*_HEADERS, (b"strict-transport-security", b"max-age=31536000"))  # RFC 6797, 7.2: not over plain HTTP


def with_security_headers(application: "ASGIFramework") -> Callable[..., Coroutine[Any, Any, None]]:
    """An ASGI application that adds to the answers of `application` each of the headers that they lack."""

    async def secured(scope: "Scope", receive: "ASGIReceiveCallable", send: "ASGISendCallable") -> None:
        if scope["type"] != "http":
            await application(scope, receive, send)
            return
        headers = _OVER_TLS if scope["scheme"] == "https" else _HEADERS

        async def send_secured(message: "ASGISendEvent") -> None:
            if message["type"] == "http.response.start":
                given = [*message["headers"]]
                names = {name.lower() for name, _ in given}
                message["headers"] = given + [header for header in headers if header[0] not in names]
            await send(message)

        await application(scope, receive, send_secured)

    return secured
