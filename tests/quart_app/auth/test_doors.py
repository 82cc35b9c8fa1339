"""Two doors: users of Entra ID and those of one other issuer call the same service, each by their own rules."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st
from openapi_spec_validator import validate

from local_azure.entra.directory import API, HOME_TENANT, USERS
from local_azure.environment import LocalAzure
from local_azure.faults import Fault
from quart_app.auth.doors import Door, OpenDoor, check_keys, chosen_door
from quart_app.auth.entra_tokens import EntraTokens
from quart_app.auth.key_sets import SigningKey
from quart_app.auth.oidc_tokens import OidcTokens
from quart_app.auth.rules import Content
from quart_app.auth.signing_keys import SigningKeys, SigningKeysUnavailable
from quart_app.auth.subjects import is_nobody
from quart_app.settings import DoorName, InvalidSettings, callers, load_settings
from quart_app.settings.values import check_address, check_issuer
from quart_app.telemetry.pseudonyms import Pseudonyms
from storage.cosmos_items import item_id
from storage.mapping import UserKey
from tests.support.service_process import PATIENCE_SECONDS
from tests.support.token_service import ACCEPTED, OidcService, oidc_service

ALEX, HOME = USERS["alex"].object_id, HOME_TENANT.tenant_id
UNAVAILABLE = (503, "service_unavailable", "")
DAY = 24 * 3600
Start = Callable[..., Any]


@pytest.fixture
def start(
    local_azure: LocalAzure,
    state_directory: Path,
    signing_keys: list[rsa.RSAPrivateKey],
    monkeypatch: pytest.MonkeyPatch,
) -> Start:
    """Start the service with both doors. The other issuer's user is called what Alex is called in Entra ID."""
    claims = {"aud": "api", "sub": ALEX, "tid": HOME, "oid": ALEX, "scope": "access"}

    def begun(**settings: str) -> Any:
        directory, key = state_directory.parent, signing_keys[-1]
        given: dict[str, Any] = {**local_azure.service_environment(), **settings}
        return oidc_service(monkeypatch, local_azure, directory, key, claims, **given)

    return begun


@pytest.fixture
async def service(start: Start) -> AsyncIterator[OidcService]:
    async with start() as running:
        yield running


async def answered(
    service: OidcService, token: str, method: str, path: str, **headers: str
) -> tuple[int, dict[str, Any]]:
    sent = {"Authorization": f"Bearer {token}", **headers}
    async with service.session.request(method, f"{service.address}{path}", headers=sent) as answer:
        body = await answer.read()
        return answer.status, json.loads(body) if body else {}


async def created(service: OidcService, token: str) -> str:
    status, body = await answered(service, token, "POST", "/api/user")
    assert status == 201
    return str(body["acsUserIdentity"])


async def test_the_same_subject_at_both_doors_is_two_users_with_an_identity_each(
    service: OidcService, local_azure: LocalAzure
) -> None:
    by_entra, by_oidc = local_azure.entra.access_token("alex"), service.issuer.token()
    theirs = await created(service, by_entra)
    assert await service.get(by_oidc) == ACCEPTED  # nothing of the other Alex's is found
    others = await created(service, by_oidc)
    assert theirs != others
    assert (await answered(service, by_entra, "DELETE", "/api/user"))[0] == 204
    assert await answered(service, by_oidc, "GET", "/api/user") == (200, {"acsUserIdentity": others})
    assert local_azure.acs.live_identities() == [others]


async def test_each_door_asks_for_its_own_audience_and_scope(service: OidcService, local_azure: LocalAzure) -> None:
    entra, issuer = local_azure.entra, service.issuer
    for token, expected in (
        (entra.access_token("alex", aud="api"), (401, "invalid_token", "audience")),
        (entra.access_token("alex", scope="access"), (403, "insufficient_scope", "scope")),
        (issuer.token(aud=API.client_id), (401, "invalid_token", "audience")),
        (issuer.token(aud=[API.client_id, "api"]), ACCEPTED),
        (issuer.token(scope="access_as_user"), (403, "insufficient_scope", "scope")),
    ):
        assert await service.get(token) == expected


async def test_callers_of_each_door_get_what_their_door_allows(start: Start, local_azure: LocalAzure) -> None:
    async with start(OIDC_ACS_TOKEN_SCOPES="voip.join", ACS_TOKEN_REUSE_MINUTES="30") as service:
        tokens = {"entra": local_azure.entra.access_token("alex"), "oidc": service.issuer.token()}
        scopes = {}
        for _ in range(2):  # the second time from memory
            for door, token in tokens.items():
                await answered(service, token, "POST", "/api/user")
                status, body = await answered(service, token, "GET", "/api/token")
                assert status == 201
                scopes[door] = local_azure.acs.verify_token(body["token"])["acsScope"]
            assert scopes == {"entra": "chat,voip", "oidc": "voip.join"}
        assert local_azure.acs.faults.counts["issue_access_token"] == 2
        for door, status in (("entra", 201), ("oidc", 400)):
            found, body = await answered(service, tokens[door], "GET", "/api/token?scope=voip")
            assert found == status
        assert body["error"] == "scope_not_allowed"
        assert "voip.join." in body["message"]


async def test_one_issuer_that_is_down_costs_the_other_door_nothing(
    service: OidcService, local_azure: LocalAzure
) -> None:
    entra, issuer, clock = local_azure.entra, service.issuer, service.clock
    configurations = ("openid_configuration_v1", "openid_configuration_v2")

    issuer.down = True
    clock.advance(DAY + 1)  # by now every key that was not fetched again is dead
    assert await service.get(issuer.token()) == UNAVAILABLE
    assert await service.get(entra.access_token("alex")) == ACCEPTED
    assert await service.ready() == 200

    for operation in configurations:
        entra.faults.script(operation, Fault(status=503, times=None))
    clock.advance(DAY + 1)
    assert await service.get(issuer.token()) == UNAVAILABLE
    assert await service.get(entra.access_token("alex")) == UNAVAILABLE
    assert await service.ready() == 503

    issuer.down = False
    clock.advance(60)
    assert await service.get(issuer.token()) == ACCEPTED
    assert await service.get(entra.access_token("alex")) == UNAVAILABLE
    assert await service.ready() == 200


class Checked(SigningKeys):
    """Keys of which only the outcome of a check counts."""

    def __init__(self, outcome: str) -> None:
        self.outcome = outcome

    async def check(self) -> None:
        if self.outcome == "silent":
            await asyncio.Event().wait()
        if self.outcome == "down":
            raise SigningKeysUnavailable(10)


def door_with(door: Any, outcome: str) -> OpenDoor:
    return OpenDoor(door, Checked(outcome))


@pytest.mark.parametrize("outcomes", [("good", "silent"), ("silent", "good"), ("down", "good"), ("good", "down")])
async def test_readiness_needs_the_keys_of_one_door_and_waits_for_no_other(outcomes: tuple[str, str]) -> None:
    await check_keys([door_with(None, outcome) for outcome in outcomes])


async def test_without_the_keys_of_any_door_the_service_is_not_ready() -> None:
    with pytest.raises(SigningKeysUnavailable):
        await check_keys([door_with(None, "down"), door_with(None, "down")])


async def test_a_token_of_neither_issuer_is_judged_by_entra_ids_door(
    service: OidcService, local_azure: LocalAzure
) -> None:
    entra, issuer = local_azure.entra, service.issuer
    for iss in ("https://evil.example", f"{issuer.issuer}/", issuer.issuer.upper(), None, [issuer.issuer]):
        assert await service.get(issuer.token(iss=iss)) == (401, "invalid_token", "key_unknown")
        if not isinstance(iss, list):
            assert await service.get(entra.access_token("alex", iss=iss)) == (401, "invalid_token", "issuer")


async def test_the_teams_exchange_is_for_entra_ids_users_only(service: OidcService, local_azure: LocalAzure) -> None:
    teams = {"teams-user-aad-token": local_azure.entra.teams_token("alex")}
    status, body = await answered(service, service.issuer.token(), "GET", "/api/token/teams", **teams)
    assert (status, body["error"]) == (501, "teams_exchange_not_offered")
    assert local_azure.acs.faults.counts["exchange_teams_token"] == 0
    status, _ = await answered(service, local_azure.entra.access_token("alex"), "GET", "/api/token/teams", **teams)
    assert status == 201


async def test_each_door_s_users_have_a_rate_limit_of_their_own(start: Start, local_azure: LocalAzure) -> None:
    async with start(RATE_LIMIT_REQUESTS_PER_MINUTE="1") as service:
        assert await service.get(local_azure.entra.access_token("alex")) == ACCEPTED
        assert await service.get(service.issuer.token()) == ACCEPTED
        assert (await service.get(service.issuer.token(jti="2")))[0] == 429


async def test_clients_are_told_of_both_issuers(service: OidcService, local_azure: LocalAzure) -> None:
    async with service.session.get(f"{service.address}/.well-known/oauth-protected-resource/api/user") as answer:
        told = await answer.json()
    assert told["authorization_servers"] == [f"{local_azure.entra.url}/{HOME}/v2.0", service.issuer.issuer]
    assert told["scopes_supported"] == [f"api://{API.client_id}/access_as_user", "access"]
    for path, schemes in (
        ("/openapi.json", ["entra", "oidc", "token"]),
        ("/docs/openapi.json", ["entra", "oidc", "token"]),
    ):
        async with service.session.get(f"{service.address}{path}") as answer:
            document = await answer.json()
        validate(document)
        assert list(document["components"]["securitySchemes"]) == schemes
        assert [next(iter(each)) for each in document["security"]] == schemes
    async with service.session.get(f"{service.address}/docs") as page:
        assert f"{local_azure.entra.url} {service.issuer.url};" in page.headers["Content-Security-Policy"]


async def test_the_access_line_says_by_which_door_a_token_came(
    service: OidcService, local_azure: LocalAzure, caplog: pytest.LogCaptureFixture
) -> None:
    tokens = [
        local_azure.entra.access_token("alex"),
        service.issuer.token(),
        service.issuer.token(aud="other"),
        "no token",
    ]
    for token in tokens:
        await service.get(token)
    lines: list[dict[str, str]] = []
    async with asyncio.timeout(PATIENCE_SECONDS):
        while len(lines) < len(tokens):  # a line may be written after its answer
            await asyncio.sleep(0.01)
            told = [record.msg for record in caplog.records if record.name == "quart_app.access"]
            lines = [line for line in told if isinstance(line, dict)]
    assert {(line.get("door"), line.get("reason")) for line in lines} == {
        ("entra", None),
        ("oidc", None),
        ("oidc", "audience"),
        (None, "malformed"),
    }


def opened(issuer: str | None) -> OpenDoor:
    door = Door(DoorName.OIDC, (), issuer, OidcTokens("x"), (), (), (), (), (), (), None, ())
    return OpenDoor(door, Checked("good"))


def test_what_can_not_be_read_is_judged_by_the_first_door() -> None:
    doors = [opened(None), opened("https://id.example.com")]
    for token in ("", ".", "..", "a.b.c", "x" * 20_000, "é.e30.x", "e30.e30.e30", "e30.W10.e30"):
        assert chosen_door(token, doors) is doors[0]


GUIDS = st.uuids().map(str) | st.uuids().map(lambda value: str(value).upper()) | st.just(ALEX) | st.just(HOME)
SUBJECTS = (
    st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=255)
    | GUIDS
    | st.just(f"{HOME}:{ALEX}")
    | st.just(f"{HOME}\n{ALEX}")
)
ISSUERS = st.builds(
    lambda host, path: f"https://{host}{path}",
    st.sampled_from(["id.example.com", HOME, f"{HOME}.ciamlogin.com", "login.microsoftonline.com"]),
    st.sampled_from(["", "/", f"/{HOME}", f"/{HOME}/v2.0", f"/{HOME}:{ALEX}", "/a:b"]),
)


def caller_of(rules: EntraTokens | OidcTokens, **claims: Any) -> UserKey | None:
    """Who the token's user is, `None` where it breaks a rule."""
    content = Content({}, {"aud": "api", "exp": 4_000_000_000, "scp": "access", **claims})
    if not all(rule.holds(content) for rule in rules.rules):
        return None
    return rules.read(content, SigningKey("one", None, "issuer", None)).user  # type: ignore[arg-type]


@given(tenant=GUIDS, object_id=GUIDS, issuer=ISSUERS, subject=SUBJECTS)
def test_no_user_of_one_door_has_the_mapping_of_a_user_of_the_other(
    tenant: str, object_id: str, issuer: str, subject: str
) -> None:
    """Whatever the tokens say: key, item in Cosmos DB and name in the log are others."""
    check_issuer(check_address(issuer))
    theirs = caller_of(EntraTokens([tenant], "https://login.microsoftonline.com"), tid=tenant, oid=object_id)
    others = caller_of(OidcTokens(issuer), sub=subject, tid=tenant, oid=object_id)
    assert (theirs is None) == is_nobody(object_id)
    if theirs is None or others is None:
        return
    name = Pseudonyms("key").of
    assert theirs != others
    assert item_id(theirs) != item_id(others)
    assert name(theirs) != name(others)


SOUND = {
    "ENTRA_TENANT_ID": HOME,
    "ENTRA_CLIENT_ID": API.client_id,
    "TEAMS_CLIENT_IDS": API.client_id,
    "OIDC_ISSUER": "https://id.example.com/",
    "OIDC_AUDIENCE": "api",
    "OIDC_REQUIRED_SCOPE": "access",
    "ACS_CONNECTION_STRING": "endpoint=https://contoso.communication.azure.com/;accesskey=c2VjcmV0LWtleQ==",
    "STORAGE_BACKEND": "sqlite",
}


@pytest.fixture
def sound(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name, value in SOUND.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def test_both_complete_sets_of_settings_are_two_doors(sound: pytest.MonkeyPatch) -> None:
    settings = load_settings(None)
    assert settings.doors == (DoorName.ENTRA, DoorName.OIDC)
    assert callers(settings) == (
        f"users of Microsoft Entra ID, tenant {HOME}, with an access token for {API.client_id} or "
        f"api://{API.client_id} and the scope access_as_user; and users of https://id.example.com/, known by the claim "
        "sub, with an access token for api and the scope access"
    )


CONTRADICTIONS: dict[str, tuple[dict[str, str], str]] = {
    "half a registration": ({"ENTRA_CLIENT_ID": ""}, "With OIDC_ISSUER leave out ENTRA_TENANT_ID: only that issuer's"),
    "the Graph store": (
        {"STORAGE_BACKEND": "graph", "GRAPH_SEAL_KEYS": "A" * 44, "ENTRA_CLIENT_SECRET": "hush~hush"},
        "STORAGE_BACKEND=graph works only with users of Microsoft Entra ID",
    ),
    "more than the deployment allows": (
        {"ACS_TOKEN_SCOPES": "voip", "OIDC_ACS_TOKEN_SCOPES": "voip.join chat.join"},
        "OIDC_ACS_TOKEN_SCOPES holds chat.join, which ACS_TOKEN_SCOPES does not allow.",
    ),
    "no scope of ACS": ({"OIDC_ACS_TOKEN_SCOPES": "fly"}, "OIDC_ACS_TOKEN_SCOPES: must name one or more of"),
    "the same issuer twice": (
        {"OIDC_ISSUER": f"https://login.microsoftonline.com/{HOME}/v2.0"},
        "OIDC_ISSUER is the issuer of a tenant of Microsoft Entra ID whose users call",
    ),
    "its older form": (
        {"OIDC_ISSUER": f"https://sts.windows.net/{HOME}/"},
        "OIDC_ISSUER is the issuer of a tenant of Microsoft Entra ID whose users call",
    ),
}


@pytest.mark.parametrize("case", CONTRADICTIONS)
def test_contradictions_between_the_doors_are_found_at_start(sound: pytest.MonkeyPatch, case: str) -> None:
    given, sentence = CONTRADICTIONS[case]
    sound.delenv("TEAMS_CLIENT_IDS")
    for name, value in given.items():
        sound.setenv(name, value)
    with pytest.raises(InvalidSettings) as caught:
        load_settings(None)
    assert len(caught.value.faults) == 1
    assert caught.value.faults[0].startswith(sentence)


def test_a_tenant_that_may_not_call_may_be_the_other_issuer(sound: pytest.MonkeyPatch) -> None:
    sound.setenv("OIDC_ISSUER", "https://login.microsoftonline.com/11112222-bbbb-3333-cccc-4444dddd5555/v2.0")
    assert len(load_settings(None).doors) == 2
