"""Logs: one line per request, JSON in production, readable in development; never a token, a secret or a user id."""

import hmac
import logging
import re
import secrets
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import structlog
from quart import Quart, Response, g, request

from quart_app.auth.caller import Caller
from quart_app.settings import Environment
from quart_app.telemetry import ServedRequest, Telemetry, current_request
from storage.mapping import UserKey

REQUEST_ID_HEADER = "X-Request-Id"
CLIENT_WENT_AWAY = 499
"""The status in the access line of a request whose client did not wait for the answer."""

_ACCESS = "quart_app.access"
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{8,64}")


def configure_logging(environment: Environment, handler: logging.Handler | None = None) -> None:
    """Send every log line of the process, the libraries' included, to standard error in one form.

    The line of each request is written at once; all others come through `logging`, which takes several times as long.
    With `handler`, all lines go there instead, in whatever form it gives them. Applications that were made before go on
    as before.
    """
    described: list[structlog.types.Processor] = [
        _add_request,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    written: list[structlog.types.Processor] = (
        [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback)]
        if environment is Environment.DEVELOPMENT
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    written.append(_without_secrets)
    if handler is None:
        structlog.configure(
            processors=[*described, *written],
            logger_factory=structlog.WriteLoggerFactory(sys.stderr),
        )
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(
            structlog.stdlib.ProcessorFormatter(
                foreign_pre_chain=[*described, structlog.stdlib.add_logger_name, structlog.stdlib.ExtraAdder()],
                processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *written],
            )
        )
    else:
        structlog.configure(
            processors=[*described, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
            logger_factory=structlog.stdlib.LoggerFactory(),
        )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    for library, level in _LIBRARY_LEVELS.items():
        logging.getLogger(library).setLevel(level)


class Pseudonyms:
    """Stands in for users in logs: the same user always gets the same name, and the name does not tell who it is.

    It is a keyed hash (HMAC-SHA256, 64 bits of it): object ids can be listed, so a hash without a key could be reversed
    by trying. `key` makes names comparable between processes and restarts; without one each process draws its own.
    """

    def __init__(self, key: str | None = None) -> None:
        self._key = key.encode() if key else secrets.token_bytes(32)

    def of(self, user: UserKey) -> str:
        """The user's name: 16 hexadecimal digits."""
        return hmac.digest(self._key, f"{user.issuer}\n{user.subject}".encode(), "sha256").hex()[:16]

    def note(self, caller: Caller) -> None:
        """Name the caller in every further log line of the request that is being served."""
        served = current_request()
        if served is not None:
            served.user = self.of(caller.user)


def observe_requests(app: Quart, telemetry: Telemetry, timer: Callable[[], float] = time.perf_counter) -> None:
    """Give every request an id, taken from `X-Request-Id` when that is well-formed; measure it; log one line for it.

    The platform's probes of `/health` are neither measured nor logged. `timer` is in seconds.
    """
    inner: Callable[[Any, Any, Any], Awaitable[None]] = app.asgi_app
    access = structlog.get_logger(_ACCESS).bind(logger=_ACCESS)

    async def observed(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["path"].startswith("/health/"):
            return await inner(scope, receive, send)
        served = ServedRequest(scope["method"])
        started = timer()

        async def note_status(message: Any) -> None:
            if message["type"] == "http.response.start":
                served.status = message["status"]
            await send(message)

        try:
            # Around the whole application: a request whose client goes away is cancelled and gets its line too.
            with telemetry.serving(served, scope["headers"]):
                await inner(scope, receive, note_status)
        finally:
            _write_access_line(access, served, timer() - started)

    app.asgi_app = observed  # type: ignore[method-assign]

    @app.before_request
    async def begin() -> None:
        given = request.headers.get(REQUEST_ID_HEADER, "")
        g.request_id = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(16)
        served = current_request()
        if served is not None:
            served.request_id = g.request_id
            served.route = request.url_rule.rule if request.url_rule else None

    @app.after_request
    async def end(response: Response) -> Response:
        response.headers[REQUEST_ID_HEADER] = g.request_id
        served = current_request()
        if served is not None:
            served.error = g.get("error")
        return response


def _write_access_line(access: structlog.typing.FilteringBoundLogger, served: ServedRequest, seconds: float) -> None:
    optional = {"user": served.user, "error": served.error, "trace_id": served.trace_id}
    access.info(
        "request",
        request_id=served.request_id,
        method=served.method,
        route=served.route or "(none)",
        status=served.status or CLIENT_WENT_AWAY,
        duration_ms=round(seconds * 1000, 1),
        upstream_calls=served.upstream_calls,
        retries=served.retries,
        **{name: value for name, value in optional.items() if value is not None},
    )


def _add_request(_: Any, __: str, line: structlog.typing.EventDict) -> structlog.typing.EventDict:
    """Say for which request and which user the line was written, if for any."""
    served = current_request()
    if served is not None and served.request_id:
        line.setdefault("request_id", served.request_id)
        if served.user is not None:
            line.setdefault("user", served.user)
    return line


def _without_secrets(_: Any, __: str, line: Any) -> str:
    """The last resort: a traceback of an unforeseen error may quote what some library put into its message."""
    return _SECRETS.sub("(removed)", line)


_SECRETS = re.compile(
    r"eyJ[\w-]{5,}\.[\w-]{5,}\.[\w-]*"  # a token: RFC 7519
    r"|8(:|%3A)(acs|orgid|gacs|dod)(:|%3A)[\w-]+"  # the id of an ACS identity
    r"|accesskey=[\w+/=]+",
    re.IGNORECASE,
)

_LIBRARY_LEVELS = {
    "aiohttp": logging.WARNING,
    "azure": logging.WARNING,  # azure-core logs every request with its URL, and ACS URLs hold user ids
    "azure.cosmos": logging.CRITICAL,  # its background refresh reports every lost connection; calls raise what matters
    "msal": logging.WARNING,
    "opentelemetry": logging.WARNING,
    "urllib3": logging.ERROR,  # warns of each broken connection, with the URL
}
