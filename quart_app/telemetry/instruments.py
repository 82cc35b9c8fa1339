"""What happens while requests are served, reported to operators; by itself this only counts for the access line.

`quart_app.telemetry.opentelemetry` makes traces and metrics of the same calls. Nothing of OpenTelemetry is imported
here.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from quart_app.telemetry.served_request import ServedRequest, current_request, serving
from upstream.measuring import Measure


class Telemetry:
    """Counts the upstream calls and retries of each request. Everything else is left to subclasses."""

    @contextmanager
    def serving(self, request: ServedRequest, headers: Iterable[tuple[bytes, bytes]]) -> Iterator[None]:
        """Everything inside is done for this request. `headers` are the request's, their names in lower case."""
        with serving(request):
            yield

    def upstream(self, name: str) -> Measure:
        """How calls of this upstream (such as `storage.mapping.STORE`) are measured, by operation."""

        def measure(operation: str) -> AbstractContextManager[None]:
            request = current_request()
            if request is not None:
                request.upstream_calls += 1
            return self._call(name, operation)

        return measure

    def retried(self, error: Exception, attempt: int, wait: float) -> None:
        """Called by `upstream.retrying.RetryPolicy` before each wait."""
        request = current_request()
        if request is not None:
            request.retries += 1

    def cache(self, name: str) -> Callable[[bool], None]:
        """Gives what is told of each look-up in the named cache: whether it was a hit."""
        return _ignore

    def refused(self, cause: str) -> None:
        """A request was refused with 503 before anything was done for it; `cause` is `places` or `lateness`."""

    def minted(self) -> None:
        """An ACS identity was made."""

    def deleted(self) -> None:
        """An ACS identity was deleted."""

    def gauge(self, name: str, unit: str, description: str, read: Callable[[], int]) -> None:
        """A number that can be looked at any time, from any thread."""

    def _call(self, upstream: str, operation: str) -> AbstractContextManager[None]:
        return nullcontext()


def _ignore(_: bool) -> None:
    pass
