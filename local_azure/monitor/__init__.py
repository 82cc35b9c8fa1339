"""Where Azure Monitor takes in telemetry: it keeps what it is sent, as the tables of Application Insights name it."""

from local_azure.monitor.ingestion import Ingestion, Row

__all__ = ["Ingestion", "Row"]
