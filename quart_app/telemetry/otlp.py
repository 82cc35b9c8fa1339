"""The exporters for an OTLP collector, which tell whether what they send arrives."""

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

import requests
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics.export import MetricExportResult
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from requests.adapters import HTTPAdapter

from quart_app.telemetry.delivery import Delivery

_THIS_MACHINE = {"localhost", "127.0.0.1", "::1"}


class _PastTheProxy(HTTPAdapter):
    """A collector on this machine, such as a sidecar, is never asked through the proxy that the environment names."""

    def send(self, request: requests.PreparedRequest, *arguments: Any, **keywords: Any) -> requests.Response:
        if urlsplit(request.url).hostname in _THIS_MACHINE:
            keywords["proxies"] = {}
        return super().send(request, *arguments, **keywords)


def _session() -> requests.Session:
    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, _PastTheProxy())
    return session


class ToldSpanExporter(OTLPSpanExporter):
    """Spans, as the standard variables say where."""

    def __init__(self) -> None:
        super().__init__(session=_session())
        self._delivery = Delivery("Traces for the OTLP collector")

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = super().export(spans)
        self._delivery.note(result is SpanExportResult.SUCCESS)
        return result


class ToldMetricExporter(OTLPMetricExporter):
    """Metrics, as the standard variables say where."""

    def __init__(self) -> None:
        super().__init__(session=_session())
        self._delivery = Delivery("Metrics for the OTLP collector")

    def export(self, metrics_data: Any, timeout_millis: float | None = 10_000, **keywords: Any) -> MetricExportResult:
        result = super().export(metrics_data, timeout_millis, **keywords)
        self._delivery.note(result is MetricExportResult.SUCCESS)
        return result
