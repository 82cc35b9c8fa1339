"""Request targets that are not a plain path, made into one before Quart reads them; Quart fails on some of them."""

from typing import Any
from urllib.parse import urlsplit

from quart_app.web.middleware import Application


def with_plain_paths(application: Application) -> Application:
    """An ASGI application that gives `application` paths that begin with a slash, whatever the client sent.

    From an address the path is taken (RFC 9112, section 3.2.2); anything else is a path that no route has.
    """

    async def with_plain_path(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] in ("http", "websocket") and not scope["path"].startswith("/"):
            scope["path"] = _path_of(scope["path"])
        await application(scope, receive, send)

    return with_plain_path


def _path_of(target: str) -> str:
    try:
        path = urlsplit(target).path
    except ValueError:
        path = target
    return path if path.startswith("/") else f"/{path}"
