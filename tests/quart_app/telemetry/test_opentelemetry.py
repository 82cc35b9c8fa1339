"""Traces and metrics, read from memory: what is told, how it hangs together, and that nobody can be told from it."""

import gzip
import json
import socket
import threading
import uuid
from collections.abc import AsyncIterator
from contextvars import copy_context
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from azure.core.settings import settings as azure_settings
from opentelemetry.context import Context
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON, Decision, ParentBased, Sampler, SamplingResult
from opentelemetry.trace import SpanKind, StatusCode
from quart import Quart
from quart.typing import TestClientProtocol as Client

from local_azure.environment import LocalAzure
from local_azure.faults import Fault
from quart_app.app import create_app
from quart_app.settings import Settings, TelemetrySettings, load_settings
from quart_app.telemetry import opentelemetry
from quart_app.telemetry.instruments import Telemetry
from quart_app.telemetry.opening import open_telemetry
from quart_app.telemetry.opentelemetry import OpenTelemetry, azure_monitor, exporting
from quart_app.telemetry.served_request import ServedRequest
from quart_app.web import overload
from tests.quart_app.conftest import Bearer
from tests.support.service_process import environment_for, finished, python


class OnlyCalls(Sampler):
    """Samples what has no parent and is no request: a call that does not know its request."""

    def should_sample(
        self, parent_context: Context | None, trace_id: int, name: str, kind: SpanKind | None = None, *_: Any, **__: Any
    ) -> SamplingResult:
        return SamplingResult(Decision.DROP if kind is SpanKind.SERVER else Decision.RECORD_AND_SAMPLE)

    def get_description(self) -> str:
        return "only calls"


class Collected:
    """Spans and metrics in memory. `sampler` decides on what has no parent, `calls` on what a sampled request calls."""

    def __init__(self, sampler: Sampler = ALWAYS_ON, calls: Sampler = ALWAYS_ON) -> None:
        self._spans = InMemorySpanExporter()
        self._reader = InMemoryMetricReader()
        tracers = TracerProvider(ParentBased(sampler, local_parent_sampled=calls), shutdown_on_exit=False)
        tracers.add_span_processor(SimpleSpanProcessor(self._spans))
        self._meters = MeterProvider([self._reader], shutdown_on_exit=False)
        self.telemetry = OpenTelemetry(tracers, self._meters)

    @property
    def spans(self) -> list[ReadableSpan]:
        return list(self._spans.get_finished_spans())

    def points(self, name: str) -> list[tuple[dict[str, Any], Any]]:
        """The attributes and the value (the count, of a histogram) of each data point of a metric."""
        data = self._reader.get_metrics_data()
        metrics = (
            metric
            for resource in (data.resource_metrics if data else [])
            for scope in resource.scope_metrics
            for metric in scope.metrics
        )
        return [
            (dict(point.attributes or {}), getattr(point, "value", None) or getattr(point, "count", 0))
            for metric in metrics
            if metric.name == name
            for point in metric.data.data_points
        ]

    def total(self, name: str, **given: str) -> Any:
        wanted = {f"acs_auth.{attribute}": value for attribute, value in given.items()}
        return sum(value for attributes, value in self.points(name) if wanted.items() <= attributes.items())

    def everything(self) -> str:
        """All that an exporter would be given, as text."""
        spans = [span.to_json() for span in self.spans]
        data = self._reader.get_metrics_data()
        return "\n".join([*spans, data.to_json() if data else ""])

    def close(self) -> None:
        self._meters.shutdown()


@pytest.fixture
def collected() -> Any:
    collected = Collected()
    yield collected
    collected.close()


@pytest.fixture
async def app(settings: Settings, collected: Collected) -> AsyncIterator[Quart]:
    async with create_app(settings, collected.telemetry) as app:
        yield app


def children(collected: Collected, name: str) -> tuple[ReadableSpan, list[ReadableSpan]]:
    """The last server span of this name with its child spans, in their order."""
    server = [span for span in collected.spans if span.name == name][-1]
    assert server.context is not None
    below = [span for span in collected.spans if span.parent and span.parent.span_id == server.context.span_id]
    return server, sorted(below, key=lambda span: span.start_time or 0)


async def test_a_request_is_a_span_named_by_its_route_with_a_child_for_each_upstream_call(
    client: Client, bearer: Bearer, collected: Collected
) -> None:
    await client.post("/api/user", headers={**bearer("alex"), "X-Request-Id": "request-1"})
    server, calls = children(collected, "POST /api/user")
    assert server.kind is SpanKind.SERVER
    assert dict(server.attributes or {}) == {
        "http.request.method": "POST",
        "http.route": "/api/user",
        "http.response.status_code": 201,
        "url.scheme": "http",
        "acs_auth.door": "entra",
        "acs_auth.request_id": "request-1",
        "acs_auth.route": "/api/user",
    }
    assert [span.name for span in calls if not span.name.startswith("entra")] == [
        "store get",
        "acs create_identity",
        "store create",
    ]
    assert all(span.kind is SpanKind.CLIENT for span in calls)
    assert dict(calls[-1].attributes or {}) == {
        "acs_auth.upstream": "store",
        "acs_auth.operation": "create",
        "acs_auth.outcome": "ok",
        "db.system.name": "sqlite",
        "db.operation.name": "create",
    }


@pytest.mark.parametrize(
    ("upstream", "operation", "call"),
    [
        ("acs", "create_identity", ("acs", "create_identity")),
        ("store", "create", ("graph", "create_extension")),
        ("entra", "token", ("entra", "token")),
    ],
)
async def test_one_logical_call_is_one_span_and_one_count_with_its_retries_inside(
    upstream: str,
    operation: str,
    call: tuple[str, str],
    local_azure: LocalAzure,
    monkeypatch: pytest.MonkeyPatch,
    bearer: Bearer,
    collected: Collected,
) -> None:
    """The same for the store, ACS and Entra ID: 429 twice, then the answer."""
    for name, value in {**local_azure.service_environment(), "STORAGE_BACKEND": "graph"}.items():
        monkeypatch.setenv(name, value)
    stand_in, wire_name = call
    throttled = Fault(status=429, headers={"Retry-After": "0"})
    getattr(local_azure, stand_in).faults.script(wire_name, throttled, throttled)
    async with create_app(load_settings(None), collected.telemetry) as app:
        assert (await app.test_client().post("/api/user", headers=bearer("alex"))).status_code == 201
    spans = [span for span in collected.spans if span.name == f"{upstream} {operation}"]
    assert [(span.attributes or {})["acs_auth.outcome"] for span in spans] == ["ok"]
    assert collected.total("acs_auth.upstream.duration", upstream=upstream, operation=operation) == 1
    assert collected.total("acs_auth.upstream.retries", upstream=upstream, outcome="throttled") == 2
    assert collected.total("acs_auth.upstream.throttles", upstream=upstream) == 2
    assert collected.total("acs_auth.upstream.throttles") == 2
    if upstream == "entra":
        assert collected.total("acs_auth.cache.lookups", cache="on_behalf_of", result="miss") == 1


async def test_a_request_that_is_not_sampled_is_counted_with_its_calls_and_has_no_spans(
    settings: Settings, bearer: Bearer
) -> None:
    collected = Collected(OnlyCalls())
    async with create_app(settings, collected.telemetry) as app:
        await app.test_client().post("/api/user", headers=bearer("alex"))
        sampled = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
        await app.test_client().get("/api/token", headers={**bearer("alex"), **sampled})
    assert collected.total("acs_auth.upstream.duration", upstream="acs", operation="create_identity") == 1
    assert [value for _, value in collected.points("acs_auth.request.duration")] == [1, 1]
    server, calls = children(collected, "GET /api/token")
    assert {span.name for span in collected.spans} == {server.name, *(call.name for call in calls)}
    assert calls
    collected.close()


async def test_a_call_that_is_not_sampled_though_its_request_is_is_counted_and_harms_nothing(
    settings: Settings, bearer: Bearer
) -> None:
    collected = Collected(calls=ALWAYS_OFF)
    async with create_app(settings, collected.telemetry) as app:
        assert (await app.test_client().post("/api/user", headers=bearer("alex"))).status_code == 201
    assert [span.name for span in collected.spans] == ["POST /api/user"]
    assert collected.total("acs_auth.upstream.duration", upstream="acs", operation="create_identity", outcome="ok") == 1
    collected.close()


def test_a_call_that_outlives_its_request_is_a_span_of_it(collected: Collected) -> None:
    measure = collected.telemetry.upstream("acs")
    with collected.telemetry.serving(ServedRequest("POST"), []):
        inside = copy_context()

    def call() -> None:
        with measure("delete_identity"):
            pass

    inside.run(call)
    _, calls = children(collected, "POST")
    assert [call.name for call in calls] == ["acs delete_identity"]


async def test_unknown_paths_and_methods_do_not_become_names(client: Client, collected: Collected) -> None:
    await client.get("/api/user/8:acs:someone")
    async with client.request("/api/user", method="EVIL-METHOD") as connection:
        await connection.send_complete()
    assert [span.name for span in collected.spans] == ["GET", "_OTHER"]
    text = collected.everything()
    assert "someone" not in text
    assert "EVIL" not in text


async def test_the_platforms_probes_are_not_told(client: Client, collected: Collected) -> None:
    await client.get("/health/live")
    await client.get("/health/ready")
    assert [span.name for span in collected.spans] == []
    assert collected.points("http.server.request.duration") == []


async def test_a_clients_trace_is_continued(client: Client, collected: Collected) -> None:
    trace = "0af7651916cd43dd8448eb211c80319c"
    await client.get("/api/user", headers={"traceparent": f"00-{trace}-b7ad6b7169203331-01"})
    (span,) = collected.spans
    assert span.context is not None
    assert f"{span.context.trace_id:032x}" == trace


async def test_requests_are_counted_by_route_status_and_error(
    client: Client, bearer: Bearer, collected: Collected
) -> None:
    await client.get("/api/user")
    await client.get("/api/user", headers=bearer("alex"))
    await client.post("/api/user", headers=bearer("alex"))
    for name in ("http.server.request.duration", "acs_auth.request.duration"):
        by_status = {
            (attributes["http.response.status_code"], attributes.get("error.type")): (attributes["http.route"], count)
            for attributes, count in collected.points(name)
        }
        assert by_status == {
            (401, "invalid_token"): ("/api/user", 1),
            (404, "identity_not_found"): ("/api/user", 1),
            (201, None): ("/api/user", 1),
        }
    assert collected.total("acs_auth.requests.active") == 0
    assert collected.total("http.server.active_requests") == 0


async def test_refused_tokens_are_counted_by_door_and_reason_and_the_keys_age_can_be_watched(
    client: Client, bearer: Bearer, collected: Collected, local_azure: LocalAzure
) -> None:
    entra = local_azure.entra
    tokens = {
        "audience": entra.access_token("alex", aud="api://other"),
        "expired": entra.access_token("alex", exp=1_700_000_000),
        "scope": entra.access_token("alex", scope="other"),
        "malformed": "garbage",
        "tenant": entra.access_token("nestor"),
    }
    for token in [*tokens.values(), entra.access_token("alex")]:
        await client.get("/api/user", headers={"Authorization": f"Bearer {token}"})
    await client.get("/api/user")
    await client.get("/api/user", headers={"Authorization": "Bearer a b"})
    teams = {"teams-user-aad-token": entra.teams_token("megan")}
    await client.get("/api/token/teams", headers={**bearer("alex"), **teams})
    points = collected.points("acs_auth.tokens.refused")
    refused = {(attributes.get("acs_auth.door"), attributes["acs_auth.reason"]): count for attributes, count in points}
    told = [*(("entra", reason) for reason in (*tokens, "subject")), (None, "malformed"), (None, "missing")]
    assert refused == dict.fromkeys(told, 1)  # where there was no token, there is no door
    doors = [(span.attributes or {}).get("acs_auth.door") for span in collected.spans]
    assert [door for door in doors if door] == ["entra"] * 7
    spans = [(span.attributes or {}).get("acs_auth.reason") for span in collected.spans]
    assert [reason for reason in spans if reason] == [*tokens, "missing", "malformed", "subject"]
    assert len(collected.points("acs_auth.signing_keys.age")) == 1
    assert collected.total("acs_auth.signing_keys.age") < 60


async def test_early_refusals_are_counted_by_their_cause(
    client: Client, collected: Collected, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overload, "STRANGERS_SECONDS", -1.0)
    assert (await client.get("/api/user")).status_code == 503
    assert collected.total("acs_auth.requests.refused", cause="lateness") == 1


async def test_caches_identities_and_upstreams_are_counted(
    client: Client, bearer: Bearer, collected: Collected
) -> None:
    await client.post("/api/user", headers=bearer("alex"))
    for _ in range(3):
        await client.get("/api/token", headers=bearer("alex"))
    await client.delete("/api/user", headers=bearer("alex"))
    lookups = "acs_auth.cache.lookups"
    assert collected.total(lookups, cache="mapping", result="hit") == 3
    tokens = [collected.total(lookups, cache="access_token", result=result) for result in ("hit", "miss")]
    assert sum(tokens) == 5
    assert collected.total("acs_auth.identities.minted") == 1
    assert collected.total("acs_auth.identities.deleted") == 1
    upstream = "acs_auth.upstream.duration"
    assert collected.total(upstream, upstream="acs", operation="issue_token", outcome="ok") == 3
    assert collected.total(upstream, upstream="store", operation="change", outcome="ok") == 1
    assert collected.total(upstream, upstream="entra", operation="fetch_signing_keys", outcome="ok") > 0


async def test_throttles_retries_and_failures_are_counted_and_mark_their_span(
    client: Client, bearer: Bearer, collected: Collected, local_azure: LocalAzure
) -> None:
    throttled = Fault(status=429, headers={"Retry-After": "0"})
    local_azure.acs.faults.script("create_identity", throttled, throttled)
    assert (await client.post("/api/user", headers=bearer("alex"))).status_code == 201
    assert collected.total("acs_auth.upstream.retries", upstream="acs", outcome="throttled") == 2
    assert collected.total("acs_auth.upstream.throttles", upstream="acs") == 2

    local_azure.acs.faults.script("create_identity", Fault(status=503, times=None))
    assert (await client.post("/api/user", headers=bearer("megan"))).status_code == 503
    server, calls = children(collected, "POST /api/user")
    assert server.status.status_code is StatusCode.ERROR
    failed = next(span for span in calls if span.name == "acs create_identity")
    assert (failed.attributes or {})["acs_auth.outcome"] == "unavailable"
    assert (failed.attributes or {})["error.type"] == "AcsUnavailable"
    assert failed.status.status_code is StatusCode.ERROR
    assert failed.events == ()  # an exception event would quote its message


@pytest.mark.parametrize(
    ("upstream", "call"),
    [("acs", ("acs", "create_identity")), ("store", ("graph", "create_extension")), ("entra", ("entra", "token"))],
)
async def test_every_answer_that_an_upstream_is_too_busy_counts_once_the_last_one_too(
    upstream: str,
    call: tuple[str, str],
    local_azure: LocalAzure,
    monkeypatch: pytest.MonkeyPatch,
    bearer: Bearer,
    collected: Collected,
) -> None:
    for name, value in {**local_azure.service_environment(), "STORAGE_BACKEND": "graph"}.items():
        monkeypatch.setenv(name, value)
    stand_in, wire_name = call
    faults = getattr(local_azure, stand_in).faults
    faults.script(wire_name, Fault(status=429, headers={"Retry-After": "0"}, times=None))
    async with create_app(load_settings(None), collected.telemetry) as app:
        assert (await app.test_client().post("/api/user", headers=bearer("alex"))).status_code == 503
    assert collected.total("acs_auth.upstream.throttles", upstream=upstream) == faults.counts[wire_name] > 1
    assert collected.total("acs_auth.upstream.throttles") == faults.counts[wire_name]


async def test_an_orderly_refusal_is_told_and_is_no_failure_of_the_upstream(
    client: Client, bearer: Bearer, collected: Collected, local_azure: LocalAzure
) -> None:
    await client.post("/api/user", headers=bearer("alex"))
    refusal = {"error": {"code": "IdentityNotOwned", "message": "Provided identity doesn't belong to the resource."}}
    local_azure.acs.faults.script("issue_access_token", Fault(status=401, body=refusal, times=None))
    assert (await client.get("/api/token", headers=bearer("alex"))).status_code == 409
    _, calls = children(collected, "GET /api/token")
    (call,) = [each for each in calls if each.name == "acs issue_token"]
    assert (call.attributes or {})["acs_auth.outcome"] == "refused"
    assert (call.attributes or {})["acs_auth.error"] == (call.attributes or {})["error.type"]
    assert call.status.status_code is StatusCode.UNSET


@pytest.mark.parametrize("storage", ["sqlite", "graph"])
async def test_calls_of_the_managed_identity_have_spans_and_a_measurement_of_their_own(
    local_azure: LocalAzure,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    bearer: Bearer,
    collected: Collected,
    storage: str,
) -> None:
    for name, value in local_azure.service_environment(secrets=False).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("STORAGE_BACKEND", storage)
    monkeypatch.setenv("SQLITE_PATH", str(tmp_path / "mappings.sqlite"))
    local_azure.entra.faults.script("managed_identity_token", Fault(status=500))
    async with create_app(load_settings(None), collected.telemetry) as app:
        assert (await app.test_client().post("/api/user", headers=bearer("alex"))).status_code == 201
    assert "managed_identity token" in {span.name for span in collected.spans}
    assert collected.total("acs_auth.upstream.retries", upstream="managed_identity", outcome="unavailable") == 1
    assert collected.total("acs_auth.upstream.duration", upstream="managed_identity", outcome="ok") >= 1


async def test_pending_and_orphaned_identities_and_readiness_can_be_watched(
    client: Client, bearer: Bearer, collected: Collected
) -> None:
    await client.post("/api/user", headers=bearer("alex"))
    for gauge in ("acs_auth.identities.pending", "acs_auth.identities.orphaned", "acs_auth.ready"):
        assert len(collected.points(gauge)) == 1, gauge
    assert collected.total("acs_auth.identities.pending") == 0


async def test_deletions_that_are_not_finished_can_be_watched(
    client: Client, bearer: Bearer, collected: Collected, local_azure: LocalAzure
) -> None:
    await client.post("/api/user", headers=bearer("alex"))
    assert collected.total("acs_auth.deletions.unfinished") == 0
    local_azure.acs.faults.script("delete_identity", Fault(status=500, times=None))
    await client.delete("/api/user", headers=bearer("alex"))
    assert collected.total("acs_auth.deletions.unfinished") == 1
    local_azure.acs.faults.clear()
    assert (await client.delete("/api/user", headers=bearer("alex"))).status_code == 204
    assert collected.total("acs_auth.deletions.unfinished") == 0


async def test_nothing_that_is_exported_tells_who_called_or_holds_a_token(
    client: Client,
    bearer: Bearer,
    collected: Collected,
    local_azure: LocalAzure,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Even where azure-core's own tracing, whose spans hold URLs, is asked for.
    monkeypatch.setenv("AZURE_TRACING_ENABLED", "true")
    assert not azure_settings.tracing_enabled()
    created = await (await client.post("/api/user", headers=bearer("alex"))).get_json()
    issued = await (await client.get("/api/token", headers=bearer("alex"))).get_json()
    teams = {"teams-user-aad-token": local_azure.entra.teams_token("alex")}
    await client.get("/api/token/teams", headers={**bearer("alex"), **teams})
    local_azure.acs.faults.script("delete_identity", Fault(status=500, times=None))
    await client.delete("/api/user", headers=bearer("alex"))
    text = collected.everything()
    assert "acs delete_identity" in text
    user = local_azure.entra.users["alex"]
    identity = created["acsUserIdentity"]
    secrets = [identity, identity.removeprefix("8:acs:"), issued["token"], user.object_id, user.tenant_id]
    for secret in [*secrets, "eyJ", "8:acs:", "https://"]:
        assert secret not in text


@pytest.mark.usefixtures("settings")
async def test_nor_of_whom_a_caller_asks(
    local_azure: LocalAzure, collected: Collected, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENTRA_RESOLVE_SCOPE", "resolve_users")
    token = local_azure.entra.access_token("megan", scope="access_as_user resolve_users")
    headers = {"Authorization": f"Bearer {token}"}
    asked = [*(user.object_id for user in local_azure.entra.users.values()), "99999999-0000-4000-8000-000000000000"]
    async with create_app(load_settings(None), collected.telemetry) as app:
        client = app.test_client()
        created = await (await client.post("/api/user", headers=headers)).get_json()
        answer = await client.post("/api/users/resolve", headers=headers, json={"userIds": asked})
        assert len((await answer.get_json())["users"]) == 1
    _, calls = children(collected, "POST /api/users/resolve")
    assert [call.name for call in calls] == ["store get"] * len(asked)
    text = collected.everything()
    for secret in [*asked, created["acsUserIdentity"], "8:acs:"]:
        assert secret not in text


@pytest.mark.usefixtures("settings")
async def test_on_behalf_of_tokens_are_told_too(
    bearer: Bearer, collected: Collected, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STORAGE_BACKEND", "graph")
    async with create_app(load_settings(None), collected.telemetry) as app:
        client, header = app.test_client(), bearer("alex")
        for _ in range(2):
            await client.get("/api/user", headers=header)
    lookups = "acs_auth.cache.lookups"
    assert collected.total(lookups, cache="on_behalf_of", result="miss") == 1
    assert collected.total(lookups, cache="on_behalf_of", result="hit") == 1
    assert collected.total("acs_auth.upstream.duration", upstream="entra", operation="token") == 1


def telemetry_settings(**values: str) -> TelemetrySettings:
    return TelemetrySettings(**values)  # type: ignore[arg-type]


async def test_without_a_destination_there_is_none() -> None:
    for environment in ({}, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:1", "OTEL_SDK_DISABLED": "true"}):
        async with open_telemetry(telemetry_settings(), environment) as telemetry:
            assert type(telemetry) is Telemetry


class Collector:
    """An OTLP or Application Insights end point on loopback that notes the paths of what it is sent."""

    def __init__(self) -> None:
        paths = self.paths = []  # type: list[str]
        self.bodies: list[bytes] = []
        bodies = self.bodies

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                paths.append(self.path)
                bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
                answer = b'{"itemsReceived":1,"itemsAccepted":1,"errors":[]}'
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def collector() -> Any:
    collector = Collector()
    yield collector
    collector.close()


async def test_otlp_is_set_by_the_standard_variable_and_flushed_at_the_end(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
    async with open_telemetry(telemetry_settings()) as telemetry:
        telemetry.minted()
        with telemetry.serving(ServedRequest("GET"), {}):
            pass
    assert set(collector.paths) == {"/v1/traces", "/v1/metrics"}


async def test_azure_monitor_gets_requests_dependencies_and_metrics_and_nothing_about_the_caller(
    settings: Settings, bearer: Bearer, collector: Collector, local_azure: LocalAzure
) -> None:
    connection_string = f"InstrumentationKey={uuid.uuid4()};IngestionEndpoint={collector.url}"
    async with exporting(azure_monitor(connection_string)) as telemetry, create_app(settings, telemetry) as app:
        client = app.test_client()
        created = await (await client.post("/api/user", headers=bearer("alex"))).get_json()
        await client.get("/api/token", headers=bearer("alex"))
    bodies = [gzip.decompress(body) if body.startswith(b"\x1f\x8b") else body for body in collector.bodies]
    items = [item for body in bodies for item in json.loads(body)]
    requests = [item["data"]["baseData"] for item in items if item["data"]["baseType"] == "RequestData"]
    assert [(request["name"], request["responseCode"], request["success"]) for request in requests] == [
        ("POST /api/user", "201", True),
        ("GET /api/token", "201", True),
    ]
    kinds = {item["data"]["baseType"] for item in items}
    assert kinds == {"RequestData", "RemoteDependencyData", "MetricData"}
    text = b"".join(bodies).decode()
    user = local_azure.entra.users["alex"]
    for secret in (created["acsUserIdentity"], user.object_id, user.tenant_id, "eyJ", "8:acs:"):
        assert secret not in text


async def test_a_collector_that_does_not_answer_holds_up_nothing(
    settings: Settings, bearer: Bearer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opentelemetry, "SHUTDOWN_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        async with create_app(load_settings(None)) as app:
            assert (await app.test_client().get("/api/user", headers=bearer("alex"))).status_code == 404
        assert "shut telemetry down" in [thread.name for thread in threading.enumerate()]  # and nobody waited for it


REPORT = """
import asyncio, sys
from quart_app.app import create_app
from quart_app.settings import load_settings

async def main():
    async with create_app(load_settings(None)):
        print(*(name for name in sys.modules if name.split(".")[0] == "opentelemetry"))

asyncio.run(main())
"""


async def test_off_costs_nothing_not_even_an_import(local_azure: LocalAzure, tmp_path: Path) -> None:
    status, out, _ = await finished(await python(environment_for(local_azure, tmp_path), "-c", REPORT))
    assert (status, out.split()) == (0, [])
