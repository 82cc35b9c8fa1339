"""Logs: one line per request, JSON in production, readable in development; never a token, a secret or a user id."""

import atexit
import logging
import re
import sys
from typing import Any, TextIO, cast

import structlog

from quart_app.settings import Environment
from quart_app.telemetry.log_stream import LogStream
from quart_app.telemetry.served_request import ServedRequest, current_request

CLIENT_WENT_AWAY = 499
"""The status in the access line of a request whose client did not wait for the answer."""

_ACCESS = "quart_app.access"


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
        stream = _standard_error()
        structlog.configure(
            processors=[*described, *written],
            logger_factory=structlog.WriteLoggerFactory(stream),
        )
        handler = logging.StreamHandler(stream)
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


def _standard_error() -> TextIO:
    """Standard error, without waiting for its reader."""
    try:
        descriptor = sys.stderr.fileno()
    except OSError:  # it is something in memory
        return sys.stderr
    stream = LogStream(descriptor)
    atexit.register(stream.drain, _DRAIN_SECONDS)
    return cast("TextIO", stream)


def dropped_lines() -> int:
    """How many log lines were dropped because nobody read them in time."""
    streams = (getattr(handler, "stream", None) for handler in logging.getLogger().handlers)
    return sum(stream.dropped for stream in streams if isinstance(stream, LogStream))


class AccessLog:
    """Writes one line for each request. Make it after `configure_logging`."""

    def __init__(self) -> None:
        self._lines = structlog.get_logger(_ACCESS).bind(logger=_ACCESS)

    def write(self, served: ServedRequest, seconds: float) -> None:
        """The line of a request that took so many seconds."""
        optional = {
            "door": served.door,
            "user": served.user,
            "error": served.error,
            "reason": served.reason,
            "trace_id": served.trace_id,
        }
        self._lines.info(
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

_DRAIN_SECONDS = 1.0
"""So long the end of the process waits for a reader that is behind."""

_LIBRARY_LEVELS = {
    "aiohttp": logging.WARNING,
    "azure": logging.WARNING,  # azure-core logs every request with its URL, and ACS URLs hold user ids
    "azure.cosmos": logging.CRITICAL,  # its background refresh reports every lost connection; calls raise what matters
    "azure.monitor.opentelemetry": logging.CRITICAL + 1,  # it writes its instrumentation key, envelopes and answers
    "azure.identity": logging.CRITICAL,  # it writes answers into its warnings
    "msal": logging.CRITICAL,  # it writes answers that it can't read into its errors
    "opentelemetry": logging.WARNING,
    "opentelemetry.exporter": logging.CRITICAL + 1,  # it writes answers; quart_app.telemetry.delivery says what matters
    "urllib3": logging.ERROR,  # warns of each broken connection, with the URL
}
