"""Whom a refusal blames: what the caller hears of it, and the one line that tells the operator why."""

import asyncio
import io
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from quart.typing import TestClientProtocol as Client

from local_azure.cosmos import forbidden
from local_azure.entra.directory import MANAGED_IDENTITY
from local_azure.environment import LocalAzure
from local_azure.faults import Fault
from quart_app.app import create_app
from quart_app.settings import Environment, load_settings
from quart_app.telemetry.logs import configure_logging
from tests.conftest import LOGS
from tests.quart_app.conftest import Bearer
from tests.support.service_process import BRIEFLY_STARTED, acs_auth, environment_for, finished, python

REQUEST_ID = "request-1"
Serve = Callable[..., AbstractAsyncContextManager[Client]]


@pytest.fixture
def serve(local_azure: LocalAzure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Serve:
    @asynccontextmanager
    async def served(storage: str, *, secrets: bool = True) -> AsyncIterator[Client]:
        given = local_azure.service_environment(secrets=secrets)
        for name, value in {**given, "SQLITE_PATH": str(tmp_path / "mappings.sqlite")}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("STORAGE_BACKEND", storage)
        async with create_app(load_settings(None)) as app:
            yield app.test_client()

    return served


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """What the production configuration writes to standard error."""
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    configure_logging(Environment.PRODUCTION)
    yield stream
    configure_logging(Environment.PRODUCTION, LOGS)
    LOGS.read(stream.getvalue())


def refusals(written: io.StringIO) -> list[dict[str, Any]]:
    """The lines about refused upstream calls that were made for a request."""
    lines = [json.loads(line) for line in written.getvalue().splitlines()]
    return [line for line in lines if line["event"] == "an upstream call was refused" and "request_id" in line]


async def told(answer: Any) -> tuple[int, str]:
    body = await answer.get_json()
    return answer.status_code, "" if body is None else body.get("error", "")


def refusal_by_entra(code: int, **more: object) -> Fault:
    body = {
        "error": "invalid_grant",
        "error_description": f"AADSTS{code}: the user alex@contoso.example …",
        "error_codes": [code],
        "correlation_id": "11111111-2222-3333-4444-555555555555",
        **more,
    }
    return Fault(status=400, body=body)


def refusal_by_graph(status: int, code: str, **headers: str) -> Fault:
    body = {"error": {"code": code, "message": "… Please wait briefly and retry."}}
    return Fault(status=status, body=body, headers={"request-id": "graph-1", **headers})


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (refusal_by_entra(65001, suberror="consent_required"), (403, "consent_required")),  # 11
        (refusal_by_entra(500131), (502, "upstream_credentials_rejected")),  # 12
        (refusal_by_entra(70000), (403, "consent_required")),  # 13
        (refusal_by_entra(50076), (403, "step_up_required")),
        (refusal_by_entra(50173), (401, "invalid_token")),
        (refusal_by_entra(50105), (403, "user_not_allowed")),
        (refusal_by_entra(53003), (403, "user_not_allowed")),
        (refusal_by_entra(50034), (403, "user_not_found")),
        (refusal_by_entra(700016), (502, "upstream_credentials_rejected")),
        (refusal_by_entra(123456), (502, "unexpected_upstream_answer")),
    ],
    ids=lambda value: value.body["error_codes"][0] if isinstance(value, Fault) else None,
)
async def test_a_refusal_of_entra_id_reaches_whom_it_concerns_and_its_code_the_log(
    serve: Serve,
    local_azure: LocalAzure,
    bearer: Bearer,
    written: io.StringIO,
    fault: Fault,
    expected: tuple[int, str],
) -> None:
    local_azure.entra.faults.script("token", fault)
    async with serve("graph") as client:
        answer = await client.get("/api/user", headers={**bearer("alex"), "X-Request-Id": REQUEST_ID})
        assert await told(answer) == expected
        assert "WWW-Authenticate" in answer.headers or expected[0] == 502
    (line,) = refusals(written)
    assert line["request_id"] == REQUEST_ID
    assert (line["upstream"], line["operation"], line["status"]) == ("entra", "token", 400)
    assert line["upstream_code"] == f"AADSTS{fault.body['error_codes'][0]}"
    assert line["correlation_id"] == fault.body["correlation_id"]
    assert line["advice"].endswith(".")
    assert (line["level"], line["logger"]) == ("warning", "upstream.calls")
    assert "contoso.example" not in written.getvalue()


async def test_one_odd_answer_of_entra_id_spoils_nothing_for_the_others(
    serve: Serve, local_azure: LocalAzure, bearer: Bearer, written: io.StringIO
) -> None:
    odd = Fault(status=400, body={"error": {"code": "Denied", "message": "gateway-text"}}, times=4)
    local_azure.entra.faults.script("token", odd)
    async with serve("graph") as client:
        assert await told(await client.get("/api/user", headers=bearer("alex"))) == (503, "service_unavailable")
        for user in ("alex", "megan", "pradeep", "zoe"):
            assert await told(await client.get("/api/user", headers=bearer(user))) == (404, "identity_not_found")
    assert "gateway-text" not in written.getvalue()
    assert "Traceback" not in written.getvalue()


@pytest.mark.parametrize(
    "claims", ["\ud800", json.dumps({"access_token": {"x": "y" * 70_000}})], ids=["surrogate", "70,000 characters"]
)
async def test_a_challenge_that_no_header_can_carry_is_a_sign_in_that_the_client_is_not_told_more_of(
    serve: Serve, local_azure: LocalAzure, claims: str
) -> None:
    token = local_azure.entra.access_token("alex", xms_cc=["cp1"])
    local_azure.entra.faults.script("token", refusal_by_entra(50076, claims=claims))
    async with serve("graph") as client:
        answer = await client.get("/api/user", headers={"Authorization": f"Bearer {token}"})
    assert await told(answer) == (403, "step_up_required")
    assert all(len(value) < 1_000 for value in answer.headers.values())


@pytest.mark.parametrize(
    "fault",
    [
        refusal_by_graph(409, "Directory_ConcurrencyViolation"),  # 14
        refusal_by_graph(423, "accessDenied"),
        refusal_by_graph(503, "Directory_ConcurrencyViolation"),
    ],
    ids=["409", "423", "503"],
)
@pytest.mark.parametrize("operation", ["get_me", "update_extension", "delete_extension"])
async def test_what_passes_at_graph_is_repeated_and_nobody_hears_of_it(
    serve: Serve, local_azure: LocalAzure, bearer: Bearer, written: io.StringIO, operation: str, fault: Fault
) -> None:
    async with serve("graph") as client:
        assert (await client.post("/api/user", headers=bearer("alex"))).status_code == 201
        local_azure.graph.faults.script(operation, fault)
        assert (await client.delete("/api/user", headers=bearer("alex"))).status_code == 204
    assert local_azure.acs.live_identities() == []
    assert refusals(written) == []


@pytest.mark.parametrize("status", [409, 423])
async def test_a_creation_that_graph_refuses_for_now_is_repeated_and_makes_one_identity(
    serve: Serve, local_azure: LocalAzure, bearer: Bearer, status: int
) -> None:
    async with serve("graph") as client:
        local_azure.graph.faults.script("create_extension", refusal_by_graph(status, "Directory_ConcurrencyViolation"))
        assert (await client.post("/api/user", headers=bearer("alex"))).status_code == 201
    assert len(local_azure.acs.all_identities()) == 1


async def test_a_user_made_a_moment_ago_is_waited_for_and_one_who_is_gone_is_told_so(
    serve: Serve, local_azure: LocalAzure, bearer: Bearer, written: io.StringIO
) -> None:
    gone = refusal_by_graph(404, "Request_ResourceNotFound")
    async with serve("graph") as client:
        local_azure.graph.faults.script("get_me", gone)  # 15
        assert (await client.post("/api/user", headers=bearer("alex"))).status_code == 201
        assert refusals(written) == []
        local_azure.graph.faults.script("get_me", Fault(gone.status, gone.headers, gone.body, times=None))
        for method in (client.get, client.post, client.delete):
            assert await told(await method("/api/user", headers=bearer("alex"))) == (403, "user_not_found")
        local_azure.graph.faults.clear()
        assert (await client.get("/api/user", headers=bearer("alex"))).status_code == 200
    lines = refusals(written)
    assert {(line["upstream"], line["status"], line["upstream_code"]) for line in lines} == {
        ("store", 404, "Request_ResourceNotFound")
    }
    assert {line["correlation_id"] for line in lines} == {"graph-1"}


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (refusal_by_graph(403, "Authorization_RequestDenied"), (502, "upstream_credentials_rejected")),
        (refusal_by_graph(400, "Request_BadRequest"), (502, "upstream_credentials_rejected")),
        (refusal_by_graph(401, "InvalidAuthenticationToken"), (401, "invalid_token")),
        (refusal_by_graph(401, "Authorization_IdentityNotFound"), (502, "upstream_credentials_rejected")),
        (refusal_by_graph(404, "SomethingNew"), (502, "unexpected_upstream_answer")),
        (refusal_by_graph(418, "Teapot"), (502, "unexpected_upstream_answer")),
        (Fault(status=404, body="<html>", times=None), (503, "service_unavailable")),
        (Fault(status=403, body={"error": "no object"}, times=None), (503, "service_unavailable")),
    ],
)
async def test_a_refusal_of_graph_reaches_whom_it_concerns(
    serve: Serve,
    local_azure: LocalAzure,
    bearer: Bearer,
    written: io.StringIO,
    fault: Fault,
    expected: tuple[int, str],
) -> None:
    async with serve("graph") as client:
        local_azure.graph.faults.script("get_me", *[fault] * 2)  # the readiness check may take one
        local_azure.graph.faults.script("get_me", Fault(fault.status, fault.headers, fault.body, times=None))
        assert await told(await client.get("/api/user", headers=bearer("alex"))) == expected
    (line,) = refusals(written)
    assert (line["upstream"], line["operation"], line["status"]) == ("store", "get", fault.status)
    assert "advice" in line


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (forbidden(5301, times=None), (502, "upstream_credentials_rejected")),
        (forbidden(3, times=None), (503, "service_unavailable")),
        (
            Fault(status=402, headers={"x-ms-activity-id": "a-1"}, body={"code": "Odd"}, times=None),
            (502, "unexpected_upstream_answer"),
        ),
        (Fault(status=403, body="<html>", times=None), (503, "service_unavailable")),
        (Fault(status=404, body="<html>", times=None), (503, "service_unavailable")),
    ],
    ids=["roles", "failover", "unknown", "a stranger's 403", "a stranger's 404"],
)
async def test_a_refusal_of_cosmos_db_reaches_whom_it_concerns(
    serve: Serve,
    local_azure: LocalAzure,
    bearer: Bearer,
    written: io.StringIO,
    fault: Fault,
    expected: tuple[int, str],
) -> None:
    async with serve("cosmos") as client:
        local_azure.cosmos.faults.script("read_item", fault)
        assert await told(await client.get("/api/user", headers=bearer("alex"))) == expected
    (line,) = refusals(written)
    assert (line["upstream"], line["operation"], line["status"]) == ("store", "get", fault.status)
    if "x-ms-substatus" in fault.headers:
        assert line["upstream_code"] == f"403/{fault.headers['x-ms-substatus']}"
    if fault.headers.get("x-ms-substatus") == "5301":
        assert "may still be spreading" in line["advice"]


async def test_readiness_logs_the_sentence_and_not_a_class(
    serve: Serve, local_azure: LocalAzure, written: io.StringIO
) -> None:
    local_azure.cosmos.faults.script("read_item", forbidden(5301, times=None))
    async with serve("cosmos") as client, asyncio.timeout(20):
        while "not ready" not in written.getvalue():  # the first check is under way
            await client.get("/health/ready")
    lines = [json.loads(line)["event"] for line in written.getvalue().splitlines()]
    (line, *_) = [line for line in lines if line.startswith("not ready")]
    assert "Cosmos DB Built-in Data Contributor" in line
    assert "StoreMisconfigured" not in line


async def test_an_identity_that_acs_forgot_to_name_is_an_unexpected_answer_and_the_next_call_works(
    serve: Serve, local_azure: LocalAzure, bearer: Bearer
) -> None:
    async with serve("sqlite") as client:
        local_azure.acs.faults.script("create_identity", Fault(status=201, body={"identity": {}}))  # 10
        expected = (502, "unexpected_upstream_answer")
        assert await told(await client.post("/api/user", headers=bearer("alex"))) == expected
        assert (await client.post("/api/user", headers=bearer("alex"))).status_code == 201


@pytest.mark.parametrize("code", ["Forbidden", "UserLicenseNotPresentForbidden", "Odd"])
async def test_a_teams_user_whom_acs_does_not_let_in_is_told_so(
    serve: Serve, local_azure: LocalAzure, bearer: Bearer, written: io.StringIO, code: str
) -> None:
    refused = Fault(status=403, body={"error": {"code": code, "message": "?"}}, headers={"MS-CV": "cv.0"})
    local_azure.acs.faults.script("exchange_teams_token", refused)  # 16
    headers = {**bearer("alex"), "teams-user-aad-token": local_azure.entra.teams_token("alex")}
    async with serve("sqlite") as client:
        assert await told(await client.get("/api/token/teams", headers=headers)) == (403, "teams_user_not_allowed")
    (line,) = refusals(written)
    assert (line["upstream"], line["operation"], line["status"]) == ("acs", "exchange_teams_token", 403)
    assert (line["upstream_code"], line["correlation_id"]) == (code, "cv.0")
    assert "licence" in line["advice"]


NO_CONTENT_TYPE = Fault(status=500, body="x", content_type="", times=None)


def soon_expired(local_azure: LocalAzure, audience: str) -> Fault:
    """A token that Cosmos DB takes and that its client holds for expired."""
    token = local_azure.entra.managed_identity_token(audience)
    body = {
        "access_token": token,
        "expires_on": str(int(time.time()) - 1),
        "resource": audience,
        "token_type": "Bearer",
    }
    return Fault(status=200, body=body, times=None)


async def test_a_managed_identity_in_trouble_is_passing_trouble_of_its_own(
    serve: Serve, local_azure: LocalAzure, bearer: Bearer, written: io.StringIO
) -> None:
    identity = local_azure.entra.faults
    identity.script("managed_identity_token", soon_expired(local_azure, "https://localhost"))
    async with serve("cosmos", secrets=False) as client:
        identity.clear()
        identity.script("managed_identity_token", NO_CONTENT_TYPE)  # 50
        assert await told(await client.get("/api/user", headers=bearer("alex"))) == (503, "service_unavailable")
        identity.clear()
        assert await told(await client.get("/api/user", headers=bearer("alex"))) == (404, "identity_not_found")
    (line,) = refusals(written)
    assert (line["upstream"], line["operation"], line["status"]) == ("managed_identity", "token", 500)
    assert "Traceback" not in written.getvalue()


async def test_a_start_without_the_managed_identity_ends_with_one_sentence_that_names_it(
    local_azure: LocalAzure, tmp_path: Path
) -> None:
    local_azure.entra.faults.script("managed_identity_token", NO_CONTENT_TYPE)  # 50
    secrets = local_azure.service_environment().keys() - local_azure.service_environment(secrets=False).keys()
    environment = environment_for(local_azure, tmp_path, "cosmos") | local_azure.service_environment(secrets=False)
    environment = {name: value for name, value in environment.items() if name not in secrets}
    status, _, errors = await finished(await python(environment, *BRIEFLY_STARTED))
    assert status == 1
    assert "managed identity" in errors.splitlines()[-1], errors
    assert "Traceback" not in errors
    assert local_azure.entra.faults.counts["managed_identity_token"] == 4


@pytest.mark.parametrize("storage", ["sqlite", "cosmos", "graph"])
async def test_doctor_names_the_managed_identity_when_it_is_refused_and_nothing_else(
    local_azure: LocalAzure, tmp_path: Path, storage: str
) -> None:
    local_azure.entra.faults.script(
        "managed_identity_token", Fault(status=403, body="", content_type="", times=None)
    )  # 51
    secrets = local_azure.service_environment().keys() - local_azure.service_environment(secrets=False).keys()
    environment = environment_for(local_azure, tmp_path, storage) | local_azure.service_environment(secrets=False)
    environment = {name: value for name, value in environment.items() if name not in secrets}
    status, output, _ = await finished(await acs_auth(environment, "doctor", "--json"))
    assert status == 1
    findings = json.loads(output)["findings"]
    (failed,) = [finding for finding in findings if finding["state"] == "failed"]
    assert failed["check"] == f"managed identity {MANAGED_IDENTITY.client_id}"
    assert "ENTRA_MANAGED_IDENTITY_CLIENT_ID" in failed["remedy"]
    assert "ACS_CONNECTION_STRING" not in output
