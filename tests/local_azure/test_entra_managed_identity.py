"""The managed identity endpoint, asked by MSAL and by azure-identity."""

import asyncio
from typing import Any

import aiohttp
import msal
import pytest
import requests
from azure.identity.aio import ManagedIdentityCredential

from local_azure.entra.directory import MANAGED_IDENTITY, USERS
from local_azure.environment import LocalAzure
from tests.support.entra_client import TENANT, on_behalf_of, read

EXCHANGE = "api://AzureADTokenExchange"


@pytest.fixture
def azure(local_azure: LocalAzure, monkeypatch: pytest.MonkeyPatch) -> LocalAzure:
    """This process runs as a workload with the user-assigned identity."""
    for name, value in local_azure.entra.managed_identity_environment().items():
        monkeypatch.setenv(name, value)
    return local_azure


def identity_token(resource: str, client_id: str = MANAGED_IDENTITY.client_id) -> dict[str, Any]:
    identity = msal.UserAssignedManagedIdentity(client_id=client_id)
    with requests.Session() as session:
        client = msal.ManagedIdentityClient(identity, http_client=session)
        return dict(client.acquire_token_for_client(resource=resource))


async def test_the_identity_replaces_the_services_secret(azure: LocalAzure) -> None:
    credential = {"client_assertion": lambda: identity_token(EXCHANGE)["access_token"]}
    answer = await on_behalf_of(azure.entra.url, azure.entra.access_token("alex"), credential=credential)
    assert read(answer["access_token"])["oid"] == USERS["alex"].object_id


async def test_the_exchange_token_names_the_identitys_principal(azure: LocalAzure) -> None:
    claims = read((await asyncio.to_thread(identity_token, EXCHANGE))["access_token"])
    assert claims["iss"] == f"{azure.entra.url}/{TENANT}/v2.0"
    assert (claims["sub"], claims["aud"]) == (MANAGED_IDENTITY.object_id, EXCHANGE)


async def test_azure_identity_gets_a_token_for_acs(azure: LocalAzure) -> None:
    async with ManagedIdentityCredential(client_id=MANAGED_IDENTITY.client_id) as credential:
        token = await credential.get_token("https://communication.azure.com//.default")
    claims = azure.entra.verify(token.token)
    assert claims is not None
    assert claims["aud"] == "https://communication.azure.com/"
    assert (claims["oid"], claims["appid"]) == (MANAGED_IDENTITY.object_id, MANAGED_IDENTITY.client_id)
    assert token.expires_on == claims["exp"]


@pytest.mark.parametrize(
    ("resource", "client_id"),
    [("api://unknown", MANAGED_IDENTITY.client_id), (EXCHANGE, "11111111-1111-4111-8111-111111111111")],
)
@pytest.mark.usefixtures("azure")
async def test_an_unknown_resource_or_identity_is_refused(resource: str, client_id: str) -> None:
    answer = await asyncio.to_thread(identity_token, resource, client_id)
    assert answer.keys() == {"error", "error_description"}


async def test_the_platforms_header_is_required(azure: LocalAzure) -> None:
    address = f"{azure.entra.url}/msi/token"
    query = {"api-version": "2019-08-01", "resource": EXCHANGE, "client_id": MANAGED_IDENTITY.client_id}
    async with aiohttp.ClientSession() as http:
        for headers in ({}, {"X-IDENTITY-HEADER": "guessed"}):
            async with http.get(address, params=query, headers=headers) as answer:
                assert answer.status == 401
