"""Observing requests: an id for each, its measurement, and its access line."""

import re
import secrets
import time
from collections.abc import Callable, Iterable
from typing import Any

from quart import Quart, Response, g, request

from quart_app.telemetry.instruments import Telemetry
from quart_app.telemetry.logs import AccessLog
from quart_app.telemetry.served_request import MeasuredCall, ServedRequest, current_request
from quart_app.web.middleware import Application, Middleware

REQUEST_ID_HEADER = "X-Request-Id"
LONGEST_METHOD = 20
"""More characters of a method than this are not logged."""


def observing(
    telemetry: Telemetry, timer: Callable[[], float] = time.perf_counter, *, told_more: bool = False
) -> Middleware:
    """Measure every request and log one line for it, except the platform's probes of `/health`.

    `told_more` (development only) lists for the client, in the header `Server-Timing`, each upstream call that its
    request caused.

    It stands around the whole application: a request whose client goes away is cancelled and gets its line too.
    `timer` is in seconds.
    """
    access_log = AccessLog()

    def around(application: Application) -> Application:
        async def observed(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] != "http" or scope["path"].startswith("/health/"):
                return await application(scope, receive, send)
            served = ServedRequest(
                scope["method"][:LONGEST_METHOD], scheme=scope["scheme"], calls=[] if told_more else None
            )
            started = timer()

            async def note_status(message: Any) -> None:
                if message["type"] == "http.response.start":
                    served.status = message["status"]
                    if served.calls is not None:
                        timing = server_timing(served.calls, timer() - started).encode()
                        message["headers"] = [*message["headers"], (b"server-timing", timing)]
                await send(message)

            try:
                with telemetry.serving(served, scope["headers"]):
                    await application(scope, receive, note_status)
            finally:
                access_log.write(served, timer() - started)

        return observed

    return around


def server_timing(calls: Iterable[MeasuredCall], seconds: float) -> str:
    """The value of `Server-Timing` (https://www.w3.org/TR/server-timing/): each finished call and the whole request.

    Besides the standard's `dur` (milliseconds) and `desc` (the operation) a call has `outcome`, `retries`, and the
    `status` of a refusal where it is known.
    """
    entries = []
    for call in calls:
        if call.seconds is None:
            continue
        status = "" if call.status is None else f";status={call.status}"
        entries.append(
            f'{call.upstream};desc="{call.operation}";dur={call.seconds * 1000:.1f}'
            f";outcome={call.outcome};retries={call.retries}{status}"
        )
    return ", ".join([*entries, f"total;dur={seconds * 1000:.1f}"])


def identify_requests(app: Quart) -> None:
    """Give every request an id, taken from `X-Request-Id` when that is well-formed, and answer with it."""

    @app.before_request
    async def begin() -> None:
        g.request_id = _request_id(request.headers.get(REQUEST_ID_HEADER, ""))
        served = current_request()
        if served is not None:
            served.request_id = g.request_id
            served.route = request.url_rule.rule if request.url_rule else None

    @app.after_request
    async def end(response: Response) -> Response:
        response.headers[REQUEST_ID_HEADER] = g.request_id
        served = current_request()
        if served is not None:
            served.error, served.reason = g.get("error"), g.get("reason")
        return response


def request_id_of(headers: Iterable[tuple[bytes, bytes]]) -> str:
    """The id of a request with these headers, whose names are in lower case, that is answered before the application.

    Without a well-formed one of its own it is a new one each time.
    """
    name = REQUEST_ID_HEADER.lower().encode()
    return _request_id(next((value.decode("latin-1") for given, value in headers if given == name), ""))


def _request_id(given: str) -> str:
    return given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(16)


_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{8,64}")
