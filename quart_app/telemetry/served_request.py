"""The request that is being served, as far as telemetry knows it."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(slots=True)
class MeasuredCall:
    """One call of an upstream, its repetitions included, for those who are told how a request went.

    seconds  how long it took; `None` while it runs
    outcome  `ok`, or how it failed: see `upstream.measuring.outcome_of`
    status   the HTTP status of a refusal, where the upstream's error tells it
    """

    upstream: str
    operation: str
    seconds: float | None = None
    outcome: str = "ok"
    status: int | None = None
    retries: int = 0


@dataclass(slots=True)
class ServedRequest:
    """One request, as far as it is known while it is being served. Nothing in it tells who called.

    method, route   `route` is the template; `None` when no route fits
    scheme          `http` or `https`, as the caller reached the service
    door            by which its token came, if there was one: `entra` or `oidc`
    user            a keyed hash of the caller, when known
    error           the stable name of the error it was answered with
    reason          why its token was refused, if it was: one of a closed list
    trace_id        of its trace, if it is recorded
    calls           its upstream calls one by one, if its client is told about them; otherwise `None`
    """

    method: str
    request_id: str = ""
    scheme: str = "http"
    route: str | None = None
    status: int | None = None
    door: str | None = None
    user: str | None = None
    error: str | None = None
    reason: str | None = None
    trace_id: str | None = None
    upstream_calls: int = 0
    retries: int = 0
    calls: list[MeasuredCall] | None = None


def current_request() -> ServedRequest | None:
    """The request that is being served, also in tasks that it started; `None` outside of one."""
    return _current.get()


@contextmanager
def serving(request: ServedRequest) -> Iterator[None]:
    """Everything inside is done for this request."""
    reset = _current.set(request)
    try:
        yield
    finally:
        _current.reset(reset)


_current: ContextVar[ServedRequest | None] = ContextVar("served_request", default=None)
