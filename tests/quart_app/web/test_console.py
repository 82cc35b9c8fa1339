"""What `/` is, and what the console is told: the page itself is tested in a browser, by `make browser`."""

import os
import re

import pytest
from quart import Response
from quart.typing import TestClientProtocol as Client

from local_azure.environment import LocalAzure
from local_azure.faults import Fault
from local_azure.port_choice import free_port
from quart_app.app import create_app
from quart_app.settings import load_settings
from quart_app.telemetry.served_request import MeasuredCall
from quart_app.web.observation import server_timing
from tests.quart_app.conftest import Bearer
from tests.support.answers import error_of

BROWSER_ACCEPT = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}


async def text_of(answer: Response) -> str:
    return str(await answer.get_data(as_text=True))


@pytest.fixture
def in_development(configured: pytest.MonkeyPatch) -> None:
    configured.setenv("ENVIRONMENT", "development")


@pytest.mark.parametrize(
    ("environment", "console", "shown"),
    [
        ("development", None, True),
        ("development", "false", False),
        ("production", None, False),
        ("production", "true", True),
    ],
)
async def test_the_console_is_at_the_root_in_development_or_where_it_is_switched_on(
    configured: pytest.MonkeyPatch, environment: str, console: str | None, shown: bool
) -> None:
    configured.setenv("ENVIRONMENT", environment)
    if console is not None:
        configured.setenv("CONSOLE", console)
    async with create_app(load_settings(None)) as app:
        client = app.test_client()
        root = await client.get("/")
        assert (root.status_code, root.mimetype) == (200, "text/html")
        assert ("/console/console.js" in await text_of(root)) == shown
        assert (await client.get("/console/console.js")).status_code == (200 if shown else 404)


@pytest.mark.usefixtures("in_development")
async def test_the_console_may_load_its_own_files_and_call_the_sign_in_and_nothing_else(
    client: Client, local_azure: LocalAzure
) -> None:
    root = await client.get("/")
    policy = root.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
    assert f"connect-src 'self' {local_azure.entra.url}" in policy
    assert "unsafe" not in policy
    page = await text_of(root)
    for address in re.findall(r'(?:src|href)="([^"]+)"', page):
        assert (await client.get(address)).status_code == 200, address
    assert "<style" not in page
    assert not re.search(r"<script[^>]*>[^<]", page)


@pytest.mark.usefixtures("in_development")
async def test_the_console_is_told_where_users_sign_in_and_which_calls_there_are(
    client: Client, local_azure: LocalAzure
) -> None:
    told = await (await client.get("/console/start.json")).get_json()
    assert told["signIn"]["token"].startswith(local_azure.entra.url)
    assert "GET /api/token" in told["operations"]
    assert told["explains"] is True


@pytest.mark.usefixtures("in_development")
async def test_until_the_issuer_told_where_users_sign_in_the_console_is_not_told_either(
    configured: pytest.MonkeyPatch,
) -> None:
    for name in [name for name in os.environ if name.startswith(("ENTRA_", "TEAMS_"))]:
        configured.delenv(name)
    issuer = {"OIDC_ISSUER": f"https://localhost:{free_port()}", "OIDC_AUDIENCE": "api", "OIDC_REQUIRED_SCOPE": "call"}
    for name, value in issuer.items():
        configured.setenv(name, value)
    async with create_app(load_settings(None)) as app:
        client = app.test_client()
        told = await (await client.get("/console/start.json")).get_json()
        policy = (await client.get("/")).headers["Content-Security-Policy"]
    assert told["signIn"] is None
    assert "GET /api/token" in told["operations"]
    assert policy.endswith("connect-src 'self'")


@pytest.mark.usefixtures("in_development")
@pytest.mark.parametrize("name", ["nothing.js", "index.html", "console", "..%2Fdocs.css"])
async def test_the_console_has_no_other_files(client: Client, name: str) -> None:
    assert await error_of(await client.get(f"/console/{name}")) == (404, "not_found")


def test_a_call_that_still_runs_when_the_answer_begins_is_not_told() -> None:
    finished = MeasuredCall("acs", "issue_token", seconds=0.0125, outcome="throttled", status=429, retries=2)
    running = MeasuredCall("acs", "delete_identity")
    assert server_timing([running, finished], 0.02) == (
        'acs;desc="issue_token";dur=12.5;outcome=throttled;retries=2;status=429, total;dur=20.0'
    )


@pytest.mark.usefixtures("in_development")
async def test_the_service_explains_a_token_rule_by_rule(
    client: Client, bearer: Bearer, local_azure: LocalAzure
) -> None:
    good = await (await client.post("/console/explanation", headers=bearer("alex"))).get_json()
    assert good["accepted"] is True
    assert {each["verdict"] for each in good["judged"]} == {"ok"}
    expired = {"Authorization": f"Bearer {local_azure.entra.access_token('alex', lifetime=-120)}"}
    bad = await (await client.post("/console/explanation", headers=expired)).get_json()
    assert (bad["accepted"], bad["reason"]) == (False, "expired")
    refused = [each["member"] for each in bad["judged"] if each["verdict"] == "refused"]
    assert refused == ["exp"]
    nothing = await (await client.post("/console/explanation")).get_json()
    assert (nothing["accepted"], nothing["reason"]) == (False, "malformed")


async def test_in_production_a_switched_on_console_explains_nothing_and_tells_no_timing(
    configured: pytest.MonkeyPatch, bearer: Bearer
) -> None:
    configured.setenv("CONSOLE", "true")
    async with create_app(load_settings(None)) as app:
        client = app.test_client()
        assert (await client.post("/console/explanation", headers=bearer("alex"))).status_code in (404, 405)
        assert (await (await client.get("/console/start.json")).get_json())["explains"] is False
        assert "Server-Timing" not in (await client.post("/api/user", headers=bearer("alex"))).headers


@pytest.mark.usefixtures("in_development")
async def test_in_development_an_answer_tells_of_each_upstream_call(
    client: Client, bearer: Bearer, local_azure: LocalAzure
) -> None:
    created = await client.post("/api/user", headers=bearer("alex"))
    upstreams = [call.partition(";")[0] for call in created.headers["Server-Timing"].split(", ")]
    assert [each for each in upstreams if each != "entra"] == ["store", "acs", "store", "total"]
    local_azure.acs.faults.script("issue_access_token", Fault(status=503), Fault(status=400, times=None))
    refused = await client.get("/api/token", headers=bearer("alex"))
    assert re.search(
        r'acs;desc="issue_token";dur=[\d.]+;outcome=\w+;retries=[1-9];status=400', refused.headers["Server-Timing"]
    )


async def test_a_browser_gets_a_page_for_an_unknown_path_and_a_program_gets_json(client: Client) -> None:
    page = await client.get("/nowhere", headers=BROWSER_ACCEPT)
    assert (page.status_code, page.mimetype) == (404, "text/html")
    for headers in ({}, {"Accept": "*/*"}, {"Accept": "application/json"}):
        answer = await client.get("/nowhere", headers=headers)
        assert (answer.status_code, answer.mimetype) == (404, "application/json")
    assert (await client.post("/nowhere", headers=BROWSER_ACCEPT)).mimetype == "application/json"


async def test_a_caller_without_an_identity_gets_json_in_a_browser_too(client: Client, bearer: Bearer) -> None:
    answer = await client.get("/api/user", headers={**bearer("alex"), **BROWSER_ACCEPT})
    assert (answer.status_code, answer.mimetype) == (404, "application/json")


@pytest.mark.parametrize("path", ["/favicon.ico", "/favicon.svg"])
async def test_there_is_an_icon(client: Client, path: str) -> None:
    assert (await client.get(path)).mimetype == "image/svg+xml"
