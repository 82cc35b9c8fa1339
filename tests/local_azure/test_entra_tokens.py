"""The tokens of the Entra ID stand-in have the claims that Entra documents, and tests can bend each of them."""

import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import jwt
import pytest

from local_azure.entra.directory import API, BROWSER, DAEMON, HOME_TENANT, OTHER_TENANT, TEAMS, USERS
from local_azure.environment import LocalAzure, Ports
from local_azure.keys import KeyFactory
from tests.conftest import FakeClock
from tests.support.entra_client import TENANT, read

NOW = 1_800_000_000
BOTH = {"aud", "iss", "iat", "nbf", "exp", "aio", "name", "oid", "rh", "scp", "sub", "tid", "uti", "ver"}


@pytest.fixture
async def azure(state_directory: Path, new_key: KeyFactory) -> AsyncIterator[LocalAzure]:
    async with LocalAzure(state_directory, Ports(0, 0, 0, 0), clock=FakeClock(NOW), new_key=new_key) as running:
        yield running


async def test_a_v2_access_token_has_the_documented_claims(azure: LocalAzure) -> None:
    token = azure.entra.access_token("megan")
    claims = read(token)
    assert jwt.get_unverified_header(token) == {"alg": "RS256", "typ": "JWT", "kid": azure.entra.keys.current.kid}
    assert claims.keys() == BOTH | {"azp", "azpacr", "preferred_username"}
    assert claims["aud"] == API.client_id
    assert claims["iss"] == f"{azure.entra.url}/{TENANT}/v2.0"
    assert (claims["azp"], claims["azpacr"]) == (BROWSER.client_id, "0")
    assert (claims["scp"], claims["ver"]) == ("access_as_user", "2.0")
    assert (claims["tid"], claims["oid"]) == (TENANT, USERS["megan"].object_id)
    assert (claims["iat"], claims["nbf"], claims["exp"]) == (NOW, NOW, NOW + 75 * 60)


async def test_a_v1_access_token_has_the_documented_claims(azure: LocalAzure) -> None:
    token = azure.entra.access_token("megan", version=1)
    claims = read(token)
    kid = azure.entra.keys.current.kid
    assert jwt.get_unverified_header(token) == {"alg": "RS256", "typ": "JWT", "kid": kid, "x5t": kid}
    assert claims.keys() == BOTH | {"acr", "amr", "appid", "appidacr", "ipaddr", "unique_name", "upn"}
    assert claims["aud"] == f"api://{API.client_id}"
    assert claims["iss"] == f"https://sts.windows.net/{TENANT}/"
    assert (claims["appid"], claims["appidacr"]) == (BROWSER.client_id, "0")
    assert (claims["unique_name"], claims["ver"]) == ("megan@contoso.localhost", "1.0")


async def test_the_registration_decides_on_the_version(azure: LocalAzure) -> None:
    azure.entra.api_token_version = 1
    assert read(azure.entra.access_token("alex"))["ver"] == "1.0"
    assert read(azure.entra.app_only_token())["ver"] == "1.0"


async def test_a_user_of_another_tenant_has_its_issuer(azure: LocalAzure) -> None:
    claims = read(azure.entra.access_token("nestor"))
    assert claims["tid"] == OTHER_TENANT.tenant_id
    assert claims["iss"] == f"{azure.entra.url}/{OTHER_TENANT.tenant_id}/v2.0"


async def test_the_subject_is_stable_for_one_app_and_differs_for_another(azure: LocalAzure) -> None:
    subjects = [read(azure.entra.access_token("alex"))["sub"] for _ in range(2)]
    assert subjects[0] == subjects[1] != read(azure.entra.teams_token("alex"))["sub"]
    assert subjects[0] != read(azure.entra.access_token("megan"))["sub"]


async def test_no_two_tokens_have_the_same_identifier(azure: LocalAzure) -> None:
    assert len({read(azure.entra.access_token("alex"))["uti"] for _ in range(20)}) == 20


async def test_a_teams_token_is_for_acs_and_names_its_client(azure: LocalAzure) -> None:
    claims = azure.entra.verify(azure.entra.teams_token("alex"))
    assert claims is not None
    assert claims["aud"] == "https://auth.msft.communication.azure.com"
    assert claims["scp"] == "Teams.ManageCalls Teams.ManageChats"
    assert (claims["appid"], claims["oid"]) == (TEAMS.client_id, USERS["alex"].object_id)


async def test_an_app_only_token_has_roles_and_no_user(azure: LocalAzure) -> None:
    claims = read(azure.entra.app_only_token())
    assert not {"scp", "name", "preferred_username"} & claims.keys()
    assert claims["roles"] == list(API.app_roles)
    assert claims["oid"] == claims["sub"] == DAEMON.object_id


async def test_a_test_can_bend_every_claim_and_header(azure: LocalAzure) -> None:
    entra = azure.entra
    claims = read(entra.access_token("alex", scope="other", tid="x", aud=None, lifetime=-60, groups=["g"]))
    assert (claims["scp"], claims["tid"], claims["groups"]) == ("other", "x", ["g"])
    assert "aud" not in claims
    assert claims["exp"] == NOW - 60
    header = jwt.get_unverified_header(entra.sign(claims, headers={"kid": None, "typ": "at+jwt"}))
    assert header == {"alg": "RS256", "typ": "at+jwt"}


async def test_the_service_gets_the_settings_of_this_directory(azure: LocalAzure) -> None:
    assert azure.entra.service_environment() == {
        "ENTRA_AUTHORITY_HOST": azure.entra.url,
        "ENTRA_TENANT_ID": HOME_TENANT.tenant_id,
        "ENTRA_CLIENT_ID": API.client_id,
        "ENTRA_CLIENT_SECRET": API.secret,
        "TEAMS_CLIENT_IDS": TEAMS.client_id,
        "DOCS_CLIENT_ID": BROWSER.client_id,
    }


async def test_every_id_of_the_directory_is_a_guid_of_its_own() -> None:
    ids = [user.object_id for user in USERS.values()]
    ids += [tenant.tenant_id for tenant in (HOME_TENANT, OTHER_TENANT)]
    ids += [name for app in (API, BROWSER, TEAMS, DAEMON) for name in (app.client_id, app.object_id)]
    assert len(set(ids)) == len(ids)
    assert all(str(uuid.UUID(value)) == value for value in ids)
