"""Microsoft's exporters for Application Insights, with what this service needs otherwise.

They are in beta and reached into here by private names, so their version is capped; `tests/quart_app/telemetry/
test_azure_monitor.py` looks at what they really send.
"""

from typing import Any

from azure.monitor.opentelemetry.exporter import AzureMonitorMetricExporter, AzureMonitorTraceExporter
from opentelemetry.sdk.metrics.export import MetricExportResult
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.trace import SpanKind

from quart_app.telemetry.delivery import Delivery


class _Spans(AzureMonitorTraceExporter):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._delivery = Delivery("Traces for Application Insights")

    def export(self, spans: Any, **keywords: Any) -> SpanExportResult:
        result = super().export(spans, **keywords)
        self._delivery.note(result is SpanExportResult.SUCCESS)
        return result

    def shutdown(self) -> None:
        super().shutdown()
        self.client.close()

    def _span_to_envelope(self, span: ReadableSpan) -> Any:
        """A dependency keeps its span's name, not `POST /`, and says how it ended: the exporter writes 0."""
        envelope = super()._span_to_envelope(span)
        if span.kind is SpanKind.CLIENT:
            told = span.attributes or {}
            dependency: Any = envelope.data.base_data  # type: ignore[union-attr]
            dependency.name = span.name
            dependency.result_code = str(
                told.get("http.response.status_code")
                or told.get("db.response.status_code")
                or told.get("acs_auth.outcome")
            )
            envelope.tags["ai.operation.name"] = span.name  # type: ignore[index]
        return envelope


class _Metrics(AzureMonitorMetricExporter):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._delivery = Delivery("Metrics for Application Insights")

    def export(self, metrics_data: Any, timeout_millis: float = 10_000, **keywords: Any) -> MetricExportResult:
        result = super().export(metrics_data, timeout_millis, **keywords)
        self._delivery.note(result is MetricExportResult.SUCCESS)
        return result

    def shutdown(self, timeout_millis: float = 30_000, **keywords: Any) -> None:
        super().shutdown(timeout_millis, **keywords)
        self.client.close()


def azure_exporters(connection_string: str) -> tuple[AzureMonitorTraceExporter, AzureMonitorMetricExporter]:
    """For spans and for metrics. Nothing is kept on disk while Application Insights can't be reached."""
    options = {"connection_string": connection_string, "disable_offline_storage": True}
    return _Spans(**options), _Metrics(**options)
