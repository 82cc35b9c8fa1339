"""From settings to telemetry; what is not asked for is not loaded."""

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from quart_app.settings import TelemetrySettings
from quart_app.telemetry.instruments import Telemetry


@asynccontextmanager
async def open_telemetry(
    settings: TelemetrySettings, environment: Mapping[str, str] = os.environ
) -> AsyncIterator[Telemetry]:
    """The telemetry that the settings and OpenTelemetry's own variables in `environment` ask for.

    Without any of them nothing of OpenTelemetry is loaded.
    """
    connection_string = settings.applicationinsights_connection_string
    spans, metrics = (
        environment.get("OTEL_SDK_DISABLED", "").lower() != "true"
        and any(environment.get(f"OTEL_EXPORTER_OTLP_{name}") for name in ("ENDPOINT", f"{signal}_ENDPOINT"))
        for signal in ("TRACES", "METRICS")
    )
    if connection_string is None and not (spans or metrics):
        yield Telemetry()
        return
    from quart_app.telemetry import opentelemetry

    exporters = []
    if connection_string is not None:
        exporters.append(opentelemetry.azure_monitor(connection_string.get_secret_value()))
    if spans or metrics:
        exporters.append(opentelemetry.otlp(spans=spans, metrics=metrics))
    async with opentelemetry.exporting(*exporters) as telemetry:
        yield telemetry
