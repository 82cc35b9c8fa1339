"""What happens while requests are served, reported to operators; this class only counts for the access line.

`quart_app.telemetry.opentelemetry` makes traces and metrics of the same calls. Nothing of OpenTelemetry is imported
here.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar

from quart_app.settings import DoorName
from quart_app.telemetry.served_request import MeasuredCall, ServedRequest, current_request, serving
from upstream.errors import UpstreamError
from upstream.measuring import Measure, outcome_of


class Telemetry:
    """Counts the upstream calls and retries of each request. Everything else is left to subclasses."""

    @contextmanager
    def serving(self, request: ServedRequest, headers: Iterable[tuple[bytes, bytes]]) -> Iterator[None]:
        """Everything inside is done for this request. `headers` are the request's, their names in lower case."""
        with serving(request):
            yield

    def upstream(self, name: str, database: str | None = None) -> Measure:
        """How calls of this upstream (such as `storage.mapping.STORE`) are measured, by operation.

        `database` says which one it is, by the name that the semantic conventions give it (`db.system.name`).
        """

        def measure(operation: str) -> AbstractContextManager[None]:
            request = current_request()
            if request is not None:
                request.upstream_calls += 1
                if request.calls is not None:
                    call = MeasuredCall(name, operation)
                    request.calls.append(call)
                    return _noted(call, self._call(name, operation, database))
            return self._call(name, operation, database)

        return measure

    def retried(self, error: Exception, attempt: int, wait: float) -> None:
        """Called by `upstream.retrying.RetryPolicy` before each wait."""
        request = current_request()
        if request is not None:
            request.retries += 1
        call = _current_call.get()
        if call is not None:
            call.retries += 1

    def came_by(self, door: DoorName) -> None:
        """The caller of the request that is being served came by this door; whether they are let in is seen later."""
        request = current_request()
        if request is not None:
            request.door = door.value

    def cache(self, name: str) -> Callable[[bool], None]:
        """Gives what to call for each look-up in the named cache, with whether it was a hit."""
        return _ignore

    def refused(self, cause: str) -> None:
        """A request was refused with 503 before anything was done: `cause` is `places`, `lateness` or `flights`."""

    def minted(self) -> None:
        """An ACS identity was made."""

    def deleted(self) -> None:
        """An ACS identity was deleted."""

    def gauge(self, name: str, unit: str, description: str, read: Callable[[], int]) -> None:
        """A number that can be looked at any time, from any thread."""

    def _call(self, upstream: str, operation: str, database: str | None) -> AbstractContextManager[None]:
        return nullcontext()


def _ignore(_: bool) -> None:
    pass


@contextmanager
def _noted(call: MeasuredCall, measured: AbstractContextManager[None]) -> Iterator[None]:
    """Note in `call` how what is done inside went, besides measuring it."""
    started = time.perf_counter()
    reset = _current_call.set(call)
    try:
        with measured:
            yield
    except BaseException as error:
        call.outcome = outcome_of(error)
        if isinstance(error, UpstreamError) and error.cause is not None:
            call.status = error.cause.status
        raise
    finally:
        _current_call.reset(reset)
        call.seconds = time.perf_counter() - started


_current_call: ContextVar[MeasuredCall | None] = ContextVar("measured_call", default=None)
