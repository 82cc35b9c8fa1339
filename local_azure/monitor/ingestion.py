"""The ingestion endpoint of Application Insights. It is not started with the other stand-ins: tests start their own.

The request is that of azure-sdk-for-python, sdk/monitor/azure-monitor-opentelemetry-exporter/swagger; the columns are
those of https://learn.microsoft.com/azure/azure-monitor/app/data-model-complete.
"""

import gzip
import json
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from local_azure.faults import Faults


@dataclass(frozen=True, slots=True)
class Row:
    """One row: the table of Application Insights it would be in, its columns, and its size on the wire in bytes.

    `dimensions` is the column `customDimensions`.
    """

    table: str
    columns: dict[str, Any]
    dimensions: dict[str, str]
    size: int


@dataclass(slots=True)
class Ingestion:
    """Takes telemetry for any instrumentation key. Its one operation, for `faults`, is `track`.

    Whoever serves it says where (`url`).
    """

    url: str = ""
    faults: Faults = field(default_factory=Faults)
    rows: list[Row] = field(default_factory=list)
    text: str = ""

    def application(self) -> web.Application:
        """A fresh application that keeps its rows here; `text` is all that was sent."""
        application = web.Application(middlewares=[self.faults.middleware])
        application.router.add_post("/v2.1/track", self._track, name="track")
        self.faults.operations = lambda: ["track"]
        return application

    def table(self, name: str) -> list[Row]:
        """The rows of one table, such as `requests`, in the order of their arrival."""
        return [row for row in self.rows if row.table == name]

    async def _track(self, request: web.Request) -> web.Response:
        body = await request.read()  # aiohttp has unpacked it
        text = (gzip.decompress(body) if body.startswith(b"\x1f\x8b") else body).decode()
        items = json.loads(text)
        self.text += text
        self.rows.extend(_row(item) for item in items)
        answer = web.json_response({"itemsReceived": len(items), "itemsAccepted": len(items), "errors": []})
        answer.force_close()  # the exporter keeps no connection that could outlive the endpoint
        return answer


_TABLES = {"RequestData": "requests", "RemoteDependencyData": "dependencies", "MetricData": "customMetrics"}

_COLUMNS = {
    "requests": {"name": "name", "resultCode": "responseCode", "success": "success", "duration": "duration"},
    "dependencies": {
        "name": "name",
        "resultCode": "resultCode",
        "success": "success",
        "duration": "duration",
        "type": "type",
        "target": "target",
        "data": "data",
    },
}
"""Columns of a table, and what they are called on the wire."""

_COLUMNS_OF_METRICS = {"name": "name", "valueSum": "value", "value": "value", "valueMin": "min", "valueMax": "max"}


def _row(item: dict[str, Any]) -> Row:
    kind, told = item["data"]["baseType"], item["data"]["baseData"]
    table = _TABLES.get(kind, kind)
    tags = item["tags"]
    columns: dict[str, Any] = {
        "timestamp": item["time"],
        "cloud_RoleName": tags.get("ai.cloud.role"),
        "cloud_RoleInstance": tags.get("ai.cloud.roleInstance"),
        "operation_Name": tags.get("ai.operation.name"),
        "operation_Id": tags.get("ai.operation.id"),
        "itemCount": round(100 / (item.get("sampleRate") or 100)),
    }
    if table == "customMetrics":
        (metric,) = told["metrics"]
        columns |= {column: metric.get(name) for column, name in _COLUMNS_OF_METRICS.items()}
        columns["valueCount"] = metric.get("count") or 1
    else:
        columns |= {column: told.get(name) for column, name in _COLUMNS.get(table, {}).items()}
    kept = {name: value for name, value in columns.items() if value is not None}
    return Row(table, kept, told.get("properties") or {}, len(json.dumps(item)))
