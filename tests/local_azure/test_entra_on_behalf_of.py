"""On-behalf-of and client credentials at the Entra ID stand-in, asked by the real MSAL."""

import base64
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import jwt
import msal
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from local_azure.entra.directory import API, BROWSER, DAEMON, HOME_TENANT, OTHER_TENANT, USERS, User
from local_azure.environment import LocalAzure, Ports
from local_azure.faults import Fault
from local_azure.keys import KeyFactory
from tests.support.entra_client import (
    GRAPH_SCOPES,
    TENANT,
    Browser,
    error_codes,
    on_behalf_of,
    read,
    with_msal,
)

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


def on_behalf_of_form(assertion: str, /, **changes: str | None) -> dict[str, str]:
    form: dict[str, str | None] = {
        "grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer",
        "client_id": API.client_id,
        "client_secret": API.secret,
        "assertion": assertion,
        "scope": GRAPH_SCOPES[0],
        "requested_token_use": "on_behalf_of",
        **changes,
    }
    return {name: value for name, value in form.items() if value is not None}


async def test_the_service_acts_on_behalf_of_its_caller(local_azure: LocalAzure) -> None:
    entra = local_azure.entra
    answer = await on_behalf_of(entra.url, entra.access_token("megan"))
    claims = entra.verify(answer["access_token"])
    assert claims is not None
    assert claims["aud"] == "https://graph.microsoft.com"
    assert claims["scp"] == "User.ReadWrite"
    assert claims["oid"] == USERS["megan"].object_id
    assert (claims["appid"], claims["appidacr"], claims["ver"]) == (API.client_id, "1", "1.0")
    assert claims["unique_name"] == "megan@contoso.localhost"
    assert answer["id_token_claims"]["aud"] == API.client_id
    assert answer["refresh_token"]


@pytest.mark.parametrize(
    ("asked", "given"),
    [
        ("user.read", "user.read User.ReadWrite"),
        ("User.ReadWrite", "User.ReadWrite"),
        ("user.readwrite", "user.readwrite"),
        (".default", "User.ReadWrite"),
    ],
)
@pytest.mark.parametrize("resource", ["https://graph.microsoft.com", "https://localhost:5002"])
async def test_an_answer_carries_all_permissions_consented_to(
    local_azure: LocalAzure, resource: str, asked: str, given: str
) -> None:
    answer = await on_behalf_of(local_azure.entra.url, local_azure.entra.access_token("alex"), [f"{resource}/{asked}"])
    assert read(answer["access_token"])["scp"] == given
    assert answer["scope"].split() == [f"{resource}/{permission}" for permission in given.split()]


@pytest.mark.parametrize("version", [1, 2])
async def test_both_token_versions_are_assertions(local_azure: LocalAzure, version: int) -> None:
    assertion = local_azure.entra.access_token("alex", version=version)
    assert "access_token" in await on_behalf_of(local_azure.entra.url, assertion)


async def test_a_token_for_the_bare_client_id_is_an_assertion(local_azure: LocalAzure) -> None:
    assertion = local_azure.entra.access_token("alex", version=1, aud=API.client_id)
    assert "access_token" in await on_behalf_of(local_azure.entra.url, assertion)


async def test_msal_asks_the_wire_each_time_and_knows_the_account(local_azure: LocalAzure) -> None:
    assertion = local_azure.entra.access_token("alex")

    def twice(app: msal.ConfidentialClientApplication) -> dict[str, Any]:
        app.acquire_token_on_behalf_of(assertion, GRAPH_SCOPES)
        app.acquire_token_on_behalf_of(assertion, GRAPH_SCOPES)
        return {"accounts": app.get_accounts()}

    accounts = (await with_msal(local_azure.entra.url, twice))["accounts"]
    assert local_azure.entra.faults.counts["token"] == 2
    assert accounts[0]["home_account_id"] == f"{USERS['alex'].object_id}.{TENANT}"


async def test_any_https_host_is_a_resource_as_in_other_clouds(local_azure: LocalAzure) -> None:
    asked = ["https://localhost:5002/User.Read", "https://localhost:5002/User.ReadWrite"]
    answer = await on_behalf_of(local_azure.entra.url, local_azure.entra.access_token("alex"), asked)
    claims = read(answer["access_token"])
    assert claims["aud"] == "https://localhost:5002"
    assert set(claims["scp"].split()) == {"User.Read", "User.ReadWrite"}


async def test_a_user_beyond_the_directory_is_trusted_by_signature(local_azure: LocalAzure) -> None:
    stranger = User("", TENANT, "d0000000-0000-4000-8000-000000000001", "Test User", "t@contoso.localhost", TENANT)
    answer = await on_behalf_of(local_azure.entra.url, local_azure.entra.access_token(stranger))
    assert read(answer["access_token"])["oid"] == stranger.object_id


async def test_a_refused_call_has_the_real_shape(local_azure: LocalAzure) -> None:
    async with (
        aiohttp.ClientSession() as http,
        http.post(
            f"{local_azure.entra.url}/{TENANT}/oauth2/v2.0/token",
            data=on_behalf_of_form("garbage"),
            headers={"client-request-id": "11111111-2222-4333-8444-555555555555"},
        ) as answer,
    ):
        body = await answer.json()
        assert answer.status == 400
        assert answer.headers["Cache-Control"] == "no-store, no-cache"
        assert answer.headers["Pragma"] == "no-cache"
        assert answer.headers["client-request-id"] == "11111111-2222-4333-8444-555555555555"
        assert answer.headers["x-ms-request-id"] == body["trace_id"]
        assert answer.headers["x-ms-clitelem"] == "1,50013,0,,"
        assert answer.headers["x-ms-ests-server"]
    assert body["error"] == "invalid_grant"
    assert body["error_codes"] == [50013]
    assert body["correlation_id"] == "11111111-2222-4333-8444-555555555555"
    assert body["error_description"] == (
        "AADSTS50013: Assertion failed signature validation. [Reason - The key was not found.]"
        f"\r\nTrace ID: {body['trace_id']}\r\nCorrelation ID: {body['correlation_id']}"
        f"\r\nTimestamp: {body['timestamp']}"
    )
    assert datetime.strptime(body["timestamp"], "%Y-%m-%d %H:%M:%SZ").replace(tzinfo=UTC)


async def test_a_token_for_another_audience_is_no_assertion(local_azure: LocalAzure) -> None:
    answer = await on_behalf_of(local_azure.entra.url, local_azure.entra.access_token("alex", aud=DAEMON.client_id))
    assert (answer["error"], error_codes(answer)) == ("invalid_grant", [50013])


async def test_a_forged_token_is_no_assertion(local_azure: LocalAzure, signing_keys: list[rsa.RSAPrivateKey]) -> None:
    entra = local_azure.entra
    forged = entra.sign(read(entra.access_token("alex")), key=signing_keys[3])
    assert error_codes(await on_behalf_of(entra.url, forged)) == [50013]


async def test_an_expired_token_is_outside_its_valid_time_range(local_azure: LocalAzure) -> None:
    answer = await on_behalf_of(local_azure.entra.url, local_azure.entra.access_token("alex", lifetime=-1))
    assert (answer["error"], error_codes(answer)) == ("invalid_grant", [500133])


async def test_an_app_only_token_is_no_assertion(local_azure: LocalAzure) -> None:
    answer = await on_behalf_of(local_azure.entra.url, local_azure.entra.app_only_token())
    assert error_codes(answer) == [7000114]


async def test_a_user_of_another_tenant_is_unknown_to_this_one(local_azure: LocalAzure) -> None:
    entra = local_azure.entra
    assert error_codes(await on_behalf_of(entra.url, entra.access_token("nestor"))) == [90072]
    answer = await on_behalf_of(entra.url, entra.access_token("nestor"), tenant=OTHER_TENANT.tenant_id)
    assert read(answer["access_token"])["tid"] == OTHER_TENANT.tenant_id


async def test_missing_consent_is_65001_until_the_user_consents(local_azure: LocalAzure) -> None:
    entra = local_azure.entra
    entra.conditions.remove_consent(USERS["alex"])
    entra.conditions.remove_consent(USERS["zoe"])
    assertion = entra.access_token("alex")
    answer = await on_behalf_of(entra.url, assertion)
    assert (answer["error"], answer["suberror"]) == ("invalid_grant", "consent_required")
    assert error_codes(answer) == [65001]
    assert "access_token" in await on_behalf_of(entra.url, entra.access_token("megan"))
    async with aiohttp.ClientSession() as http:
        await Browser(http, entra.url).authorize(prompt="none")
        assert error_codes(await on_behalf_of(entra.url, assertion)) == [65001]
        form = {"user": "alex"}
        address = f"{entra.url}/{TENANT}/oauth2/v2.0/authorize"
        page = await Browser(http, entra.url).authorize_raw(prompt="consent")
        async with http.post(address, params=page.url.query, data=form, allow_redirects=False) as answered:
            assert answered.status == 302
    assert "access_token" in await on_behalf_of(entra.url, assertion)
    assert error_codes(await on_behalf_of(entra.url, entra.access_token("zoe"))) == [65001]


async def test_a_required_second_factor_challenges_until_the_user_signs_in_with_it(local_azure: LocalAzure) -> None:
    entra = local_azure.entra
    entra.conditions.require_multi_factor(USERS["alex"])
    answer = await on_behalf_of(entra.url, entra.access_token("alex"))
    assert answer["error"] == "interaction_required"
    assert error_codes(answer) == [50076]
    assert json.loads(answer["claims"])["access_token"]["polids"]["essential"] is True
    async with aiohttp.ClientSession() as http:
        tokens = await Browser(http, entra.url).sign_in(claims=answer["claims"])
    assert "access_token" in await on_behalf_of(entra.url, tokens["access_token"])


async def test_conditions_survive_a_restart_and_can_be_cleared(state_directory: Path, new_key: KeyFactory) -> None:
    async with LocalAzure(state_directory, Ports(0, 0, 0, 0), new_key=new_key) as first:
        first.entra.conditions.remove_consent(USERS["alex"])
    async with LocalAzure(state_directory, Ports(0, 0, 0, 0), new_key=new_key) as second:
        url = second.entra.url
        assert error_codes(await on_behalf_of(url, second.entra.access_token("alex"))) == [65001]
        second.entra.conditions.clear(USERS["alex"])
        assert "access_token" in await on_behalf_of(url, second.entra.access_token("alex"))


async def test_a_wrong_secret_is_401_invalid_client(local_azure: LocalAzure) -> None:
    assertion = local_azure.entra.access_token("alex")
    answer = await on_behalf_of(local_azure.entra.url, assertion, credential="wrong")
    assert (answer["error"], error_codes(answer)) == ("invalid_client", [7000215])
    async with (
        aiohttp.ClientSession() as http,
        http.post(
            f"{local_azure.entra.url}/{TENANT}/oauth2/v2.0/token", data=on_behalf_of_form(assertion, client_secret="x")
        ) as refused,
    ):
        assert refused.status == 401


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"client_secret": None}, 7000218),
        ({"client_id": BROWSER.client_id, "client_secret": None}, 7000218),
        ({"client_id": None}, 900144),
        ({"requested_token_use": None}, 900144),
        ({"assertion": None}, 900144),
        ({"scope": None}, 900144),
        ({"scope": "api://unknown/.default"}, 500011),
        ({"claims": "{"}, 50125),
    ],
)
async def test_an_incomplete_call_says_what_is_wrong(
    local_azure: LocalAzure, changes: dict[str, str | None], code: int
) -> None:
    async with aiohttp.ClientSession() as http:
        form = on_behalf_of_form(local_azure.entra.access_token("alex"), **changes)
        _, body = await Browser(http, local_azure.entra.url).redeem(form, origin=None)
    assert error_codes(body) == [code]


async def test_the_capability_to_handle_claims_challenges_reaches_the_token(local_azure: LocalAzure) -> None:
    answer = await on_behalf_of(
        local_azure.entra.url, local_azure.entra.access_token("alex"), client_capabilities=["CP1"]
    )
    assert read(answer["access_token"])["xms_cc"] == ["cp1"]


async def test_a_daemon_gets_an_app_only_token(local_azure: LocalAzure) -> None:
    scope = [f"{API.app_id_uri}/.default"]
    answer = await with_msal(local_azure.entra.url, lambda app: app.acquire_token_for_client(scope), client=DAEMON)
    claims = local_azure.entra.verify(answer["access_token"])
    assert claims is not None
    assert "scp" not in claims
    assert claims["roles"] == list(API.app_roles)
    assert claims["oid"] == claims["sub"] == DAEMON.object_id
    assert (claims["aud"], claims["azp"], claims["azpacr"]) == (API.client_id, DAEMON.client_id, "1")


@pytest.mark.parametrize(
    ("scope", "audience"),
    [
        ("https://communication.azure.com//.default", "https://communication.azure.com/"),
        ("https://graph.microsoft.com/.default", "https://graph.microsoft.com"),
        ("https://localhost:5004/.default", "https://localhost:5004"),
    ],
)
async def test_app_only_tokens_are_for_the_resource_of_the_scope(
    local_azure: LocalAzure, scope: str, audience: str
) -> None:
    answer = await with_msal(local_azure.entra.url, lambda app: app.acquire_token_for_client([scope]))
    claims = read(answer["access_token"])
    assert (claims["aud"], claims["ver"], claims["appid"]) == (audience, "1.0", API.client_id)


async def test_client_credentials_need_a_tenant_and_the_default_scope(local_azure: LocalAzure) -> None:
    form = {"grant_type": "client_credentials", "client_id": DAEMON.client_id, "client_secret": DAEMON.secret or ""}
    async with aiohttp.ClientSession() as http:
        browser = Browser(http, local_azure.entra.url)
        default = {**form, "scope": "https://graph.microsoft.com/.default"}
        assert error_codes((await browser.redeem(default, tenant="common", origin=None))[1]) == [50059]
        single = {**form, "scope": "https://graph.microsoft.com/User.Read"}
        assert error_codes((await browser.redeem(single, origin=None))[1]) == [1002012]
        unknown = {**form, "scope": "api://unknown/.default"}
        assert error_codes((await browser.redeem(unknown, origin=None))[1]) == [500011]


async def test_http_basic_is_as_good_as_the_body(local_azure: LocalAzure) -> None:
    form = {"grant_type": "client_credentials", "scope": "https://graph.microsoft.com/.default"}
    async with aiohttp.ClientSession() as http:
        browser = Browser(http, local_azure.entra.url)
        good = aiohttp.encode_basic_auth(DAEMON.client_id, DAEMON.secret or "")
        assert (await browser.redeem(form, origin=None, authorization=good))[0] == 200
        for bad in (aiohttp.encode_basic_auth(DAEMON.client_id, "wrong"), "Basic ?"):
            status, body = await browser.redeem(form, origin=None, authorization=bad)
            assert (status, body["error"]) == (401, "invalid_client")


def certificate_of(key: rsa.RSAPrivateKey) -> tuple[str, bytes]:
    """The private key as PEM, and a certificate of it as PEM."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "the service")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return pem.decode(), certificate.public_bytes(serialization.Encoding.PEM)


async def test_a_registered_certificate_is_a_credential(
    local_azure: LocalAzure, signing_keys: list[rsa.RSAPrivateKey]
) -> None:
    entra = local_azure.entra
    private_key, certificate = certificate_of(signing_keys[0])
    credential = {"private_key": private_key, "public_certificate": certificate.decode()}
    assertion = entra.access_token("alex")
    refused = await on_behalf_of(entra.url, assertion, credential=credential)
    assert (refused["error"], error_codes(refused)) == ("invalid_client", [700027])
    entra.clients.register_certificate(API.client_id, certificate)
    answer = await on_behalf_of(entra.url, assertion, credential=credential)
    assert read(answer["access_token"])["appidacr"] == "2"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"aud": "https://login.example/token"}, 700023),
        ({"sub": DAEMON.client_id}, 700021),
        ({"exp": 1}, 700024),
        ({"exp": "soon"}, 700024),
        ({"iss": DAEMON.client_id}, 700027),
    ],
)
async def test_a_faulty_client_assertion_is_refused(
    local_azure: LocalAzure, signing_keys: list[rsa.RSAPrivateKey], changes: dict[str, Any], code: int
) -> None:
    entra = local_azure.entra
    _, certificate = certificate_of(signing_keys[0])
    entra.clients.register_certificate(API.client_id, certificate)
    endpoint = f"{entra.url}/{TENANT}/oauth2/v2.0/token"
    claims = {"iss": API.client_id, "sub": API.client_id, "aud": endpoint, "exp": 4_000_000_000, **changes}
    thumbprint = x509.load_pem_x509_certificate(certificate).fingerprint(hashes.SHA256())
    header = {"x5t#S256": base64.urlsafe_b64encode(thumbprint).rstrip(b"=").decode()}
    if "exp" in changes and isinstance(changes["exp"], str):
        signed = jwt.PyJWS().encode(json.dumps(claims).encode(), signing_keys[0], "PS256", headers=header)
    else:
        signed = jwt.encode(claims, signing_keys[0], algorithm="PS256", headers=header)
    form = on_behalf_of_form(
        entra.access_token("alex"), client_secret=None, client_assertion=signed, client_assertion_type=ASSERTION_TYPE
    )
    async with aiohttp.ClientSession() as http:
        status, body = await Browser(http, entra.url).redeem(form, origin=None)
    assert (status, error_codes(body)) == (401, [code])


async def test_a_managed_identity_is_a_federated_credential(local_azure: LocalAzure) -> None:
    entra = local_azure.entra
    answer = await on_behalf_of(
        entra.url,
        entra.access_token("alex"),
        credential={"client_assertion": lambda: entra.managed_identity_token()},
    )
    assert read(answer["access_token"])["oid"] == USERS["alex"].object_id


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"sub": DAEMON.object_id}, 700213),
        ({"aud": "https://management.azure.com"}, 700212),
        ({"iss": f"https://login.example/{HOME_TENANT.tenant_id}/v2.0"}, 700211),
        ({"exp": 1}, 700024),
    ],
)
async def test_a_federated_credential_is_bound_to_issuer_subject_and_audience(
    local_azure: LocalAzure, changes: dict[str, Any], code: int
) -> None:
    entra = local_azure.entra
    answer = await on_behalf_of(
        entra.url,
        entra.access_token("alex"),
        credential={"client_assertion": lambda: entra.managed_identity_token(**changes)},
    )
    assert (answer["error"], error_codes(answer)) == ("invalid_client", [code])


async def test_msal_remembers_a_400_and_asks_again_only_with_another_body(local_azure: LocalAzure) -> None:
    entra = local_azure.entra
    entra.conditions.remove_consent(USERS["alex"])
    assertion = entra.access_token("alex")

    def refused_then_consented(app: msal.ConfidentialClientApplication) -> dict[str, Any]:
        app.acquire_token_on_behalf_of(assertion, GRAPH_SCOPES)
        return dict(app.acquire_token_on_behalf_of(assertion, GRAPH_SCOPES))

    assert error_codes(await with_msal(entra.url, refused_then_consented)) == [65001]
    assert entra.faults.counts["token"] == 1


async def test_msal_answers_one_users_503_to_another_user(local_azure: LocalAzure) -> None:
    entra = local_azure.entra
    entra.faults.script("token", Fault(status=503))
    first, second = entra.access_token("alex"), entra.access_token("megan")

    def one_after_the_other(app: msal.ConfidentialClientApplication) -> dict[str, Any]:
        failures = []
        for assertion in (first, second):
            try:
                app.acquire_token_on_behalf_of(assertion, GRAPH_SCOPES)
            except msal.exceptions.MsalServiceError as error:
                failures.append(error)
        return {"failures": failures}

    assert len((await with_msal(entra.url, one_after_the_other))["failures"]) == 2
    assert entra.faults.counts["token"] == 1


async def test_msal_honours_the_retry_after_of_a_429_for_every_user(local_azure: LocalAzure) -> None:
    entra = local_azure.entra
    body = {"error": "temporarily_unavailable", "error_description": "busy"}
    entra.faults.script("token", Fault(status=429, headers={"Retry-After": "30"}, body=body))
    first, second = entra.access_token("alex"), entra.access_token("megan")

    def one_after_the_other(app: msal.ConfidentialClientApplication) -> dict[str, Any]:
        app.acquire_token_on_behalf_of(first, GRAPH_SCOPES)
        return dict(app.acquire_token_on_behalf_of(second, GRAPH_SCOPES))

    assert (await with_msal(entra.url, one_after_the_other))["error"] == "temporarily_unavailable"
    assert entra.faults.counts["token"] == 1
