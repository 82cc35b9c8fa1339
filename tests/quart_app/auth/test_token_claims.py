"""What tokens say, in the spellings of real issuers, over the wire: what lets a caller in, what does not, and why."""

import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from local_azure.entra.directory import BROWSER, DAEMON
from local_azure.environment import LocalAzure
from tests.support.token_service import ACCEPTED, OidcService, TokenService, oidc_service, token_service

Start = Callable[..., AbstractAsyncContextManager[OidcService]]
StartEntra = Callable[..., AbstractAsyncContextManager[TokenService]]
ROLE_ONLY = {"OIDC_REQUIRED_SCOPE": "", "OIDC_REQUIRED_ROLE": "acs-user"}
USER = {"aud": "api", "sub": "user-1"}
B2C_SUBJECT = "Not supported currently. Use oid claim."


def refused(reason: str) -> tuple[int, str, str]:
    return (401, "invalid_token", reason)


@pytest.fixture
def start(
    local_azure: LocalAzure,
    state_directory: Path,
    signing_keys: list[rsa.RSAPrivateKey],
    monkeypatch: pytest.MonkeyPatch,
) -> Start:
    """Start the service for another issuer."""
    return lambda **how: oidc_service(monkeypatch, local_azure, state_directory.parent, signing_keys[0], **how)


@pytest.fixture
def start_entra(local_azure: LocalAzure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StartEntra:
    """Start the service for the users of Entra ID."""
    files = {"STORAGE_BACKEND": "sqlite", "SQLITE_PATH": str(tmp_path / "mappings.sqlite")}
    basic = {**local_azure.service_environment(), **files, "ENVIRONMENT": "development"}
    return lambda **settings: token_service(monkeypatch, {**basic, **settings})


async def test_a_subject_that_every_user_has_is_nobody_and_gets_no_identity(
    start: Start, local_azure: LocalAzure
) -> None:
    """As Azure AD B2C writes it, by a policy's compatibility mode."""
    async with start() as service:
        for user in ("one", "two"):
            headers = {"Authorization": f"Bearer {service.issuer.token(sub=B2C_SUBJECT, oid=user)}"}
            assert await service.call("POST", headers) == refused("subject")
        assert local_azure.acs.all_identities() == []


async def test_with_the_claim_that_the_guide_names_they_are_two_users(start: Start, local_azure: LocalAzure) -> None:
    async with start(OIDC_SUBJECT_CLAIM="oid") as service:
        for user in ("one", "two"):
            headers = {"Authorization": f"Bearer {service.issuer.token(sub=B2C_SUBJECT, oid=user)}"}
            assert (await service.call("POST", headers))[0] == 201
        assert len(local_azure.acs.live_identities()) == 2


NOBODY = [
    B2C_SUBJECT.lower(),
    "Not supported currently.  Use  oid claim",
    "Not Supported",
    " ",
    "null",
    "None",
    "undefined",
    "(null)",
    "N/A",
    "anonymous",
    "unknown",
    "[object Object]",
    "00000000-0000-0000-0000-000000000000",
    "{00000000-0000-0000-0000-000000000000}",
    "FFFFFFFF-FFFF-FFFF-FFFF-FFFFFFFFFFFF",
    "0",
    "{OIDC:Sub}",
    "${user.id}",
    "{{user.id}}",
    "<user id>",
    "%s",
    "%USER%",
]
SOMEBODY = [
    "auth0|5f7c8ec7c33c6c004bbafe82",
    "kp_c3143a4b50ad43c88e541d9077681782",
    "CN=Alex Weber,OU=People,DC=example,DC=com",
    "alex@example.com",
    "1",
    "f",
    "100000000000000000000",
    "{a1e5c0de-0001-4a6b-8f21-6d0c3b9e4f01}",
    "none-such",
    "Nullarbor",
    "https://id.example.com/users/1",
    "00u1abcd",
    "\u00c5sa \u6f22",
]


async def test_stand_ins_for_no_user_are_nobody_and_ids_that_look_odd_are_somebody(start: Start) -> None:
    async with start() as service:
        for subject in NOBODY:
            assert (subject, await service.get(service.issuer.token(sub=subject))) == (subject, refused("subject"))
        for subject in SOMEBODY:
            assert (subject, await service.get(service.issuer.token(sub=subject))) == (subject, ACCEPTED)


NOT_ASKED: list[dict[str, Any]] = [
    {"roles": [{"name": "x"}]},
    {"roles": 7},
    {"roles": {"a": 1}},
    {"scp": None, "roles": None},
    {"jti": 7},
    {"groups": 5, "email": [], "azp": 5, "client_id": ["x"]},
    {"gty": 5},
    {"gty": "authorization_code"},
    {"events": ["a concert"]},
    {"typ": "Bearer", "token_use": "access", "token_type": "Bearer", "tokenName": "access_token"},
    {"typ": 7, "token_use": ["id"]},
    {"note": "[[[" * 200 + "{{{" * 200},
    {"note": '"[' * 300},
    {"note": "\\" * 7 + "[" * 300},
    {"list": [{}] * 400},
]


async def test_what_no_rule_asks_about_is_not_judged(start: Start) -> None:
    async with start() as service:
        for claims in NOT_ASKED:
            assert (claims, await service.get(service.issuer.token(**claims))) == (claims, ACCEPTED)


async def test_a_scope_of_null_is_none_and_the_other_claim_counts(start: Start) -> None:
    async with start() as service:
        service.issuer.claims = {**USER, "scp": "access"}
        token = service.issuer.token
        assert await service.get(token()) == ACCEPTED
        assert await service.get(with_null(service, "scope")) == ACCEPTED
        assert await service.get(with_null(service, "scp")) == refused("not_an_access_token")
        assert await service.get(token(scope=7)) == refused("malformed")


def with_null(service: OidcService, claim: str) -> str:
    """A token in which this claim is `null`, which `OidcIssuer.token` would leave out."""

    now = int(time.time())
    claims = {"iss": service.issuer.issuer, "iat": now, "exp": now + 600, **service.issuer.claims, claim: None}
    return jwt.api_jws.encode(json.dumps(claims).encode(), service.issuer.key, "RS256", {"kid": "key-1"})


async def test_with_a_role_alone_scopes_are_not_judged(start: Start) -> None:
    not_judged: list[dict[str, Any]] = [{"scope": 7}, {"scp": [7]}, {"scp": {}}, {}]
    async with start(claims={**USER, "roles": ["acs-user"]}, **ROLE_ONLY) as service:
        for claims in not_judged:
            assert (claims, await service.get(service.issuer.token(**claims))) == (claims, ACCEPTED)
        assert await service.get(with_null(service, "scp")) == ACCEPTED


TYPES: dict[Any, tuple[int, str, str]] = {
    "at+JWT": ACCEPTED,  # the example of RFC 9068
    "AT+jwt": ACCEPTED,
    "application/at+jwt": ACCEPTED,
    "Application/AT+JWT": ACCEPTED,
    "jwt": ACCEPTED,  # Kinde
    "JWT": ACCEPTED,
    "application/jwt": ACCEPTED,
    None: ACCEPTED,
    "logout+jwt": refused("type"),
    "application/logout+jwt": refused("type"),
    "Logout+JWT": refused("type"),
    "id+jwt": refused("type"),
    "secevent+jwt": refused("type"),
    "dpop+jwt": refused("type"),
    "token-introspection+jwt": refused("type"),
    "client-authentication+jwt": refused("type"),
    "JWS": refused("type"),
    "at+jwt ": refused("type"),
    "application/": refused("type"),
    "application/application/jwt": refused("type"),
}


async def test_the_type_is_read_as_a_media_type(start: Start) -> None:
    async with start() as service:
        for typ, expected in TYPES.items():
            assert (typ, await service.get(service.issuer.token({"typ": typ}))) == (typ, expected)


BOUND: list[dict[str, Any]] = [
    {"cnf": {"jkt": "x"}},
    {"cnf": {"x5t#S256": "x"}},
    {"cnf": {"jwk": {"kty": "RSA"}}},
    {"cnf": {"kid": "x", "xms_ksl": "sw"}},
    {"cnf": {}},
    {"cnf": "x"},
    {"cnf": []},
    {"cnf": False},
    {"typ": "DPoP"},
    {"token_type": "pop"},
]


async def test_a_token_that_is_bound_to_a_key_is_no_bearer_token(start: Start) -> None:
    async with start() as service:
        for claims in BOUND:
            token = service.issuer.token(**claims)
            assert (claims, await service.get(token)) == (claims, refused("proof_missing"))
            assert (claims, await service.get(token, DPoP="x")) == (claims, refused("proof_missing"))


async def test_a_token_of_entra_that_is_bound_to_a_key_is_no_bearer_token(
    start_entra: StartEntra, local_azure: LocalAzure
) -> None:
    async with start_entra() as service:
        token = local_azure.entra.access_token("alex", cnf={"jkt": "x"})
        assert await service.get(token) == refused("proof_missing")


OTHERS: list[dict[str, Any]] = [
    {"token_use": "id"},  # Amazon Cognito
    {"token_use": "ID"},
    {"token_use": "refresh"},
    {"typ": "ID"},  # Keycloak
    {"typ": "Refresh"},
    {"typ": "Offline"},
    {"typ": "Logout"},
    {"typ": "Serialized-ID"},
    {"typ": "logout"},
    {"token_type": "refresh"},  # SimpleJWT
    {"token_type": "id_token"},
    {"tokenName": "id_token"},  # ForgeRock AM
    {"tokenName": "refresh_token"},
    {"events": {"http://schemas.openid.net/event/backchannel-logout": {}}},
    {"events": {"https://schemas.openid.net/secevent/caep/event-type/session-revoked": {}}},
    {"events": {}},
]


async def test_a_token_that_says_that_it_is_another_kind_is_refused(start: Start) -> None:
    async with start(claims={**USER, "roles": ["acs-user"]}, **ROLE_ONLY) as service:
        assert await service.get(service.issuer.token()) == ACCEPTED
        for claims in OTHERS:
            token = service.issuer.token(**claims)
            assert (claims, await service.get(token)) == (claims, refused("not_an_access_token"))


MACHINES: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {"gty": ["client_credentials"]}),  # Kinde
    ({}, {"gty": "client-credentials"}),  # Auth0
    ({}, {"gty": "client_credentials"}),
    ({}, {"gty": "Client_Credentials"}),
    ({}, {"gty": ["client-credentials", 7]}),
    ({}, {"gty": ["authorization_code", "client_credentials"]}),
    ({}, {"gty": "refresh_token client_credentials"}),
    ({"gty": ["client_credentials"]}, {}),  # FusionAuth
    ({"gty": "client-credentials"}, {}),
    ({"gty": ["client_credentials"]}, {"gty": "authorization_code"}),
    ({}, {"idtyp": "app"}),
    ({}, {"azp": "user-1"}),
    ({}, {"client_id": "x", "cid": "user-1"}),
    ({}, {"sub": "x@clients", "azp": "x"}),
]


async def test_a_machines_token_is_refused_in_all_spellings_of_its_grant(start: Start) -> None:
    async with start(claims={**USER, "roles": ["acs-user"]}, **ROLE_ONLY) as service:
        for header, claims in MACHINES:
            token = service.issuer.token(header, **claims)
            assert (claims, await service.get(token)) == (claims, refused("application_token"))
        users: list[Any] = ["authorization_code", ["authorization_code", "refresh_token"], "password", [], {}, ""]
        for gty in users:
            assert (gty, await service.get(service.issuer.token({"gty": gty}, gty=gty))) == (gty, ACCEPTED)


ROLES: list[tuple[str, dict[str, Any], bool]] = [
    ("roles", {"roles": ["acs-user"]}, True),
    ("roles", {"roles": "other acs-user"}, True),
    ("roles", {"roles": {"acs-user": {"1": "example.com"}}}, True),  # Zitadel
    ("urn:zitadel:iam:org:project:roles", {"urn:zitadel:iam:org:project:roles": {"acs-user": {"1": "x"}}}, True),
    ("roles", {"roles": {"acs-user": True}}, True),
    ("roles", {"roles": {"acs-user": False}}, False),
    ("roles", {"roles": {"acs-user": None, "other": True}}, False),
    ("realm_access.roles", {"realm_access": {"roles": ["acs-user"]}}, True),  # Keycloak
    ("resource_access.api.roles", {"resource_access": {"api": {"roles": ["x", "acs-user"]}}}, True),
    ("realm_access.roles", {"realm_access.roles": ["acs-user"]}, True),
    ("https://example.com/roles", {"https://example.com/roles": ["acs-user"]}, True),  # Auth0
    ("realm_access.roles", {"realm_access": {"roles": ["other"]}}, False),
    ("realm_access.roles", {"realm_access": ["roles"]}, False),
    ("realm_access.roles", {"realm_access": None}, False),
    ("realm_access.roles", {"roles": ["acs-user"]}, False),
    ("realm_access.roles", {"realm_access": {"roles": {"x": {"acs-user": 1}}}}, False),
]


@pytest.mark.parametrize("number", range(len(ROLES)))
async def test_roles_may_be_an_objects_names_and_stand_inside_of_other_claims(start: Start, number: int) -> None:
    name, claims, let_in = ROLES[number]
    async with start(claims=USER, OIDC_ROLES_CLAIM=name, **ROLE_ONLY) as service:
        expected = ACCEPTED if let_in else (403, "insufficient_role", "role")
        assert await service.get(service.issuer.token(**claims)) == expected


@pytest.mark.parametrize("roles", [7, True, [7], [{"name": "acs-user"}]])
async def test_roles_that_cannot_be_read_are_refused_where_a_role_is_asked_for(start: Start, roles: Any) -> None:
    async with start(claims=USER, **ROLE_ONLY) as service:
        assert await service.get(service.issuer.token(roles=roles)) == refused("malformed")


@pytest.fixture
async def entra_for_one_client(start_entra: StartEntra) -> AsyncIterator[TokenService]:
    async with start_entra(ENTRA_ALLOWED_CLIENTS=f"{DAEMON.client_id.upper()} {BROWSER.client_id}") as service:
        yield service


async def test_where_clients_are_named_no_other_may_call(
    entra_for_one_client: TokenService, local_azure: LocalAzure
) -> None:
    service, entra = entra_for_one_client, local_azure.entra
    other = "99998888-bbbb-3333-cccc-4444dddd5555"
    for version, claim in ((2, "azp"), (1, "appid")):
        claims = claims_of(entra.access_token("alex", version=version))
        without = {name: value for name, value in claims.items() if name != claim}
        assert await service.get(entra.sign(claims)) == ACCEPTED
        assert await service.get(entra.sign({**claims, claim: BROWSER.client_id.upper()})) == ACCEPTED
        assert await service.get(entra.sign({**claims, claim: other})) == refused("client")
        assert await service.get(entra.sign(without)) == refused("client")
    token = entra.access_token("alex", azp=other, appid=BROWSER.client_id)  # only one of them is read
    assert await service.get(token) == refused("client")


def claims_of(token: str) -> dict[str, Any]:
    return dict(jwt.decode(token, options={"verify_signature": False}))


async def test_a_teams_token_is_of_a_client_of_its_own(start_entra: StartEntra, local_azure: LocalAzure) -> None:
    """`TEAMS_CLIENT_IDS` names it, not `ENTRA_ALLOWED_CLIENTS`; nor need it tell whether its user is a guest."""
    entra = local_azure.entra
    async with start_entra(ENTRA_ALLOWED_CLIENTS=DAEMON.client_id, ENTRA_ALLOW_GUESTS="false") as service:
        caller = entra.access_token("alex", azp=DAEMON.client_id, acct=0)
        headers = {"Authorization": f"Bearer {caller}", "teams-user-aad-token": entra.teams_token("alex")}
        async with service.session.get(f"{service.address}/api/token/teams", headers=headers) as answer:
            assert answer.status == 201


async def test_where_guests_are_not_allowed_a_token_must_say_that_its_user_is_none(
    start_entra: StartEntra, local_azure: LocalAzure
) -> None:
    entra = local_azure.entra
    async with start_entra(ENTRA_ALLOW_GUESTS="false") as service:
        assert await service.get(entra.access_token("alex")) == refused("guest")  # without the optional claim
        for acct, expected in [(0, ACCEPTED), (1, refused("guest")), (2, refused("guest")), ("0", refused("guest"))]:
            assert (acct, await service.get(entra.access_token("alex", acct=acct))) == (acct, expected)
        for acct in (False, None, 0.0, [0]):
            assert (acct, await service.get(entra.access_token("alex", acct=acct))) == (acct, refused("guest"))
        assert await service.get(entra.access_token("guest", acct=1)) == refused("guest")


async def test_guests_may_call_by_default(start_entra: StartEntra, local_azure: LocalAzure) -> None:
    async with start_entra() as service:
        assert await service.get(local_azure.entra.access_token("guest", acct=1)) == ACCEPTED
