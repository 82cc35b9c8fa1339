"""`GET /api/token?scope=…&minutes=…`: what is issued is never more than asked, and never more than allowed."""

import pytest
from quart.typing import TestClientProtocol as Client

from local_azure.environment import LocalAzure
from tests.quart_app.conftest import Bearer
from tests.support.answers import error_of


@pytest.fixture
def configured(configured: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    configured.setenv("ACS_TOKEN_SCOPES", "chat.join,voip")
    configured.setenv("ACS_TOKEN_LIFETIME_MINUTES", "120")
    return configured


@pytest.mark.parametrize(
    ("query", "scopes", "minutes"),
    [
        ("", {"chat.join", "voip"}, 120),
        ("?scope=voip.join&minutes=60", {"voip.join"}, 60),
        ("?scope=voip%20chat.join.limited", {"voip", "chat.join.limited"}, 120),
        ("?scope=voip,chat.join", {"voip", "chat.join"}, 120),
        ("?scope=voip&scope=chat.join", {"voip", "chat.join"}, 120),
        ("?minutes=119", {"chat.join", "voip"}, 119),
        ("?unknown=1", {"chat.join", "voip"}, 120),
    ],
)
@pytest.mark.parametrize("path", ["/api/token", "/getToken"])
async def test_a_caller_gets_what_is_asked_for(
    client: Client, bearer: Bearer, local_azure: LocalAzure, path: str, query: str, scopes: set[str], minutes: int
) -> None:
    await client.post("/api/user", headers=bearer("alex"))
    answer = await client.get(f"{path}{query}", headers=bearer("alex"))
    assert answer.status_code == 201
    claims = local_azure.acs.verify_token((await answer.get_json())["token"])
    assert set(claims["acsScope"].split(",")) == scopes
    assert claims["exp"] - claims["iat"] == minutes * 60


@pytest.mark.parametrize(
    ("query", "error"),
    [
        ("?scope=chat", "scope_not_allowed"),
        ("?scope=voip%20chat", "scope_not_allowed"),
        ("?scope=voip&scope=chat", "scope_not_allowed"),
        ("?scope=", "scope_not_allowed"),
        ("?scope=VOIP", "scope_not_allowed"),
        ("?scope=voip%00", "scope_not_allowed"),
        ("?minutes=121", "lifetime_not_allowed"),
        ("?minutes=59", "lifetime_not_allowed"),
        ("?minutes=", "lifetime_not_allowed"),
        ("?minutes=60.5", "lifetime_not_allowed"),
        ("?minutes=-60", "lifetime_not_allowed"),
        ("?minutes=%D9%A6%D9%A0", "lifetime_not_allowed"),
        ("?minutes=60&minutes=120", "lifetime_not_allowed"),
        ("?minutes=" + "9" * 5000, "lifetime_not_allowed"),
    ],
)
async def test_more_than_is_allowed_is_refused_before_acs_is_asked(
    client: Client, bearer: Bearer, local_azure: LocalAzure, query: str, error: str
) -> None:
    await client.post("/api/user", headers=bearer("alex"))
    answer = await client.get(f"/api/token{query}", headers=bearer("alex"))
    assert await error_of(answer) == (400, error)
    assert local_azure.acs.faults.counts["issue_access_token"] == 0


async def test_who_is_not_signed_in_learns_nothing_of_what_is_allowed(client: Client) -> None:
    assert await error_of(await client.get("/api/token?scope=nonsense")) == (401, "invalid_token")
