"""Step-up from the policy to the client and back: MSAL in the service, Entra ID's conditions, Graph's revocations."""

import base64
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import jwt
import pytest
from quart import Quart
from quart.typing import TestClientProtocol as Client

from local_azure.entra.directory import HOME_TENANT
from local_azure.environment import LocalAzure
from local_azure.faults import Fault
from quart_app.app import create_app
from quart_app.settings import load_settings
from tests.support.answers import error_of
from tests.support.entra_client import Browser, authorization_request

CAPABLE = {"access_token": {"xms_cc": {"values": ["CP1"]}}}
REVOKED = json.dumps({"access_token": {"nbf": {"essential": True, "value": "1604106651"}}}, separators=(",", ":"))


@pytest.fixture
async def app(configured: pytest.MonkeyPatch) -> AsyncIterator[Quart]:
    configured.setenv("STORAGE_BACKEND", "graph")
    async with create_app(load_settings(None)) as app:
        yield app


class SinglePageApplication:
    """Signs Alex in as MSAL.js does and follows claims challenges the way Microsoft documents it."""

    def __init__(self, browser: Browser, *, capable: bool) -> None:
        self._browser = browser
        self._capabilities = CAPABLE if capable else {"access_token": {}}

    async def sign_in(self, challenge: Any = None, **more: str) -> dict[str, str]:
        """The Authorization header of a new token, which answers the challenge."""
        wanted = json.loads(json.dumps(self._capabilities))
        if challenge is not None:
            wanted["access_token"] |= json.loads(claims_of(challenge))["access_token"]
        answer = await self._browser.sign_in(claims=json.dumps(wanted), **more)
        return {"Authorization": f"Bearer {answer['access_token']}"}


@pytest.fixture
async def browser(local_azure: LocalAzure) -> AsyncIterator[Browser]:
    async with aiohttp.ClientSession() as http:
        yield Browser(http, local_azure.entra.url)


def parameters_of(answer: Any) -> dict[str, str]:
    """The challenge's parameters, read as naively as in Microsoft's documentation: commas end them, quoted or not.

    https://learn.microsoft.com/entra/identity-platform/app-resilience-continuous-access-evaluation
    """
    header = answer.headers["WWW-Authenticate"]
    assert "resource_metadata" not in header  # nothing is added: clients take a comma for the end of a parameter
    scheme, _, rest = header.partition(" ")
    assert scheme == "Bearer"
    pairs = [part.split("=", 1) for part in rest.split(",")]
    return {name.strip(): value.replace('"', "") for name, value in pairs}


def claims_of(answer: Any) -> str:
    return base64.b64decode(parameters_of(answer)["claims"]).decode()


async def test_a_capable_client_is_challenged_and_the_sign_in_with_the_claims_works_at_once(
    client: Client, local_azure: LocalAzure, browser: Browser
) -> None:
    page = SinglePageApplication(browser, capable=True)
    local_azure.entra.conditions.require_multi_factor(local_azure.entra.users["alex"])
    challenged = await client.post("/api/user", headers=await page.sign_in())
    assert await error_of(challenged) == (401, "insufficient_claims")
    parameters = parameters_of(challenged)
    assert parameters["error"] == "insufficient_claims"
    # A realm other than the empty one must be in the address, too.
    assert parameters["realm"] == HOME_TENANT.tenant_id
    assert parameters["authorization_uri"] == (f"{local_azure.entra.url}/{HOME_TENANT.tenant_id}/oauth2/v2.0/authorize")
    assert set(json.loads(claims_of(challenged))) == {"access_token"}
    created = await client.post("/api/user", headers=await page.sign_in(challenged))
    assert created.status_code == 201
    assert local_azure.acs.live_identities() == [(await created.get_json())["acsUserIdentity"]]


async def test_the_challenge_is_repeated_until_it_is_answered(
    client: Client, local_azure: LocalAzure, browser: Browser
) -> None:
    page = SinglePageApplication(browser, capable=True)
    header = await page.sign_in()
    local_azure.entra.conditions.require_multi_factor(local_azure.entra.users["alex"])
    for _ in range(2):
        assert await error_of(await client.get("/api/user", headers=header)) == (401, "insufficient_claims")
    assert local_azure.acs.all_identities() == []
    local_azure.entra.conditions.clear()
    assert (await client.get("/api/user", headers=header)).status_code == 404


@pytest.mark.parametrize("method", ["get", "post", "delete"])
async def test_a_client_that_does_not_know_challenges_is_told_in_words(
    client: Client, local_azure: LocalAzure, browser: Browser, method: str
) -> None:
    page = SinglePageApplication(browser, capable=False)
    local_azure.entra.conditions.require_multi_factor(local_azure.entra.users["alex"])
    refused = await getattr(client, method)("/api/user", headers=await page.sign_in())
    assert await error_of(refused) == (403, "step_up_required")
    assert "claims=" not in refused.headers["WWW-Authenticate"]
    assert "cp1" in (await refused.get_json())["message"]


async def consent(local_azure: LocalAzure) -> None:
    """Alex consents on Entra ID's page, as an interactive request with `prompt=consent` makes it ask."""
    address = f"{local_azure.entra.url}/{HOME_TENANT.tenant_id}/oauth2/v2.0/authorize"
    async with aiohttp.ClientSession() as http:
        asked = authorization_request(prompt="consent")
        async with http.post(address, params=asked, data={"user": "alex"}, allow_redirects=False) as answer:
            assert answer.status == 302


async def test_consent_that_is_given_works_at_once_with_the_same_token(
    client: Client, local_azure: LocalAzure, browser: Browser
) -> None:
    page = SinglePageApplication(browser, capable=True)
    header = await page.sign_in()
    local_azure.entra.conditions.remove_consent(local_azure.entra.users["alex"])
    for _ in range(2):
        assert await error_of(await client.post("/api/user", headers=header)) == (403, "consent_required")
    await consent(local_azure)
    assert (await client.post("/api/user", headers=header)).status_code == 201


async def test_one_users_challenge_is_nobody_elses(client: Client, local_azure: LocalAzure, browser: Browser) -> None:
    page = SinglePageApplication(browser, capable=True)
    local_azure.entra.conditions.require_multi_factor(local_azure.entra.users["alex"])
    assert (await client.post("/api/user", headers=await page.sign_in())).status_code == 401
    megan = await page.sign_in(login_hint="megan@contoso.localhost")
    assert (await client.post("/api/user", headers=megan)).status_code == 201


@pytest.mark.parametrize("capable", [True, False])
async def test_graph_may_revoke_only_what_a_capable_client_can_renew(
    client: Client, local_azure: LocalAzure, browser: Browser, capable: bool
) -> None:
    page = SinglePageApplication(browser, capable=capable)
    await client.get("/api/user", headers=await page.sign_in())
    sent = [call.headers["Authorization"] for call in local_azure.graph.faults.calls if "Authorization" in call.headers]
    [token] = sent
    claims = jwt.decode(token.removeprefix("Bearer "), options={"verify_signature": False})
    assert claims.get("xms_cc") == (["cp1"] if capable else None)


@pytest.mark.parametrize(
    ("capable", "expected"), [(True, (401, "insufficient_claims")), (False, (403, "step_up_required"))]
)
async def test_a_revocation_by_graph_reaches_the_client_and_the_revoked_token_is_not_used_again(
    client: Client, local_azure: LocalAzure, browser: Browser, capable: bool, expected: tuple[int, str]
) -> None:
    page = SinglePageApplication(browser, capable=capable)
    header = await page.sign_in()
    assert (await client.post("/api/user", headers=header)).status_code == 201
    tokens_before = local_azure.entra.faults.counts["token"]
    encoded = base64.b64encode(REVOKED.encode()).decode()
    challenge = f'Bearer authorization_uri="https://x", error="insufficient_claims", claims="{encoded}"'
    local_azure.graph.faults.script("get_me", Fault(status=401, headers={"WWW-Authenticate": challenge}))
    revoked = await client.get("/api/user", headers=header)
    assert await error_of(revoked) == expected
    if capable:
        assert claims_of(revoked) == REVOKED
        header = await page.sign_in(revoked)
        tokens_before += 1  # the browser's own
    assert (await client.get("/api/user", headers=header)).status_code == 200
    assert local_azure.entra.faults.counts["token"] == tokens_before + 1


@pytest.mark.parametrize(
    ("capabilities", "status"), [(["CP1"], 401), (["cp1", "other"], 401), (["other"], 403), ([], 403)]
)
async def test_the_capability_is_compared_without_regard_to_case(
    client: Client, local_azure: LocalAzure, capabilities: list[str], status: int
) -> None:
    local_azure.entra.conditions.require_multi_factor(local_azure.entra.users["alex"])
    token = local_azure.entra.access_token("alex", xms_cc=capabilities)
    answer = await client.get("/api/user", headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == status
