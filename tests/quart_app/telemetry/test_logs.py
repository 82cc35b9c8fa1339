"""Logs and readiness: what a request's line says, what never gets into it, and how readiness follows the store."""

import asyncio
import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from quart import Quart
from quart.typing import TestClientProtocol as Client

from local_azure.environment import LocalAzure
from local_azure.faults import Fault
from quart_app.auth.caller import Caller
from quart_app.settings import DoorName, Environment
from quart_app.telemetry.instruments import Telemetry
from quart_app.telemetry.logs import configure_logging
from quart_app.telemetry.pseudonyms import Pseudonyms
from quart_app.telemetry.served_request import ServedRequest, serving
from quart_app.web.observation import identify_requests, observing
from storage.mapping import UserKey
from tests.conftest import LOGS
from tests.quart_app.conftest import Bearer
from tests.support.acs_ids import acs_id
from tests.support.log_check import LogCheck

ACS_ID = acs_id("016a7064-0581-40b9-be73-6dde64d69d72_0000000f-31c8-6f1e-d68a-0848220037ba")
JWT = "eyJhbGciOiJSUzI1NiJ9.eyJvaWQiOiJzb21lb25lIn0.c2lnbmF0dXJl"


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[io.StringIO]:
    """What the production configuration writes to standard error."""
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    configure_logging(getattr(request, "param", Environment.PRODUCTION))
    yield stream
    configure_logging(Environment.PRODUCTION, LOGS)
    LOGS.read(stream.getvalue())


def access_lines(written: io.StringIO) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in written.getvalue().splitlines()]
    return [line for line in lines if line["event"] == "request"]


async def test_each_request_has_one_line_that_says_what_an_operator_asks_first(
    written: io.StringIO, client: Client, bearer: Bearer, local_azure: LocalAzure
) -> None:
    throttled = Fault(status=429, headers={"Retry-After": "0"}, times=2)
    local_azure.acs.faults.script("create_identity", throttled)
    await client.get("/api/token", headers={**bearer("alex"), "X-Request-Id": "request-1"})
    await client.post("/api/user", headers=bearer("alex"))
    await client.get("/api/token", headers=bearer("alex"))
    await client.get("/nowhere")
    missing, created, issued, nowhere = access_lines(written)
    assert missing["request_id"] == "request-1"
    assert (missing["method"], missing["route"], missing["status"]) == ("GET", "/api/token", 404)
    assert missing["error"] == "identity_not_found"
    assert (created["route"], created["status"], created["retries"]) == ("/api/user", 201, 2)
    assert created["upstream_calls"] == 3  # read, mint, write
    assert (issued["upstream_calls"], issued["retries"]) == (1, 0)  # issue
    assert (nowhere["route"], nowhere["status"], nowhere["upstream_calls"]) == ("(none)", 404, 0)
    assert "user" not in nowhere
    assert missing["user"] == created["user"] == issued["user"]
    assert all(line["duration_ms"] >= 0 and line["logger"] == "quart_app.access" for line in access_lines(written))


async def test_simultaneous_requests_do_not_mix_their_counts(
    written: io.StringIO, client: Client, bearer: Bearer
) -> None:
    names = ["alex", "megan", "pradeep", "zoe"]
    await asyncio.gather(*(client.post("/api/user", headers=bearer(name)) for name in names))
    lines = access_lines(written)
    assert len({line["user"] for line in lines}) == len(names)
    assert len({line["request_id"] for line in lines}) == len(names)
    calls = [line["upstream_calls"] for line in lines]
    assert sorted(calls)[:3] == [3, 3, 3]  # the first one may also have fetched the signing keys


async def test_a_method_of_thirty_thousand_characters_is_not_logged_whole(written: io.StringIO, client: Client) -> None:
    async with client.request("/api/user", method="A" * 30_000) as connection:
        await connection.send_complete()
    (line,) = access_lines(written)
    assert line["method"] == "A" * 20


async def test_the_platforms_probes_leave_no_line(written: io.StringIO, client: Client) -> None:
    for path in ("live", "ready", "startup"):
        await client.get(f"/health/{path}")
    assert access_lines(written) == []


async def test_a_request_whose_client_goes_away_has_its_line(written: io.StringIO) -> None:
    app = Quart(__name__)
    app.asgi_app = observing(Telemetry())(app.asgi_app)  # type: ignore[assignment,method-assign]
    identify_requests(app)
    arrived = asyncio.Event()

    @app.get("/slow")
    async def slow() -> str:
        arrived.set()
        await asyncio.Event().wait()
        return ""

    async with app.test_client().request("/slow") as connection:
        await arrived.wait()
        await connection.disconnect()
    (line,) = access_lines(written)
    assert (line["route"], line["status"]) == ("/slow", 499)


@pytest.mark.parametrize("written", list(Environment), indirect=True)
def test_a_librarys_careless_message_loses_its_secrets(written: io.StringIO) -> None:
    error = RuntimeError(f"https://acs.example/identities/{ACS_ID.replace(':', '%3A')}?token={JWT}")
    logging.getLogger("some.library").error("failed for %s with %s", ACS_ID, JWT, exc_info=error)
    text = written.getvalue()
    assert "RuntimeError" in text
    assert "016a7064" not in text
    assert "eyJ" not in text


@pytest.mark.parametrize("written", [Environment.DEVELOPMENT], indirect=True)
async def test_in_development_lines_are_for_people(written: io.StringIO, client: Client) -> None:
    await client.get("/nowhere")
    line = next(line for line in written.getvalue().splitlines() if "request" in line)
    assert not line.startswith("{")
    assert "status=404" in line


def test_what_a_call_adds_to_a_line_is_written(written: io.StringIO) -> None:
    logging.getLogger("quart_app.x").warning("told", extra={"operation": "create_identity"})
    assert json.loads(written.getvalue())["operation"] == "create_identity"


def test_a_line_names_the_request_that_it_is_written_for_and_the_user_once_known(written: io.StringIO) -> None:
    served = ServedRequest("GET", "request-1")
    with serving(served):
        logging.getLogger("quart_app.x").warning("before the token is verified")
        served.user = "0123456789abcdef"
        logging.getLogger("quart_app.x").warning("after it")
    logging.getLogger("quart_app.x").warning("for no request")
    lines = [json.loads(line) for line in written.getvalue().splitlines()]
    assert [(line.get("request_id"), line.get("user", "nobody")) for line in lines] == [
        ("request-1", "nobody"),
        ("request-1", "0123456789abcdef"),
        (None, "nobody"),
    ]


def test_callers_outside_of_a_request_are_noted_nowhere_and_are_no_error() -> None:
    served = ServedRequest("GET", "request-1")
    caller = Caller(UserKey("tenant", "alex"), access_token="", expires_at=0)
    pseudonyms, telemetry = Pseudonyms("key"), Telemetry()
    telemetry.came_by(DoorName.ENTRA)
    pseudonyms.note(caller)
    with serving(served):
        assert (served.door, served.user) == (None, None)
        telemetry.came_by(DoorName.ENTRA)
        pseudonyms.note(caller)
    assert (served.door, served.user) == ("entra", pseudonyms.of(caller.user))


def test_libraries_that_log_urls_are_kept_quiet(written: io.StringIO) -> None:
    logging.getLogger("azure.core.pipeline.policies.http_logging_policy").info("Request URL: https://…")
    logging.getLogger("azure.cosmos._GlobalEndpointManager").error("Database account could not be read")
    logging.getLogger("urllib3.connectionpool").warning("Connection pool is full")
    assert written.getvalue() == ""


def test_the_same_key_names_a_user_alike_and_another_key_otherwise() -> None:
    alex, megan = UserKey("tenant", "alex"), UserKey("tenant", "megan")
    first, same, other = Pseudonyms("key"), Pseudonyms("key"), Pseudonyms("another key")
    assert first.of(alex) == same.of(alex)
    assert len({first.of(alex), first.of(megan), other.of(alex), Pseudonyms().of(alex), Pseudonyms().of(alex)}) == 5


@pytest.mark.parametrize(
    "careless",
    [f"issued {JWT}", f"user {ACS_ID}", "endpoint=https://x/;accesskey=c2VjcmV0", "the object id abc"],
)
def test_the_check_of_all_log_lines_notices(careless: str) -> None:
    check = LogCheck()
    check.known.add("object id abc")
    logger = logging.Logger("careless")
    logger.addHandler(check)
    logger.warning("%s", careless)
    logger.warning("nothing", extra={"detail": careless})
    logger.error("failed", exc_info=RuntimeError(careless))
    check.read(careless)
    assert len({line.partition(": ")[2] for line in check.told()}) >= 4
    logger.warning("a harmless line")
    assert check.told() == []
