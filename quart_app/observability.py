"""Logs: one line per request, JSON in production, readable in development; never a token, a secret or a user id."""

import logging
import re
import secrets
import sys
import time

import structlog
from quart import Quart, Response, g, request

from quart_app.settings import Environment

REQUEST_ID_HEADER = "X-Request-Id"
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{8,64}")
access_logger = structlog.stdlib.get_logger("quart_app.access")


def configure_logging(environment: Environment) -> None:
    """Send every log line of the process, the libraries' included, to standard error in one form."""
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    final: list[structlog.types.Processor] = (
        [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback)]
        if environment is Environment.DEVELOPMENT
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *final],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    # azure-core logs every request with its URL, and ACS URLs hold user ids.
    for library in ("azure", "aiohttp", "msal", "urllib3"):
        logging.getLogger(library).setLevel(logging.WARNING)


def observe_requests(app: Quart) -> None:
    """Give every request an id, taken from `X-Request-Id` when that is well-formed, and log one line for it."""

    @app.before_request
    async def begin() -> None:
        given = request.headers.get(REQUEST_ID_HEADER, "")
        g.request_id = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(16)
        g.started_at = time.perf_counter()
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=g.request_id)

    @app.after_request
    async def end(response: Response) -> Response:
        response.headers[REQUEST_ID_HEADER] = g.request_id
        rule = request.url_rule
        if rule is None or not rule.rule.startswith("/health"):
            access_logger.info(
                "request",
                method=request.method,
                route=rule.rule if rule else "(none)",
                status=response.status_code,
                duration_ms=round((time.perf_counter() - g.started_at) * 1000, 1),
            )
        return response
