"""ASGI middleware: applications around the application (https://asgi.readthedocs.io/en/latest/specs/main.html)."""

from collections.abc import Awaitable, Callable
from typing import Any

Application = Callable[[Any, Any, Any], Awaitable[None]]
Middleware = Callable[[Application], Application]


def stacked(application: Application, *layers: Middleware) -> Application:
    """`application` inside `layers`, the outermost first."""
    for layer in reversed(layers):
        application = layer(application)
    return application
