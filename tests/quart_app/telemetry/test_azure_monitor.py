"""Microsoft's own exporter, over TLS, against an ingestion endpoint: what operators' queries name really arrives."""

import asyncio
import json
import logging
import re
import sys
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from local_azure.environment import LocalAzure
from local_azure.faults import Fault
from local_azure.monitor import Ingestion, Row
from quart_app.app import create_app
from quart_app.settings import Environment, Settings, TelemetrySettings, load_settings
from quart_app.telemetry.logs import configure_logging
from quart_app.telemetry.opening import open_telemetry
from quart_app.telemetry.opentelemetry import azure_monitor, exporting
from quart_app.telemetry.served_request import ServedRequest
from tests.quart_app.conftest import Bearer
from tests.support import telemetry_cost
from tests.support.log_check import LogCheck
from tests.support.telemetry_cost import Sizes

ROOT = Path(__file__).parents[3]
KEY = str(uuid.uuid4())
OF_KUSTO = {"requests", "dependencies", "customMetrics"}
ALWAYS_THERE = {"timestamp", "customDimensions"}


@pytest.fixture
async def ingestion(local_azure: LocalAzure, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Ingestion]:
    """The endpoint, running with a certificate of the local authority."""
    running = Ingestion()
    runner = web.AppRunner(running.application(), access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=local_azure.authority.server_context())
    await site.start()
    running.url = f"https://localhost:{runner.addresses[0][1]}"
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(local_azure.authority.certificate_path))
    yield running
    await runner.cleanup()


def connection_string(ingestion: Ingestion) -> str:
    return f"InstrumentationKey={KEY};IngestionEndpoint={ingestion.url}"


async def a_busy_hour(settings: Settings, ingestion: Ingestion, local_azure: LocalAzure, bearer: Bearer) -> list[str]:
    """Requests of every kind, and upstreams that throttle and fail; gives what must not be told."""
    telemetry = exporting(azure_monitor(connection_string(ingestion)))
    async with telemetry as told, create_app(settings, told) as app:
        client = app.test_client()
        await client.get("/api/user")
        throttled = Fault(status=429, headers={"Retry-After": "0"})
        local_azure.acs.faults.script("create_identity", throttled)
        created = await (await client.post("/api/user", headers=bearer("alex"))).get_json()
        for _ in range(2):
            await client.get("/api/token", headers=bearer("alex"))
        local_azure.acs.faults.script("create_identity", Fault(status=503, times=None))
        assert (await client.post("/api/user", headers=bearer("megan"))).status_code == 503
        local_azure.acs.faults.clear()
        await client.delete("/api/user", headers=bearer("alex"))
        told.refused("places")  # as many requests at once as this needs have a test of their own
    users = [local_azure.entra.users[name] for name in ("alex", "megan")]
    ids = [each for user in users for each in (user.object_id, user.tenant_id)]
    return [created["acsUserIdentity"], *ids, "eyJ", "8:acs:"]


@pytest.fixture(params=["cosmos", "graph"])
async def settings(request: pytest.FixtureRequest, configured: pytest.MonkeyPatch, local_azure: LocalAzure) -> Settings:
    for name, value in local_azure.service_environment().items():
        configured.setenv(name, value)
    configured.setenv("STORAGE_BACKEND", request.param)
    if request.param == "cosmos":
        configured.setenv("ENVIRONMENT", "development")
        configured.setenv("COSMOS_CREATE_IF_MISSING", "true")
    return load_settings(None)


def queries() -> dict[str, str]:
    """Every query of the workbook, the alerts and the documents, by a name."""
    workbook = json.loads((ROOT / "infra/workbook.json").read_text())
    alerts = json.loads((ROOT / "infra/alerts.json").read_text())
    documents = {path.name: path.read_text() for path in sorted((ROOT / "docs").glob("*.md"))}
    return {
        **{f"workbook: {item['name']}": item["content"]["query"] for item in workbook["items"] if item["type"] == 3},
        **{f"alert: {each['name']}": each["query"] for each in alerts},
        **{
            f"{name}: {number}": query
            for name, text in documents.items()
            for number, query in enumerate(re.findall(r"^```kusto\n(.*?)^```", text, re.MULTILINE | re.DOTALL))
        },
    }


def asked_for(query: str) -> tuple[str, set[str], set[str], set[str]]:
    """The table, the names of metrics, the dimensions and the columns that a query names."""
    table = query.split()[0]
    metrics = set(re.findall(r"(?<!\[)'(acs_auth\.[a-z_.]+)'", query))
    dimensions = set(re.findall(r"customDimensions\['([^']+)'\]", query))
    bare = re.sub(r"'[^']*'", "", query)
    made = set(re.findall(r"\b([A-Za-z_]\w*) = ", bare)) | set(re.findall(r"^let (\w+)", bare, re.MULTILINE))
    words = set(re.findall(r"\b[A-Za-z_]\w*\b(?!\()", bare))
    columns = words - made - OF_KUSTO - ALWAYS_THERE - WORDS
    return table, metrics, dimensions, columns


WORDS = {"where", "summarize", "by", "project", "order", "desc", "top", "and", "in", "extend", "has", "ago", "m", "h"}


def missing(rows: list[Row]) -> list[str]:
    """What queries name and no row has. A dimension must be on a row of the metric that the query asks for."""
    faults = []
    for title, query in queries().items():
        table, metrics, dimensions, columns = asked_for(query)
        of_table = [row for row in rows if row.table == table]
        for metric in metrics:
            of_metric = [row for row in of_table if row.columns["name"] == metric]
            if not of_metric:
                faults.append(f"{title}: metric {metric}")
        relevant = [row for row in of_table if not metrics or row.columns["name"] in metrics]
        faults += [
            f"{title}: dimension {each}" for each in dimensions if not any(each in row.dimensions for row in relevant)
        ]
        faults += [f"{title}: column {each}" for each in columns if not any(each in row.columns for row in relevant)]
    return sorted(faults)


def names_found(rows: list[Row]) -> str:
    """A table of everything that arrived: table, name of a metric, its columns and dimensions."""
    found: dict[tuple[str, str], set[str]] = {}
    for row in rows:
        name = row.columns["name"] if row.table == "customMetrics" else "*"
        found.setdefault((row.table, name), set()).update(row.columns.keys() | row.dimensions.keys())
    return "\n".join(
        f"{table:<14} {name:<36} {', '.join(sorted(names))}" for (table, name), names in sorted(found.items())
    )


async def test_everything_that_the_operators_queries_name_arrives(
    settings: Settings, ingestion: Ingestion, local_azure: LocalAzure, bearer: Bearer
) -> None:
    secrets = await a_busy_hour(settings, ingestion, local_azure, bearer)
    sys.stdout.write(f"{names_found(ingestion.rows)}\n")
    wanted = missing(ingestion.rows)
    if settings.storage.backend.value != "cosmos":
        wanted = [fault for fault in wanted if "azure.cosmosdb" not in fault]
    assert wanted == []
    assert [secret for secret in secrets if secret in ingestion.text] == []


async def test_a_dependency_says_what_was_asked_whom_and_how_it_ended(
    settings: Settings, ingestion: Ingestion, local_azure: LocalAzure, bearer: Bearer
) -> None:
    await a_busy_hour(settings, ingestion, local_azure, bearer)
    cosmos = settings.storage.backend.value == "cosmos"
    seen = {
        (row.columns["name"], row.columns["type"], row.columns["resultCode"], row.columns["success"])
        for row in ingestion.table("dependencies")
    }
    store = "azure.cosmosdb" if cosmos else "HTTP"
    assert ("store create", store, "201", True) in seen
    assert ("acs create_identity", "HTTP", "201", True) in seen
    assert ("acs create_identity", "HTTP", "503", False) in seen
    assert cosmos or ("entra token", "HTTP", "200", True) in seen
    asked = [row for row in ingestion.table("dependencies") if row.columns["name"] != "entra fetch_signing_keys"]
    assert all(row.columns["target"].startswith("localhost:") for row in asked)
    charges = [
        float(row.dimensions["azure.cosmosdb.operation.request_charge"])
        for row in asked
        if row.columns["type"] == "azure.cosmosdb"
    ]
    assert all(charge > 0 for charge in charges)
    assert bool(charges) == cosmos


async def test_a_request_says_which_route_and_error_it_was(
    settings: Settings, ingestion: Ingestion, local_azure: LocalAzure, bearer: Bearer
) -> None:
    await a_busy_hour(settings, ingestion, local_azure, bearer)
    seen = [
        (
            row.columns["name"],
            row.columns["resultCode"],
            row.dimensions.get("acs_auth.error"),
            row.dimensions["acs_auth.route"],
        )
        for row in ingestion.table("requests")
    ]
    assert seen[0] == ("GET /api/user", "401", "invalid_token", "/api/user")
    assert seen[1] == ("POST /api/user", "201", None, "/api/user")
    assert ("POST /api/user", "503", "service_unavailable", "/api/user") in seen


async def test_the_exporter_sends_nothing_about_itself(
    settings: Settings, ingestion: Ingestion, local_azure: LocalAzure, bearer: Bearer
) -> None:
    await a_busy_hour(settings, ingestion, local_azure, bearer)
    foreign = {row.columns["name"] for row in ingestion.table("customMetrics")}
    assert {name for name in foreign if not name.startswith(("acs_auth.", "http.server.request.duration"))} == set()


async def test_a_connection_string_is_enough_for_telemetry_to_be_sent(ingestion: Ingestion) -> None:
    settings = TelemetrySettings.model_validate({"applicationinsights_connection_string": connection_string(ingestion)})
    async with open_telemetry(settings, {}) as told:
        told.minted()
        with told.serving(ServedRequest("GET", "request-1"), []):
            pass
    (request,) = ingestion.table("requests")
    assert request.dimensions["acs_auth.request_id"] == "request-1"
    assert "acs_auth.identities.minted" in {row.columns["name"] for row in ingestion.table("customMetrics")}


REFUSALS = {
    "400": Fault(status=400, body={"errors": [{"index": 0, "statusCode": 400, "message": f"upstream text {KEY}"}]}),
    "206": Fault(
        status=206,
        body={
            "itemsReceived": 1,
            "itemsAccepted": 0,
            "errors": [{"index": 0, "statusCode": 400, "message": "upstream text"}],
        },
    ),
    "500": Fault(status=500, body="upstream text"),
    "cut": Fault(reset=True),
}


@pytest.mark.parametrize("refusal", REFUSALS.values(), ids=REFUSALS)
async def test_a_batch_that_is_refused_is_told_without_its_content_and_the_next_one_is_sent(
    ingestion: Ingestion, refusal: Fault, logs: LogCheck, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "3600000")
    lines = Lines()
    previous = logging.getLogger().handlers[:]
    configure_logging(Environment.PRODUCTION, lines)
    try:
        exporters = azure_monitor(connection_string(ingestion))
        async with exporting(exporters) as told:
            for refused in (True, False):
                if refused:
                    ingestion.faults.script("track", *[refusal] * 10)
                with told.serving(ServedRequest("GET", "request-1"), {}):
                    pass
                await flushed(exporters)
                ingestion.faults.clear()
    finally:
        logging.getLogger().handlers[:] = previous
    assert len(ingestion.table("requests")) == 1
    written = "\n".join(lines.lines)
    for secret in (KEY, "upstream text", "baseData", "TelemetryItem", "request-1"):
        assert secret not in written
    told_of = [line for line in lines.lines if "Traces for Application Insights" in line]
    assert [line.split(" for ")[1].split("arrive")[1][:7] for line in told_of] == [" and ar", " again."]


class Lines(logging.Handler):
    """Every line, with whatever a formatter could write of it."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(f"{record.getMessage()} {record.exc_info or ''}")


async def flushed(exporters: Any) -> None:
    """The spans that wait are sent, outside of the event loop that the endpoint needs."""
    await asyncio.to_thread(exporters.spans[0].force_flush)


async def test_the_page_on_costs_computes_with_the_sizes_of_what_is_sent(
    settings: Settings, ingestion: Ingestion, local_azure: LocalAzure, bearer: Bearer
) -> None:
    await a_busy_hour(settings, ingestion, local_azure, bearer)
    assumed = Sizes()
    for name, size in {
        "requests": assumed.request,
        "dependencies": assumed.dependency,
        "customMetrics": assumed.point,
    }.items():
        sizes = [row.size for row in ingestion.table(name)]
        assert 0.85 < sum(sizes) / len(sizes) / size < 1.15, name
    assert telemetry_cost.table() in (ROOT / "docs/cost.md").read_text()


def test_a_name_that_does_not_arrive_is_noticed() -> None:
    wanted = missing([])
    assert "workbook: Replicas ready: metric acs_auth.ready" in wanted
    assert "workbook: Errors by route and name: dimension error.type" in wanted
    assert "workbook: Slowest requests (ms): column duration" in wanted
    assert "alert: acs-throttled: dimension acs_auth.upstream" in wanted
    assert "operations.md: 0: dimension acs_auth.request_id" in wanted
