"""Traces and metrics by OpenTelemetry, to Azure Monitor, an OTLP collector or both; imported only when asked for.

Spans and metrics carry route templates, operation names, outcomes and the request id: never a path, a URL, a message, a
token or an id of a user. For that reason no library is instrumented automatically, and no provider is registered for
the whole process: the URLs that azure-core and aiohttp would write into spans hold ACS ids. Names of spans, metrics and
attributes follow https://opentelemetry.io/docs/specs/semconv/ where they exist; all others begin with `acs_auth.`.

Application Insights drops what it knows by another name. What an operator asks for therefore has our own name next to
the conventional one: `acs_auth.request.duration` and `acs_auth.requests.active`, `acs_auth.route` and `acs_auth.error`.
"""

import asyncio
import os
import threading
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass
from importlib.metadata import version

from opentelemetry.context import Context
from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation
from opentelemetry.sdk import metrics as sdk_metrics
from opentelemetry.sdk import trace as sdk_trace
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import SpanProcessor
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import (
    Span,
    SpanKind,
    StatusCode,
    TracerProvider,
    format_trace_id,
    get_current_span,
    use_span,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from quart_app.telemetry.instruments import Telemetry
from quart_app.telemetry.served_request import ServedRequest, current_request
from upstream.errors import UpstreamError
from upstream.exchanges import Exchange, noting
from upstream.measuring import outcome_of

NAME = "acs-auth"
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
"""Histogram bounds; those that the semantic conventions advise for request durations."""

SHUTDOWN_SECONDS = 5.0


class OpenTelemetry(Telemetry):
    """Makes a server span of each request with a child span for each upstream call, and the metrics below.

    Upstream calls outside of a request (readiness, background work) are measured and have no span. `timer` is in
    seconds.
    """

    def __init__(
        self, tracers: TracerProvider, meters: MeterProvider, timer: Callable[[], float] = time.perf_counter
    ) -> None:
        self._tracer = tracers.get_tracer(NAME)
        self._timer = timer
        meter = self._meter = meters.get_meter(NAME)
        self._requests = meter.create_histogram(
            "http.server.request.duration", "s", "Requests", explicit_bucket_boundaries_advisory=SECONDS
        )
        self._active = _Tally()
        self._own_active = _Tally()
        meter.create_observable_up_down_counter(
            "http.server.active_requests", [self._active.observe], "{request}", "Requests now"
        )
        meter.create_observable_up_down_counter(
            "acs_auth.requests.active", [self._own_active.observe], "{request}", "Requests now"
        )
        self._own_requests = meter.create_histogram(
            "acs_auth.request.duration", "s", "Requests", explicit_bucket_boundaries_advisory=SECONDS
        )
        self._refused = meter.create_counter("acs_auth.tokens.refused", "{token}", "Requests whose token was refused")
        self._turned_away = meter.create_counter(
            "acs_auth.requests.refused", "{request}", "Requests refused early because there were too many"
        )
        self._upstream = meter.create_histogram(
            "acs_auth.upstream.duration",
            "s",
            "Calls of upstreams, their retries included",
            explicit_bucket_boundaries_advisory=SECONDS,
        )
        self._retries = meter.create_counter("acs_auth.upstream.retries", "{retry}", "Calls that were repeated")
        self._throttles = meter.create_counter(
            "acs_auth.upstream.throttles", "{answer}", "Answers by which an upstream said that it is too busy"
        )
        self._lookups = _Tally()
        meter.create_observable_counter(
            "acs_auth.cache.lookups", [self._lookups.observe], "{lookup}", "Look-ups in the service's caches"
        )
        self._minted = meter.create_counter("acs_auth.identities.minted", "{identity}", "ACS identities made")
        self._deleted = meter.create_counter("acs_auth.identities.deleted", "{identity}", "ACS identities deleted")

    @contextmanager
    def serving(self, request: ServedRequest, headers: Iterable[tuple[bytes, bytes]]) -> Iterator[None]:
        """See `Telemetry.serving`. A W3C `traceparent` of the client is continued."""
        method = request.method if request.method in _METHODS else "_OTHER"
        started = self._timer()
        active = (("http.request.method", method), ("url.scheme", request.scheme))
        self._active.add(1, active)
        self._own_active.add(1)
        carrier = {name.decode(): value.decode("latin-1") for name, value in headers if name in _CARRIED}
        context = _TRACE_CONTEXT.extract(carrier, _NO_CONTEXT) if carrier else _NO_CONTEXT
        span = self._tracer.start_span(method, context, SpanKind.SERVER)
        is_sampled = _is_sampled(span)
        try:
            with _inside(span) if is_sampled else nullcontext(), super().serving(request, headers):
                if is_sampled:
                    request.trace_id = format_trace_id(span.get_span_context().trace_id)
                yield
        finally:
            described: dict[str, str | int] = dict(active)
            ours = {"acs_auth.request_id": request.request_id}
            if request.route is not None:
                described["http.route"] = ours["acs_auth.route"] = request.route
                span.update_name(f"{method} {request.route}")
            if request.status is not None:
                described["http.response.status_code"] = request.status
            if request.error is not None:
                described["error.type"] = ours["acs_auth.error"] = request.error
            if request.door is not None:
                ours["acs_auth.door"] = request.door
            if request.reason is not None:
                ours["acs_auth.reason"] = request.reason
                refused = {"acs_auth.door": request.door} if request.door is not None else {}
                self._refused.add(1, {**refused, "acs_auth.reason": request.reason})
            span.set_attributes({**described, **ours})
            if request.status is None or request.status >= 500:
                span.set_status(StatusCode.ERROR)
            span.end()
            self._active.add(-1, active)
            self._own_active.add(-1)
            seconds = self._timer() - started
            self._requests.record(seconds, described)
            self._own_requests.record(seconds, described)

    def retried(self, error: Exception, attempt: int, wait: float) -> None:
        """See `Telemetry.retried`."""
        super().retried(error, attempt, wait)
        upstream = error.upstream if isinstance(error, UpstreamError) else UpstreamError.upstream
        outcome = outcome_of(error)
        self._retries.add(1, {"acs_auth.upstream": upstream, "acs_auth.outcome": outcome})
        if outcome == "throttled":
            self._throttles.add(1, {"acs_auth.upstream": upstream})

    def cache(self, name: str) -> Callable[[bool], None]:
        """See `Telemetry.cache`."""

        hits, misses = ((("acs_auth.cache", name), ("acs_auth.result", result)) for result in ("hit", "miss"))

        def on_lookup(hit: bool) -> None:
            self._lookups.add(1, hits if hit else misses)

        return on_lookup

    def refused(self, cause: str) -> None:
        """See `Telemetry.refused`."""
        self._turned_away.add(1, {"acs_auth.cause": cause})

    def minted(self) -> None:
        """See `Telemetry.minted`."""
        self._minted.add(1)

    def deleted(self) -> None:
        """See `Telemetry.deleted`."""
        self._deleted.add(1)

    def gauge(self, name: str, unit: str, description: str, read: Callable[[], int]) -> None:
        """See `Telemetry.gauge`."""

        def observe(_: CallbackOptions) -> Iterable[Observation]:
            return [Observation(read())]

        self._meter.create_observable_gauge(name, [observe], unit, description)

    @contextmanager
    def _call(self, upstream: str, operation: str, database: str | None) -> Iterator[None]:
        started = self._timer()
        outcome = "ok"
        described = {"acs_auth.upstream": upstream, "acs_auth.operation": operation}
        span: Span | None = None
        # Of a request that is not sampled no call would be, either: making it and throwing it away takes as long.
        if current_request() is not None and _is_sampled(get_current_span()):
            span = self._tracer.start_span(f"{upstream} {operation}", kind=SpanKind.CLIENT, attributes=described)
        recording = span is not None and span.is_recording()
        with noting() if recording else nullcontext() as exchange:
            try:
                with _inside(span) if span is not None else nullcontext():
                    yield
            except BaseException as error:
                outcome = outcome_of(error)
                # Another upstream's error was counted by its own call, which this one contains.
                if outcome == "throttled" and isinstance(error, UpstreamError) and error.upstream == upstream:
                    self._throttles.add(1, {"acs_auth.upstream": upstream})
                if span is not None:
                    name = type(error).__name__
                    span.set_attributes({"error.type": name, "acs_auth.error": name})
                    if outcome != "refused":
                        span.set_status(StatusCode.ERROR)
                raise
            finally:
                if span is not None:
                    span.set_attribute("acs_auth.outcome", outcome)
                    if exchange is not None:
                        span.set_attributes(_dependency(operation, database, exchange))
                    span.end()
                self._upstream.record(self._timer() - started, {**described, "acs_auth.outcome": outcome})


class _Tally:
    """A sum for each combination of attributes, which a metric reads when it is exported.

    For what every request does several times: one record of an instrument takes about as long as thirty of these.
    """

    def __init__(self) -> None:
        self._sums: dict[tuple[tuple[str, str], ...], int] = {}

    def add(self, amount: int, attributes: tuple[tuple[str, str], ...] = ()) -> None:
        """Add to the sum of these attributes. To be called in the event loop."""
        self._sums[attributes] = self._sums.get(attributes, 0) + amount

    def observe(self, _: CallbackOptions) -> Iterable[Observation]:
        """What an observable instrument calls, in whichever thread exports."""
        return [Observation(amount, dict(attributes)) for attributes, amount in list(self._sums.items())]


def _dependency(operation: str, database: str | None, exchange: Exchange) -> dict[str, str | int | float]:
    """Who was asked and what was answered.

    https://opentelemetry.io/docs/specs/semconv/database/azure-cosmosdb/ and
    https://opentelemetry.io/docs/specs/semconv/http/http-spans/
    """
    told: dict[str, str | int | float | None] = {"server.address": exchange.host, "server.port": exchange.port}
    if database is not None:
        told |= {"db.system.name": database, "db.operation.name": operation}
        told["db.response.status_code"] = str(exchange.status) if exchange.status is not None else None
        told["azure.cosmosdb.operation.request_charge"] = exchange.charge
        told["azure.cosmosdb.response.sub_status_code"] = exchange.sub_status
    elif exchange.host is not None:
        told |= {"http.request.method": exchange.method, "url.scheme": exchange.scheme}
        told["http.response.status_code"] = exchange.status
    return {name: value for name, value in told.items() if value is not None}


@dataclass(frozen=True, slots=True)
class Exporters:
    """Where spans and metrics go."""

    spans: tuple[SpanProcessor, ...]
    metrics: tuple[MetricReader, ...]


def azure_monitor(connection_string: str) -> Exporters:
    """Application Insights: see `quart_app.telemetry.azure_monitor`.

    The exporter's statistics about itself, its remote configuration and its metric about the process (which needs a
    provider for the whole process) are off unless the environment says otherwise.
    """
    for name in ("STATSBEAT_DISABLED_ALL", "SDKSTATS_DISABLED", "CONTROLPLANE_DISABLED"):
        os.environ.setdefault(f"APPLICATIONINSIGHTS_{name}", "true")  # the import reads some of them
    os.environ.setdefault("APPLICATIONINSIGHTS_OPENTELEMETRY_RESOURCE_METRIC_DISABLED", "true")
    from quart_app.telemetry.azure_monitor import azure_exporters

    spans, metrics = azure_exporters(connection_string)
    return Exporters((BatchSpanProcessor(spans),), (PeriodicExportingMetricReader(metrics),))


def otlp(*, spans: bool, metrics: bool) -> Exporters:
    """An OTLP collector by HTTP, as the standard variables `OTEL_EXPORTER_OTLP_*` describe it.

    https://opentelemetry.io/docs/specs/otel/protocol/exporter/
    """
    from quart_app.telemetry import otlp as exporters

    return Exporters(
        (BatchSpanProcessor(exporters.ToldSpanExporter()),) if spans else (),
        (PeriodicExportingMetricReader(exporters.ToldMetricExporter()),) if metrics else (),
    )


@asynccontextmanager
async def exporting(*exporters: Exporters) -> AsyncIterator[OpenTelemetry]:
    """Telemetry that goes to `exporters`; leaving the context sends what is left, for `SHUTDOWN_SECONDS` at most."""
    resource = Resource(
        {"service.name": NAME, "service.version": version("acs-auth-server"), "service.instance.id": str(uuid.uuid4())}
    ).merge(OTELResourceDetector().detect())
    tracers = sdk_trace.TracerProvider(resource=resource, shutdown_on_exit=False)
    for exporter in exporters:
        for processor in exporter.spans:
            tracers.add_span_processor(processor)
    meters = sdk_metrics.MeterProvider(
        [reader for exporter in exporters for reader in exporter.metrics], resource, shutdown_on_exit=False
    )

    def shut_down() -> None:
        tracers.shutdown()
        meters.shutdown(timeout_millis=SHUTDOWN_SECONDS * 1000)

    try:
        yield OpenTelemetry(tracers, meters)
    finally:
        # A daemon thread: an exporter that can't reach its collector may hang on, and the process must still end.
        thread = threading.Thread(target=shut_down, name="shut telemetry down", daemon=True)
        thread.start()
        await asyncio.to_thread(thread.join, SHUTDOWN_SECONDS)


def _is_sampled(span: Span) -> bool:
    """Also of a span that has ended."""
    return span.get_span_context().trace_flags.sampled


def _inside(span: Span) -> AbstractContextManager[Span]:
    # What an exception says stays out of spans.
    return use_span(span, record_exception=False, set_status_on_exception=False)


_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"})
_TRACE_CONTEXT = TraceContextTextMapPropagator()
_NO_CONTEXT = Context()
_CARRIED = frozenset(name.encode() for name in _TRACE_CONTEXT.fields)
