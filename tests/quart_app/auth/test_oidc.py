"""Users of another OpenID Connect issuer: the whole service against a real issuer over TLS, in several shapes."""

import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from openapi_spec_validator import validate
from quart import Quart
from quart.typing import TestClientProtocol as Client

from local_azure.environment import LocalAzure
from local_azure.keys import new_rsa_key
from quart_app.app import create_app
from quart_app.settings import InvalidSettings, load_settings, shown_settings
from storage.mapping import UserKey
from storage.sqlite import open_sqlite_store
from tests.support.answers import error_of
from tests.support.oidc_issuer import OidcIssuer, running_oidc_issuer

GUID = "11112222-bbbb-3333-cccc-4444dddd5555"
API = "00001111-aaaa-2222-bbbb-3333cccc4444"
SPA = "22223333-cccc-4444-dddd-5555eeee6666"
SCOPE = "access_as_user"
ALEX, MEGAN = "a1e5c0de-0001-4a6b-8f21-6d0c3b9e4f01", "a1e5c0de-0002-4a6b-8f21-6d0c3b9e4f02"


@dataclass(frozen=True)
class Shape:
    """How one product writes its issuer, where it describes itself, what it puts into access tokens.

    `issuer` is `None` where the issuer is the address that describes it, and `slash` where that ends with a slash.
    """

    path: str
    issuer: str | None
    claims: dict[str, Any]
    settings: dict[str, str]
    slash: bool = False


B2C = Shape(
    path="/contoso.onmicrosoft.com/B2C_1_signupsignin/v2.0",
    issuer=f"https://contoso.b2clogin.com/{GUID}/v2.0/",
    claims={"aud": API, "sub": ALEX, "scp": SCOPE, "azp": SPA, "tfp": "B2C_1_signupsignin", "ver": "1.0"},
    settings={"OIDC_AUDIENCE": API, "OIDC_REQUIRED_SCOPE": SCOPE},
)
EXTERNAL_ID = Shape(
    path=f"/{GUID}/v2.0",
    issuer=f"https://{GUID}.ciamlogin.com/{GUID}/v2.0",
    claims={"aud": API, "sub": "pairwise", "oid": ALEX, "tid": GUID, "scp": SCOPE, "azp": SPA, "ver": "2.0"},
    settings={"OIDC_AUDIENCE": API, "OIDC_REQUIRED_SCOPE": SCOPE, "OIDC_SUBJECT_CLAIM": "oid"},
)
AUTH0 = Shape(
    path="",
    issuer=None,
    claims={
        "aud": ["https://api.example.com", "https://x/userinfo"],
        "sub": f"auth0|{ALEX}",
        "scope": f"openid {SCOPE}",
    },
    settings={"OIDC_AUDIENCE": "https://api.example.com", "OIDC_REQUIRED_SCOPE": SCOPE},
    slash=True,
)
OKTA = Shape(
    path="/oauth2/default",
    issuer=None,
    claims={"aud": "api://default", "sub": "alex@example.com", "uid": "00u1", "scp": ["openid", SCOPE], "cid": "0oa1"},
    settings={"OIDC_AUDIENCE": "api://default", "OIDC_REQUIRED_SCOPE": SCOPE, "OIDC_SUBJECT_CLAIM": "uid"},
)
KEYCLOAK = Shape(
    path="/realms/contoso",
    issuer=None,
    claims={"aud": ["acs-auth", "account"], "sub": ALEX, "typ": "Bearer", "azp": "spa", "roles": ["acs-user"]},
    settings={"OIDC_AUDIENCE": "acs-auth", "OIDC_REQUIRED_ROLE": "acs-user"},
)
SHAPES = {"Azure AD B2C": B2C, "Entra External ID": EXTERNAL_ID, "Auth0": AUTH0, "Okta": OKTA, "Keycloak": KEYCLOAK}


@dataclass
class Service:
    """The service and the issuer it trusts."""

    app: Quart
    client: Client
    issuer: OidcIssuer

    async def get_user(self, token: str, path: str = "/api/user") -> tuple[int, str]:
        answer = await self.client.get(path, headers={"Authorization": f"Bearer {token}"})
        body = await answer.get_json()
        return answer.status_code, body.get("error", "")


Start = Callable[..., Any]


@pytest.fixture
def environment(local_azure: LocalAzure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name, value in local_azure.acs.service_environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("STORAGE_BACKEND", "sqlite")
    monkeypatch.setenv("SQLITE_PATH", str(tmp_path / "mappings.sqlite"))
    return monkeypatch


@pytest.fixture
def start(environment: pytest.MonkeyPatch, state_directory: Path, signing_keys: list[rsa.RSAPrivateKey]) -> Start:
    """Start an issuer of a shape and a service that trusts it; settings given as `None` are left out."""

    @asynccontextmanager
    async def start(
        shape: Shape, *, document: dict[str, Any] | None = None, down: bool = False, **changed: str | None
    ) -> AsyncIterator[Service]:
        async with running_oidc_issuer(
            state_directory, signing_keys[0], shape.claims, path=shape.path, issuer=shape.issuer
        ) as issuer:
            issuer.issuer += "/" if shape.slash else ""
            issuer.document = document or {}
            issuer.down = down
            given: dict[str, str | None] = {"OIDC_ISSUER": issuer.issuer, **shape.settings}
            if shape.issuer is not None:
                given["OIDC_DISCOVERY_URL"] = issuer.discovery_url
            for name, value in {**given, **changed}.items():
                if value is not None:
                    environment.setenv(name, value)
            async with create_app(load_settings(None)) as app:
                yield Service(app, app.test_client(), issuer)

    return start


@pytest.mark.parametrize("name", SHAPES)
async def test_users_of_any_issuer_get_their_identity_and_tokens(
    start: Start, local_azure: LocalAzure, name: str
) -> None:
    shape = SHAPES[name]
    async with start(shape) as service:
        claim = shape.settings.get("OIDC_SUBJECT_CLAIM", "sub")
        alex = {"Authorization": f"Bearer {service.issuer.token()}"}
        megan = {"Authorization": f"Bearer {service.issuer.token(**{claim: MEGAN})}"}
        created = await service.client.post("/api/user", headers=alex)
        assert created.status_code == 201
        identity = (await created.get_json())["acsUserIdentity"]
        again = {"Authorization": f"Bearer {service.issuer.token(jti='another')}"}
        assert await (await service.client.get("/api/user", headers=again)).get_json() == {"acsUserIdentity": identity}
        token = await (await service.client.get("/api/token", headers=alex)).get_json()
        assert local_azure.acs.verify_token(token["token"])["skypeid"] == identity.removeprefix("8:")
        assert (await service.client.get("/api/user", headers=megan)).status_code == 404
        assert (await service.client.delete("/api/user", headers=alex)).status_code == 204
        assert local_azure.acs.live_identities() == []


async def test_a_mapping_is_kept_under_the_issuer_and_the_subject(start: Start, tmp_path: Path) -> None:
    async with start(B2C) as service:
        headers = {"Authorization": f"Bearer {service.issuer.token()}"}
        await service.client.post("/api/user", headers=headers)
    store = await open_sqlite_store(tmp_path / "mappings.sqlite")
    assert [mapping.user async for mapping in store.mappings()] == [UserKey(str(B2C.issuer), ALEX)]
    await store.aclose()


async def test_users_of_another_issuer_work_with_cosmos_too(start: Start, local_azure: LocalAzure) -> None:
    cosmos = local_azure.cosmos.service_environment()
    created = {"COSMOS_CREATE_IF_MISSING": "true", "ENVIRONMENT": "development"}
    async with start(AUTH0, STORAGE_BACKEND="cosmos", **cosmos, **created) as service:
        headers = {"Authorization": f"Bearer {service.issuer.token()}"}
        assert (await service.client.post("/api/user", headers=headers)).status_code == 201
        assert (await service.client.post("/api/user", headers=headers)).status_code == 200
        assert await service.get_user(service.issuer.token(sub="auth0|other")) == (404, "identity_not_found")


REFUSED: dict[str, dict[str, Any]] = {
    "another issuer": {"iss": "https://evil.example"},
    "the issuer without its slash": {"iss": str(B2C.issuer).rstrip("/")},
    "the issuer in capitals": {"iss": str(B2C.issuer).upper()},
    "no issuer": {"iss": None},
    "a list of issuers": {"iss": [B2C.issuer]},
    "another audience": {"aud": SPA},
    "no audience": {"aud": None},
    "no subject": {"sub": None},
    "an empty subject": {"sub": ""},
    "a subject that is a number": {"sub": 7},
    "a subject that is a list": {"sub": [ALEX]},
    "a subject of 256 characters": {"sub": "x" * 256},
    "a subject with a line break": {"sub": f"{ALEX}\n"},
    "a subject without an encoding": {"sub": "\ud800"},
    "no scope, as in an id token": {"scp": None},
    "a scope that is a number": {"scp": 7},
    "a scope that lists numbers": {"scp": [7]},
    "an application's own token by RFC 9068": {"sub": SPA},
    "an application's own token by its type": {"idtyp": "app"},
    "a token of another type than a user's": {"idtyp": "visitor"},
    "an application's own token by Auth0's grant type": {"gty": "client-credentials"},
    "an application's own token by Auth0's subject": {"sub": f"{SPA}@clients"},
    "no expiry": {"exp": None},
    "expired": {"exp": 1_000_000_000},
}


@pytest.mark.parametrize("case", REFUSED)
async def test_a_token_that_proves_nothing_is_refused(start: Start, case: str) -> None:
    async with start(B2C) as service:
        assert await service.get_user(service.issuer.token()) == (404, "identity_not_found")
        assert await service.get_user(service.issuer.token(**REFUSED[case])) == (401, "invalid_token")


async def test_a_strangers_signature_is_refused(start: Start) -> None:
    async with start(B2C) as service:
        known = service.issuer.key
        service.issuer.key = new_rsa_key()
        token = service.issuer.token()
        service.issuer.key = known
        assert await service.get_user(token) == (401, "invalid_token")


@pytest.mark.parametrize("algorithm", ["RS384", "RS512", "PS256"])
async def test_only_rs256_is_taken_also_with_the_right_key(start: Start, algorithm: str) -> None:
    async with start(B2C) as service:
        token = service.issuer.token(header={"alg": algorithm})
        assert await service.get_user(token) == (401, "invalid_token")


async def test_an_applications_own_token_is_refused_whichever_claim_tells_the_user(start: Start) -> None:
    async with start(EXTERNAL_ID) as service:
        assert await service.get_user(service.issuer.token(sub=SPA)) == (401, "invalid_token")


async def test_a_token_of_entra_is_refused_where_another_issuer_is_trusted(
    start: Start, local_azure: LocalAzure
) -> None:
    async with start(EXTERNAL_ID) as service:
        assert await service.get_user(local_azure.entra.access_token("alex", aud=API)) == (401, "invalid_token")


@pytest.mark.parametrize("claims", [{"scp": "other"}, {"scp": f"{SCOPE}.all"}, {"scp": ""}, {"scp": []}])
async def test_without_the_scope_the_caller_is_forbidden(start: Start, claims: dict[str, Any]) -> None:
    async with start(B2C) as service:
        answer = await service.client.get(
            "/api/user", headers={"Authorization": f"Bearer {service.issuer.token(**claims)}"}
        )
        assert await error_of(answer) == (403, "insufficient_scope")
        assert f'scope="{SCOPE}"' in answer.headers["WWW-Authenticate"]


@pytest.mark.parametrize(
    ("claims", "expected"),
    [
        ({"groups": "acs-user other"}, (404, "identity_not_found")),
        ({"groups": ["other", "acs-user"]}, (404, "identity_not_found")),
        ({"groups": ["other"]}, (403, "insufficient_role")),
        ({}, (403, "insufficient_role")),
        ({"groups": ["acs-user"], "scp": "other"}, (403, "insufficient_scope")),
    ],
)
async def test_where_a_role_is_required_too_both_are_needed(
    start: Start, claims: dict[str, Any], expected: tuple[int, str]
) -> None:
    async with start(B2C, OIDC_REQUIRED_ROLE="acs-user", OIDC_ROLES_CLAIM="groups") as service:
        assert await service.get_user(service.issuer.token(**claims)) == expected


async def test_access_tokens_with_their_own_type_are_taken(start: Start) -> None:
    async with start(AUTH0) as service:
        assert await service.get_user(service.issuer.token(header={"typ": "at+jwt"})) == (404, "identity_not_found")


@pytest.mark.parametrize(
    "named", [str(B2C.issuer).rstrip("/"), "https://evil.example/", str(B2C.issuer).replace("contoso", "CONTOSO"), None]
)
async def test_a_discovery_document_of_another_issuer_is_not_used(
    start: Start, named: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    async with start(B2C, document={"issuer": named}) as service:
        assert await service.get_user(service.issuer.token()) == (503, "service_unavailable")
        assert service.issuer.requests[f"{B2C.path}/keys"] == 0
        assert "names the issuer" in caplog.text or named is None


async def test_while_the_issuer_is_down_no_token_is_called_invalid(start: Start) -> None:
    async with start(KEYCLOAK, down=True) as service:
        assert await service.get_user(service.issuer.token()) == (503, "service_unavailable")


async def test_the_teams_exchange_is_refused_with_the_reason(start: Start, local_azure: LocalAzure) -> None:
    async with start(EXTERNAL_ID) as service:
        headers = {
            "Authorization": f"Bearer {service.issuer.token()}",
            "teams-user-aad-token": local_azure.entra.teams_token("alex"),
        }
        for path in ("/api/token/teams", "/exchangeToken"):
            answer = await service.client.get(path, headers=headers)
            body = await answer.get_json()
            assert (answer.status_code, body["error"]) == (501, "teams_exchange_not_offered")
            assert "Microsoft Entra ID" in body["message"]
        assert local_azure.acs.faults.counts["exchange_teams_token"] == 0


async def test_the_docs_sign_in_at_the_issuer_once_it_told_where(start: Start) -> None:
    async with start(OKTA, DOCS_CLIENT_ID="0oa1", DOCS_SCOPES="openid access_as_user") as service:
        await service.get_user(service.issuer.token())  # by now the issuer has been asked
        document = await (await service.client.get("/openapi.json")).get_json()
        validate(document)
        assert list(document["components"]["securitySchemes"]) == ["oidc", "token"]
        flow = document["components"]["securitySchemes"]["oidc"]["flows"]["authorizationCode"]
        assert flow["authorizationUrl"] == f"{service.issuer.url}/oauth2/default/authorize"
        assert flow["tokenUrl"] == f"{service.issuer.url}/oauth2/default/token"
        assert list(flow["scopes"]) == ["openid", "access_as_user"]
        page = await service.client.get("/docs")
        assert f"connect-src 'self' {service.issuer.url};" in page.headers["Content-Security-Policy"]
        script = await (await service.client.get("/docs/start.js")).get_data(as_text=True)
        assert '"clientId": "0oa1", "scopes": ["openid", "access_as_user"]' in script


@pytest.mark.parametrize("endpoint", [None, "http://plain.example/authorize", 7])
async def test_without_an_authorization_endpoint_the_docs_show_the_bearer_scheme_alone(
    start: Start, endpoint: Any
) -> None:
    async with start(OKTA, document={"authorization_endpoint": endpoint}) as service:
        await service.get_user(service.issuer.token())
        document = await (await service.client.get("/openapi.json")).get_json()
        validate(document)
        assert list(document["components"]["securitySchemes"]) == ["token"]
        assert document["security"] == [{"token": []}]
        assert (await service.client.get("/docs")).status_code == 200


SOUND = {"OIDC_ISSUER": "https://id.example.com/", "OIDC_AUDIENCE": "api", "OIDC_REQUIRED_SCOPE": SCOPE}
CONTRADICTIONS: dict[str, tuple[dict[str, str], str]] = {
    "Graph": (
        {**SOUND, "STORAGE_BACKEND": "graph", "GRAPH_SEAL_KEYS": "A" * 44},
        "STORAGE_BACKEND=graph works only with users of Microsoft Entra ID",
    ),
    "an Entra registration": ({**SOUND, "ENTRA_TENANT_ID": GUID}, "With OIDC_ISSUER leave out ENTRA_TENANT_ID:"),
    "the samples' registration": (
        {**SOUND, "azureActiveDirectory_clientSecret": "x"},
        "With OIDC_ISSUER leave out ENTRA_CLIENT_SECRET:",
    ),
    "Teams": ({**SOUND, "TEAMS_CLIENT_IDS": SPA}, "The TEAMS_ settings are for users of Microsoft Entra ID"),
    "no audience": ({**SOUND, "OIDC_AUDIENCE": ""}, "OIDC_ISSUER needs OIDC_AUDIENCE"),
    "no permission": ({**SOUND, "OIDC_REQUIRED_SCOPE": ""}, "OIDC_ISSUER needs OIDC_REQUIRED_SCOPE or"),
    "plain http": ({**SOUND, "OIDC_ISSUER": "http://id.example.com"}, "OIDC_ISSUER: must be an https:// URL"),
    "a query": ({**SOUND, "OIDC_ISSUER": "https://id.example.com?p=x"}, "OIDC_ISSUER: must be an https:// URL without"),
    "discovery over plain http": (
        {**SOUND, "OIDC_DISCOVERY_URL": "http://id.example.com/x"},
        "OIDC_DISCOVERY_URL: must be an https:// URL",
    ),
    "an audience without an issuer": (
        {"ENTRA_TENANT_ID": GUID, "ENTRA_CLIENT_ID": API, "OIDC_AUDIENCE": "api"},
        "OIDC_AUDIENCE is for another issuer than Microsoft Entra ID; set OIDC_ISSUER.",
    ),
}


@pytest.mark.parametrize("case", CONTRADICTIONS)
def test_contradictions_are_found_at_start(environment: pytest.MonkeyPatch, case: str) -> None:
    given, sentence = CONTRADICTIONS[case]
    for name, value in given.items():
        environment.setenv(name, value)
    with pytest.raises(InvalidSettings) as caught:
        load_settings(None)
    assert len(caught.value.faults) == 1
    assert caught.value.faults[0].startswith(sentence)


def test_neither_kind_of_issuer_is_a_fault(environment: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidSettings, match=r"ENTRA_TENANT_ID is not set.\nENTRA_CLIENT_ID is not set."):
        load_settings(None)


def test_the_settings_of_the_issuer_are_kept_and_shown_as_they_were_written(environment: pytest.MonkeyPatch) -> None:
    for name, value in SOUND.items():
        environment.setenv(name, value)
    environment.setenv("ENTRA_MANAGED_IDENTITY_CLIENT_ID", SPA)
    shown = {each.name: each.value for each in shown_settings(load_settings(None))}
    assert {name: shown[name] for name in SOUND} == SOUND
    assert shown["OIDC_SUBJECT_CLAIM"] == "sub"


GUIDE = Path(__file__).parents[3] / "docs" / "other-identity-providers.md"


@pytest.mark.parametrize("number", range(4))
def test_the_settings_that_the_guide_shows_are_sound(environment: pytest.MonkeyPatch, number: int) -> None:
    blocks = re.findall(r"```ini\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    assert len(blocks) == 4
    shown = dict(line.split("=", 1) for line in blocks[number].splitlines())
    for name, value in shown.items():
        environment.setenv(name, value)
    assert shown.items() <= {each.name: each.value for each in shown_settings(load_settings(None))}.items()
