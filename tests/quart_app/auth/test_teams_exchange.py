"""The Teams exchange end to end: what is checked before ACS is asked, what ACS says, and how callers hear of it."""

import asyncio
from collections.abc import Callable
from typing import Any

import aiohttp
import jwt
import pytest
from quart import Response
from quart.typing import TestClientProtocol as Client
from werkzeug.datastructures import Headers

from local_azure.entra import Entra
from local_azure.entra.directory import BROWSER, DAEMON, HOME_TENANT, OTHER_TENANT, TEAMS
from local_azure.environment import LocalAzure
from local_azure.faults import Fault
from local_azure.keys import new_rsa_key
from quart_app.app import create_app
from quart_app.settings import load_settings
from tests.quart_app.conftest import Bearer
from tests.support.answers import error_of
from tests.support.running_service import served

HEADER = "teams-user-aad-token"
EXCHANGE = "exchange_teams_token"
ACS_RESOURCE_ID = "1fd5118e-2576-4263-8130-9503064c837a"
MANAGE_CALLS, MANAGE_CHATS = "Teams.ManageCalls", "Teams.ManageChats"

# Every refusal of the exchange in the recorded sessions of azure-sdk-for-python (communication-identity,
# tests/recordings/test_communication_identity_client…teams_user…), and what the caller hears of it.
RECORDED: dict[str, tuple[int, dict[str, str], tuple[int, str]]] = {
    "token that is not valid": (
        401,
        {"code": "InvalidAccessToken", "message": "Provided access token is not valid."},
        (401, "teams_token_token"),
    ),
    "application id that is missing": (
        400,
        {"code": "ValidationError", "message": "AppId: The AppId field is required.", "target": "AppId"},
        (400, "teams_token_client"),
    ),
    "application id that is malformed": (
        400,
        {"code": "ValidationError", "message": "Provided AppId has invalid format.", "target": "appId"},
        (400, "teams_token_client"),
    ),
    "another application": (
        400,
        {"code": "ValidationError", "message": "AAD application is not the expected one.", "target": "appId"},
        (400, "teams_token_client"),
    ),
    "user id that is malformed": (
        400,
        {"code": "ValidationError", "message": "Provided UserId has invalid format.", "target": "userId"},
        (403, "teams_token_user"),
    ),
    "another user": (
        400,
        {
            "code": "ValidationError",
            "message": "Provided AAD token issued for unexpected user.",
            "target": "userId",
        },
        (403, "teams_token_user"),
    ),
    "key that is refused": (
        401,
        {"code": "Denied", "message": "Denied by the resource provider."},
        (502, "upstream_credentials_rejected"),
    ),
}


def changed(**claims: Any) -> Callable[[Entra], str]:
    """Alex's Teams token with other claims, really signed; `None` leaves one out."""
    return lambda entra: entra.teams_token("alex", **claims)


def a_strangers(entra: Entra) -> str:
    token = entra.teams_token("alex")
    return jwt.encode(
        jwt.decode(token, options={"verify_signature": False}),
        new_rsa_key(),
        algorithm="RS256",
        headers={"kid": jwt.get_unverified_header(token)["kid"]},
    )


REFUSED: dict[str, tuple[Callable[[Entra], str], tuple[int, str]]] = {
    "nothing": (lambda _: "", (400, "teams_token_missing")),
    "no token": (lambda _: "hello", (401, "teams_token_token")),
    "a scheme and a token": (lambda entra: f"Bearer {entra.teams_token('alex')}", (401, "teams_token_token")),
    "a stranger's signature": (a_strangers, (401, "teams_token_token")),
    "an algorithm with a shared secret": (
        lambda entra: jwt.encode(
            jwt.decode(entra.teams_token("alex"), options={"verify_signature": False}), "x" * 32, algorithm="HS256"
        ),
        (401, "teams_token_token"),
    ),
    "an expired token": (lambda entra: entra.teams_token("alex", lifetime=-600), (401, "teams_token_token")),
    "an id token": (changed(scp=None, aud=TEAMS.client_id), (401, "teams_token_audience")),
    "the token for this API": (lambda entra: entra.access_token("alex"), (401, "teams_token_audience")),
    "a token for Microsoft Graph": (changed(aud="https://graph.microsoft.com"), (401, "teams_token_audience")),
    "an audience that begins like ACS's": (
        changed(aud="https://auth.msft.communication.azure.com.evil.example"),
        (401, "teams_token_audience"),
    ),
    "the audience of ACS's own API": (changed(aud="https://communication.azure.com"), (401, "teams_token_audience")),
    "an app-only token": (
        lambda entra: entra.app_only_token(DAEMON, scope="https://auth.msft.communication.azure.com/.default"),
        (401, "teams_token_token"),
    ),
    "another user's token": (lambda entra: entra.teams_token("megan"), (403, "teams_token_user")),
    "a token of another tenant": (lambda entra: entra.teams_token("nestor"), (401, "teams_token_token")),
    "the caller's object id in another tenant": (
        changed(tid=OTHER_TENANT.tenant_id, iss=f"https://sts.windows.net/{OTHER_TENANT.tenant_id}/"),
        (401, "teams_token_token"),
    ),
    "another user and another client": (
        lambda entra: entra.teams_token("megan", client=BROWSER),
        (403, "teams_token_user"),
    ),
    "another client": (lambda entra: entra.teams_token("alex", client=BROWSER), (400, "teams_token_client")),
    "no client": (changed(appid=None), (400, "teams_token_client")),
    "neither scope": (lambda entra: entra.teams_token("alex", scope="openid"), (403, "teams_token_scope")),
    "no scope": (lambda entra: entra.teams_token("alex", scope=""), (403, "teams_token_scope")),
}


async def exchange(client: Client, bearer: Bearer, token: str | None, user: str = "alex") -> Response:
    headers = bearer(user) | ({} if token is None else {HEADER: token})
    answer: Response = await client.get("/api/token/teams", headers=headers)
    return answer


def version_two(entra: Entra) -> str:
    """The same Teams token as a v2 registration would get it: another issuer, `azp`, the resource by its id."""
    claims = jwt.decode(entra.teams_token("alex"), options={"verify_signature": False})
    claims |= {
        "aud": ACS_RESOURCE_ID,
        "azp": claims.pop("appid"),
        "iss": f"{entra.url}/{HOME_TENANT.tenant_id}/v2.0",
        "ver": "2.0",
    }
    return entra.sign(claims)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("path", ["/api/token/teams", "/exchangeToken"])
async def test_the_callers_own_teams_token_is_exchanged_for_the_same_users_acs_token(
    client: Client, bearer: Bearer, local_azure: LocalAzure, version: int, path: str
) -> None:
    entra = local_azure.entra
    token = entra.teams_token("alex") if version == 1 else version_two(entra)
    answer = await client.get(path, headers={**bearer("alex"), HEADER: token})
    body = await answer.get_json()
    assert answer.status_code == 201
    assert set(body) == {"token", "expiresOn"}
    issued = local_azure.acs.verify_token(body["token"])
    assert issued["skypeid"] == f"orgid:{entra.users['alex'].object_id}"
    assert issued["exp"] == jwt.decode(token, options={"verify_signature": False})["exp"]
    assert local_azure.acs.live_identities() == []  # a Teams user needs no ACS identity


@pytest.mark.parametrize("case", REFUSED)
async def test_a_refusal_names_the_part_that_is_wrong_and_acs_is_not_asked(
    client: Client, bearer: Bearer, local_azure: LocalAzure, case: str
) -> None:
    make, expected = REFUSED[case]
    token = make(local_azure.entra)
    answer = await exchange(client, bearer, token)
    assert await error_of(answer) == expected
    assert len(token) < 40 or token not in (await answer.get_data(as_text=True))
    assert answer.headers.get("WWW-Authenticate", "").startswith("Bearer") == (answer.status_code == 401)
    assert local_azure.acs.faults.counts[EXCHANGE] == 0


async def test_without_the_header_the_answer_names_it(client: Client, bearer: Bearer) -> None:
    answer = await exchange(client, bearer, None)
    assert await error_of(answer) == (400, "teams_token_missing")
    assert HEADER in await answer.get_data(as_text=True)


async def test_two_teams_tokens_are_none(client: Client, bearer: Bearer, local_azure: LocalAzure) -> None:
    token = local_azure.entra.teams_token("alex")
    headers = Headers([*bearer("alex").items(), (HEADER, token), (HEADER, token)])
    answer = await client.get("/api/token/teams", headers=headers)
    assert await error_of(answer) == (401, "teams_token_token")


@pytest.mark.parametrize("scope", [MANAGE_CALLS, MANAGE_CHATS, f"{MANAGE_CALLS} {MANAGE_CHATS}"])
async def test_one_of_the_scopes_is_enough(client: Client, bearer: Bearer, local_azure: LocalAzure, scope: str) -> None:
    answer = await exchange(client, bearer, local_azure.entra.teams_token("alex", scope=scope))
    assert answer.status_code == 201


@pytest.mark.parametrize("case", RECORDED)
async def test_every_recorded_refusal_of_acs_is_translated(
    client: Client, bearer: Bearer, local_azure: LocalAzure, case: str
) -> None:
    status, error, expected = RECORDED[case]
    local_azure.acs.faults.script(EXCHANGE, Fault(status=status, body={"error": error}))
    answer = await exchange(client, bearer, local_azure.entra.teams_token("alex"))
    assert await error_of(answer) == expected
    assert error["message"] not in await answer.get_data(as_text=True)
    assert local_azure.acs.faults.counts[EXCHANGE] == 1


async def test_a_guest_of_the_callers_tenant_is_told_what_acs_says(
    client: Client, bearer: Bearer, local_azure: LocalAzure
) -> None:
    """Whether ACS exchanges a guest's token is not documented; here nothing speaks against it."""
    answer = await exchange(client, bearer, local_azure.entra.teams_token("guest"), user="guest")
    assert answer.status_code == 201


async def test_an_exchange_that_acs_is_too_busy_for_is_repeated(
    client: Client, bearer: Bearer, local_azure: LocalAzure
) -> None:
    local_azure.acs.faults.script(EXCHANGE, Fault(status=429, headers={"Retry-After": "0"}), Fault(status=503))
    answer = await exchange(client, bearer, local_azure.entra.teams_token("alex"))
    assert answer.status_code == 201
    assert local_azure.acs.faults.counts[EXCHANGE] == 3


@pytest.mark.parametrize(
    ("allowed", "status"),
    [((BROWSER, TEAMS), 201), ((TEAMS, BROWSER), 201), ((TEAMS,), 400), ((BROWSER,), 201)],
    ids=["first", "last", "missing", "alone"],
)
async def test_several_clients_may_be_allowed(
    local_azure: LocalAzure,
    settings: object,
    monkeypatch: pytest.MonkeyPatch,
    bearer: Bearer,
    allowed: tuple[Any, ...],
    status: int,
) -> None:
    monkeypatch.setenv("TEAMS_CLIENT_IDS", ", ".join(client.client_id.upper() for client in allowed))
    async with create_app(load_settings(None)) as app:
        token = local_azure.entra.teams_token("alex", client=BROWSER)
        assert (await exchange(app.test_client(), bearer, token)).status_code == status


async def test_without_teams_clients_the_answer_names_the_setting(
    local_azure: LocalAzure, settings: object, monkeypatch: pytest.MonkeyPatch, bearer: Bearer
) -> None:
    monkeypatch.delenv("TEAMS_CLIENT_IDS")
    async with create_app(load_settings(None)) as app:
        for token in (None, "x", local_azure.entra.teams_token("alex")):
            answer = await exchange(app.test_client(), bearer, token)
            assert await error_of(answer) == (501, "teams_exchange_not_configured")
            assert "TEAMS_CLIENT_IDS" in await answer.get_data(as_text=True)
    assert local_azure.acs.faults.counts[EXCHANGE] == 0


async def test_two_large_tokens_fit_into_one_request_over_http(local_azure: LocalAzure, settings: Any) -> None:
    """A user in many groups has tokens of several KiB; up to 16 KiB each are taken."""
    entra = local_azure.entra
    access, teams = entra.access_token("alex", filler="x" * 11_000), entra.teams_token("alex", filler="x" * 11_000)
    assert 15_000 < len(access) < 16_384
    assert 15_000 < len(teams) < 16_384
    async with create_app(settings) as app, served(app) as address, aiohttp.ClientSession() as session:
        headers = {"Authorization": f"Bearer {access}", HEADER: teams}
        async with session.get(f"{address}/api/token/teams", headers=headers) as answer:
            assert answer.status == 201


async def test_callers_at_the_same_time_each_get_their_own(
    client: Client, bearer: Bearer, local_azure: LocalAzure
) -> None:
    users = ["alex", "megan", "pradeep"] * 5
    answers = await asyncio.gather(
        *(exchange(client, bearer, local_azure.entra.teams_token(user), user) for user in users)
    )
    for user, answer in zip(users, answers, strict=True):
        issued = local_azure.acs.verify_token((await answer.get_json())["token"])
        assert issued["skypeid"] == f"orgid:{local_azure.entra.users[user].object_id}"
