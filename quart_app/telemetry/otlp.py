"""The exporters for an OTLP collector, which tell whether what they send arrives."""

from collections.abc import Sequence
from typing import Any

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics.export import MetricExportResult
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult

from quart_app.telemetry.delivery import Delivery


class ToldSpanExporter(OTLPSpanExporter):
    """Spans, as the standard variables say where."""

    def __init__(self) -> None:
        super().__init__()
        self._delivery = Delivery("Traces for the OTLP collector")

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = super().export(spans)
        self._delivery.note(result is SpanExportResult.SUCCESS)
        return result


class ToldMetricExporter(OTLPMetricExporter):
    """Metrics, as the standard variables say where."""

    def __init__(self) -> None:
        super().__init__()
        self._delivery = Delivery("Metrics for the OTLP collector")

    def export(self, metrics_data: Any, timeout_millis: float | None = 10_000, **keywords: Any) -> MetricExportResult:
        result = super().export(metrics_data, timeout_millis, **keywords)
        self._delivery.note(result is MetricExportResult.SUCCESS)
        return result
