"""Headers that every answer carries: https://cheatsheetseries.owasp.org/cheatsheets/REST_Security_Cheat_Sheet.html."""

from typing import Any

from quart_app.web.middleware import Application

SECURITY_HEADERS = (
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
)
_OVER_TLS = (
    *SECURITY_HEADERS,
    (b"strict-transport-security", b"max-age=31536000"),
)  # RFC 6797, 7.2: not over plain HTTP


def with_security_headers(application: Application) -> Application:
    """An ASGI application that adds to the answers of `application` each of the headers that they lack."""

    async def secured(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await application(scope, receive, send)
            return
        headers = _OVER_TLS if scope["scheme"] == "https" else SECURITY_HEADERS

        async def send_secured(message: Any) -> None:
            if message["type"] == "http.response.start":
                given = [*message["headers"]]
                names = {name.lower() for name, _ in given}
                message["headers"] = given + [header for header in headers if header[0] not in names]
            await send(message)

        await application(scope, receive, send_secured)

    return secured
