"""The Entra ID stand-in's metadata and signing keys, read by PyJWT's own key client and by MSAL."""

import asyncio
import base64
import hashlib
import ssl
from pathlib import Path
from typing import Any

import aiohttp
import jwt
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from local_azure.entra.directory import API, DAEMON, OTHER_TENANT
from local_azure.environment import LocalAzure, Ports
from local_azure.keys import KeyFactory
from tests.support.entra_client import TENANT, read, with_msal

MSA_TENANT = "9188040d-6c67-4c5b-b112-36a304b66dad"


async def get(local_azure: LocalAzure, path: str, status: int = 200) -> dict[str, Any]:
    async with aiohttp.ClientSession() as http, http.get(f"{local_azure.entra.url}{path}") as answer:
        assert answer.status == status
        body: dict[str, Any] = await answer.json()
        return body


async def key_ids(local_azure: LocalAzure) -> list[str]:
    keys = (await get(local_azure, f"/{TENANT}/discovery/v2.0/keys"))["keys"]
    return [key["kid"] for key in keys]


async def validate(local_azure: LocalAzure, token: str, tenant: str = TENANT) -> dict[str, Any]:
    """Validate as a resource does, with keys from the wire."""
    keys_url = f"{local_azure.entra.url}/{tenant}/discovery/v2.0/keys"

    def run() -> dict[str, Any]:
        key = jwt.PyJWKClient(keys_url, ssl_context=ssl.create_default_context()).get_signing_key_from_jwt(token)
        claims: dict[str, Any] = jwt.decode(
            token,
            key,
            algorithms=["RS256"],
            audience=API.client_id,
            issuer=f"{local_azure.entra.url}/{tenant}/v2.0",
            options={"require": ["exp", "iat", "iss", "aud"]},
        )
        return claims

    return await asyncio.to_thread(run)


async def test_v2_metadata_names_the_tenants_endpoints_and_issuer(local_azure: LocalAzure) -> None:
    url = local_azure.entra.url
    document = await get(local_azure, f"/{TENANT}/v2.0/.well-known/openid-configuration")
    assert document["issuer"] == f"{url}/{TENANT}/v2.0"
    assert document["jwks_uri"] == f"{url}/{TENANT}/discovery/v2.0/keys"
    assert document["token_endpoint"] == f"{url}/{TENANT}/oauth2/v2.0/token"
    assert document["authorization_endpoint"] == f"{url}/{TENANT}/oauth2/v2.0/authorize"
    assert document["id_token_signing_alg_values_supported"] == ["RS256"]
    assert document["subject_types_supported"] == ["pairwise"]


async def test_v1_metadata_has_the_sts_issuer_and_keys_of_its_own(local_azure: LocalAzure) -> None:
    document = await get(local_azure, f"/{TENANT}/.well-known/openid-configuration")
    assert document["issuer"] == f"https://sts.windows.net/{TENANT}/"
    assert document["jwks_uri"] == f"{local_azure.entra.url}/{TENANT}/discovery/keys"


@pytest.mark.parametrize("alias", ["common", "organizations"])
async def test_the_issuer_of_a_tenantless_authority_is_a_template(local_azure: LocalAzure, alias: str) -> None:
    newer = await get(local_azure, f"/{alias}/v2.0/.well-known/openid-configuration")
    older = await get(local_azure, f"/{alias}/.well-known/openid-configuration")
    assert newer["issuer"] == f"{local_azure.entra.url}/{{tenantid}}/v2.0"
    assert older["issuer"] == "https://sts.windows.net/{tenantid}/"
    assert newer["jwks_uri"] == f"{local_azure.entra.url}/{alias}/discovery/v2.0/keys"


async def test_a_domain_name_stands_for_its_tenant(local_azure: LocalAzure) -> None:
    document = await get(local_azure, f"/{OTHER_TENANT.domain}/v2.0/.well-known/openid-configuration")
    assert document["issuer"] == f"{local_azure.entra.url}/{OTHER_TENANT.tenant_id}/v2.0"


@pytest.mark.parametrize("path", ["v2.0/.well-known/openid-configuration", "discovery/v2.0/keys"])
async def test_an_unknown_tenant_is_refused(local_azure: LocalAzure, path: str) -> None:
    body = await get(local_azure, f"/nowhere/{path}", status=400)
    assert body["error"] == "invalid_tenant"
    assert body["error_codes"] == [90002]


async def test_metadata_and_keys_may_be_cached_for_a_day(local_azure: LocalAzure) -> None:
    async with (
        aiohttp.ClientSession() as http,
        http.get(f"{local_azure.entra.url}/{TENANT}/discovery/v2.0/keys") as answer,
    ):
        assert answer.headers["Cache-Control"] == "max-age=86400, private"


async def test_instance_discovery_points_to_this_host(local_azure: LocalAzure) -> None:
    body = await get(local_azure, "/common/discovery/instance?api-version=1.1")
    host = local_azure.entra.url.removeprefix("https://")
    assert body["tenant_discovery_endpoint"].startswith(local_azure.entra.url)
    assert body["metadata"] == [{"preferred_network": host, "preferred_cache": host, "aliases": [host]}]


async def test_several_v2_keys_are_published_each_with_certificate_and_issuer(local_azure: LocalAzure) -> None:
    keys = (await get(local_azure, f"/{TENANT}/discovery/v2.0/keys"))["keys"]
    assert len(keys) > 1
    for key in keys:
        certificate = base64.b64decode(key["x5c"][0])
        digest = base64.urlsafe_b64encode(hashlib.sha1(certificate).digest()).rstrip(b"=").decode()
        public_key = x509.load_der_x509_certificate(certificate).public_key()
        assert key["kid"] == key["x5t"] == digest
        assert key["issuer"] == f"{local_azure.entra.url}/{{tenantid}}/v2.0"
        assert (key["kty"], key["use"], key["e"]) == ("RSA", "sig", "AQAB")
        assert jwt.PyJWK(key, "RS256").key.public_numbers() == public_key.public_numbers()  # type: ignore[union-attr]


async def test_v1_keys_name_no_issuer(local_azure: LocalAzure) -> None:
    keys = (await get(local_azure, f"/{TENANT}/discovery/keys"))["keys"]
    assert [key["kid"] for key in keys] == await key_ids(local_azure)
    assert all("issuer" not in key for key in keys)


async def test_the_common_endpoint_mixes_in_keys_of_personal_accounts(local_azure: LocalAzure) -> None:
    common = (await get(local_azure, "/common/discovery/v2.0/keys"))["keys"]
    others = [key for key in common if key["kid"] not in await key_ids(local_azure)]
    assert [key["issuer"] for key in others] == [f"{local_azure.entra.url}/{MSA_TENANT}/v2.0"]


async def test_a_resource_validates_a_token_with_the_published_keys(local_azure: LocalAzure) -> None:
    claims = await validate(local_azure, local_azure.entra.access_token("alex"))
    assert claims["oid"] == local_azure.entra.users["alex"].object_id


async def test_a_rotated_key_signs_at_once_and_old_tokens_stay_valid(local_azure: LocalAzure) -> None:
    before = await key_ids(local_azure)
    old = local_azure.entra.access_token("alex")
    local_azure.entra.rotate()
    new = local_azure.entra.access_token("alex")
    assert jwt.get_unverified_header(new)["kid"] not in before
    assert set(before) < set(await key_ids(local_azure))
    assert await validate(local_azure, old)
    assert await validate(local_azure, new)


async def test_a_retired_key_is_no_longer_published_and_its_tokens_fail(local_azure: LocalAzure) -> None:
    old = local_azure.entra.access_token("alex")
    local_azure.entra.rotate()
    local_azure.entra.retire()
    new = local_azure.entra.access_token("alex")
    assert await key_ids(local_azure) == [jwt.get_unverified_header(new)["kid"]]
    assert local_azure.entra.verify(old) is None
    with pytest.raises(jwt.PyJWKClientError, match="Unable to find a signing key"):
        await validate(local_azure, old)
    assert await validate(local_azure, new)


async def test_keys_and_tokens_survive_a_restart(state_directory: Path, new_key: KeyFactory) -> None:
    async with LocalAzure(state_directory, Ports(0, 0, 0, 0), new_key=new_key) as first:
        first.entra.rotate()
        first.entra.retire()
        token = first.entra.access_token("megan")
        published = await key_ids(first)
    async with LocalAzure(state_directory, Ports(0, 0, 0, 0), new_key=new_key) as second:
        assert await key_ids(second) == published
        assert second.entra.verify(token) == read(token)
        assert jwt.get_unverified_header(second.entra.access_token("megan"))["kid"] == published[0]


async def test_verify_refuses_what_this_entra_did_not_sign(
    local_azure: LocalAzure, signing_keys: list[rsa.RSAPrivateKey]
) -> None:
    entra = local_azure.entra
    good = read(entra.access_token("alex"))
    assert entra.verify(entra.sign(good)) == good
    assert entra.verify(entra.sign(good, key=signing_keys[3])) is None
    assert entra.verify(entra.sign(good, headers={"kid": "unknown"})) is None
    assert entra.verify(entra.sign(good, headers={"kid": None})) is None
    assert entra.verify(entra.access_token("alex", lifetime=-1)) is None
    assert entra.verify(jwt.encode(good, "", algorithm="none")) is None
    assert entra.verify(entra.sign({**good, "exp": None})) is None
    assert entra.verify("not a token") is None


async def test_msal_reads_the_metadata_when_it_is_made(local_azure: LocalAzure) -> None:
    found = await with_msal(local_azure.entra.url, lambda app: {"endpoint": app.authority.token_endpoint})
    assert found["endpoint"] == f"{local_azure.entra.url}/{TENANT}/oauth2/v2.0/token"
    assert local_azure.entra.faults.counts["openid_configuration_v2"] == 1


# Keys of an application's own


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("tenant", [TENANT, "common"])
async def test_an_applications_own_key_is_published_to_those_who_ask_for_it(
    local_azure: LocalAzure, version: int, tenant: str
) -> None:
    entra = local_azure.entra
    kid = entra.sign_with_own_key()
    part = "/v2.0" if version == 2 else ""
    plain = await get(local_azure, f"/{tenant}{part}/.well-known/openid-configuration")
    asked = await get(local_azure, f"/{tenant}{part}/.well-known/openid-configuration?appid={API.client_id}")
    assert asked == plain | {"jwks_uri": f"{plain['jwks_uri']}?appid={API.client_id}"}
    usual = (await get(local_azure, plain["jwks_uri"].removeprefix(entra.url)))["keys"]
    with_own = (await get(local_azure, asked["jwks_uri"].removeprefix(entra.url)))["keys"]
    assert [key["kid"] for key in with_own] == [kid, *(key["kid"] for key in usual)]
    other = await get(local_azure, f"/{tenant}/discovery{part}/keys?appid={DAEMON.client_id}")
    assert other == {"keys": usual}


@pytest.mark.parametrize("version", [1, 2])
async def test_the_tokens_for_an_application_with_its_own_key_are_signed_with_it(
    local_azure: LocalAzure, version: int
) -> None:
    entra = local_azure.entra
    kid = entra.sign_with_own_key()
    for token in (entra.access_token("alex", version=version), entra.app_only_token(version=version)):
        assert jwt.get_unverified_header(token)["kid"] == kid
        assert entra.verify(token) is not None
    assert jwt.get_unverified_header(entra.teams_token("alex"))["kid"] == entra.keys.current.kid
    entra.sign_with_the_tenants_key()
    assert jwt.get_unverified_header(entra.access_token("alex"))["kid"] == entra.keys.current.kid


async def test_an_applications_own_key_survives_a_restart_and_a_retirement(
    state_directory: Path, new_key: KeyFactory
) -> None:
    async with LocalAzure(state_directory, Ports(0, 0, 0, 0), new_key=new_key) as first:
        kid = first.entra.sign_with_own_key()
    async with LocalAzure(state_directory, Ports(0, 0, 0, 0), new_key=new_key) as second:
        second.entra.retire()
        token = second.entra.access_token("alex")
        assert jwt.get_unverified_header(token)["kid"] == kid
        assert second.entra.verify(token) is not None
        assert kid not in await key_ids(second)
