"""In the place of Microsoft's samples: their settings, their routes and answers, and what they left in Graph."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import pytest
from azure.communication.identity import CommunicationUserIdentifier
from azure.communication.identity.aio import CommunicationIdentityClient
from click.testing import CliRunner
from quart.typing import TestClientProtocol as Client

from local_azure.environment import LocalAzure
from quart_app.app import create_app
from quart_app.cli import main
from quart_app.settings import InvalidSettings, Settings, load_settings
from tests.quart_app.conftest import Bearer
from tests.support.entra_client import on_behalf_of

OURS = {
    "tenantId": "ENTRA_TENANT_ID",
    "clientId": "ENTRA_CLIENT_ID",
    "clientSecret": "ENTRA_CLIENT_SECRET",
    "connectionString": "ACS_CONNECTION_STRING",
}
NODE = {
    "tenantId": "microsoftEntraID_tenantId",
    "clientId": "microsoftEntraID_clientId",
    "clientSecret": "microsoftEntraID_clientSecret",
    "connectionString": "communicationServices_connectionString",
}
OLDER_NODE = {
    "tenantId": "azureActiveDirectory_tenantId",
    "clientId": "azureActiveDirectory_clientId",
    "clientSecret": "azureActiveDirectory_clientSecret",
    "connectionString": "communicationServices_connectionString",
}
C_SHARP = {
    "tenantId": "AzureActiveDirectory__TenantId",
    "clientId": "AzureActiveDirectory__ClientId",
    "clientSecret": "AzureActiveDirectory__ClientSecret",
    "connectionString": "CommunicationServices__ConnectionString",
}
SAMPLES = {"node": NODE, "older node": OLDER_NODE, "c#": C_SHARP}
EXTENSION = "com.contoso.identityMapping"


@pytest.fixture
def environment(local_azure: LocalAzure, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A deployment of the samples with nothing added but the choice of Graph, a key, and the stand-ins' addresses."""
    given = local_azure.service_environment()
    for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "ENTRA_AUTHORITY_HOST", "GRAPH_BASE_URL", "GRAPH_SEAL_KEYS"):
        monkeypatch.setenv(name, given[name])
    monkeypatch.setenv("STORAGE_BACKEND", "graph")
    monkeypatch.setenv("WEBSITE_NODE_DEFAULT_VERSION", "12.21.0")
    return monkeypatch


def use_names(environment: pytest.MonkeyPatch, local_azure: LocalAzure, names: dict[str, str]) -> None:
    given = local_azure.service_environment()
    for meaning, name in names.items():
        environment.setenv(name, given[OURS[meaning]])


@pytest.fixture
async def client(environment: pytest.MonkeyPatch, local_azure: LocalAzure) -> AsyncIterator[Client]:
    use_names(environment, local_azure, NODE)
    async with create_app(load_settings(None)) as app:
        yield app.test_client()


class Sample:
    """What the samples do with Graph and ACS: the same requests, with the user's own token by on-behalf-of."""

    def __init__(self, local_azure: LocalAzure, http: aiohttp.ClientSession, token: str) -> None:
        given = local_azure.service_environment()
        self._me = f"{given['GRAPH_BASE_URL']}/v1.0/me"
        self._connection_string = given["ACS_CONNECTION_STRING"]
        self._http = http
        self._headers = {"Authorization": f"Bearer {token}"}

    async def create_user(self) -> str:
        """`POST /api/user`: an identity, then the mapping."""
        async with CommunicationIdentityClient.from_connection_string(self._connection_string) as acs:
            identity = (await acs.create_user()).properties["id"]
        await self.add_mapping(identity)
        return identity

    async def add_mapping(self, identity: str) -> None:
        body = {
            "@odata.type": "microsoft.graph.openTypeExtension",
            "extensionName": EXTENSION,
            "acsUserIdentity": identity,
        }
        async with self._http.post(f"{self._me}/extensions", json=body, headers=self._headers) as answer:
            assert answer.status == 201

    async def find_user(self) -> str | None:
        """`GET /api/user`: the extension of that name, and its one property."""
        parameters = {"$select": "id", "$expand": "extensions"}
        async with self._http.get(self._me, params=parameters, headers=self._headers) as answer:
            assert answer.status == 200
            extensions = (await answer.json())["extensions"]
        return next((each["acsUserIdentity"] for each in extensions if each["extensionName"] == EXTENSION), None)

    async def issue_token(self) -> None:
        """`GET /api/token`."""
        identity = await self.find_user()
        assert identity is not None
        async with CommunicationIdentityClient.from_connection_string(self._connection_string) as acs:
            await acs.get_token(CommunicationUserIdentifier(identity), ["voip", "chat"])

    async def delete_user(self) -> None:
        """`DELETE /api/user`: the mapping, then the identity."""
        identity = await self.find_user()
        assert identity is not None
        async with self._http.delete(f"{self._me}/extensions/{EXTENSION}", headers=self._headers) as answer:
            assert answer.status == 204
        async with CommunicationIdentityClient.from_connection_string(self._connection_string) as acs:
            await acs.delete_user(CommunicationUserIdentifier(identity))


@asynccontextmanager
async def sample_for(local_azure: LocalAzure, user: str) -> AsyncIterator[Sample]:
    answer = await on_behalf_of(local_azure.entra.url, local_azure.entra.access_token(user))
    async with aiohttp.ClientSession() as http:
        yield Sample(local_azure, http, answer["access_token"])


@pytest.fixture
async def sample(local_azure: LocalAzure) -> AsyncIterator[Sample]:
    """The sample, serving Alex."""
    async with sample_for(local_azure, "alex") as sample:
        yield sample


async def seal() -> dict[str, Any]:
    """`acs-auth seal`, with the environment's settings."""
    result = await asyncio.to_thread(CliRunner().invoke, main, ["seal", "--json"])
    assert result.exit_code == 0, result.output
    told: dict[str, Any] = json.loads(result.stdout)
    return told


async def body_of(answer: Any, status: int) -> Any:
    assert answer.status_code == status
    return await answer.get_json()


@pytest.mark.parametrize("names", SAMPLES)
async def test_a_deployment_of_a_sample_works_with_its_own_settings(
    names: str, environment: pytest.MonkeyPatch, local_azure: LocalAzure, bearer: Bearer
) -> None:
    use_names(environment, local_azure, SAMPLES[names])
    async with create_app(load_settings(None)) as app:
        client = app.test_client()
        created = await body_of(await client.post("/api/user", headers=bearer("alex")), 201)
        assert await body_of(await client.get("/api/user", headers=bearer("alex")), 200) == created
        assert (await client.get("/api/token", headers=bearer("alex"))).status_code == 201
        assert (await client.delete("/api/user", headers=bearer("alex"))).status_code == 204


async def test_an_identity_that_a_sample_mapped_is_read_and_used(
    client: Client, bearer: Bearer, local_azure: LocalAzure, sample: Sample
) -> None:
    identity = await sample.create_user()
    await seal()
    assert await body_of(await client.get("/api/user", headers=bearer("alex")), 200) == {"acsUserIdentity": identity}
    assert await body_of(await client.post("/api/user", headers=bearer("alex")), 200) == {"acsUserIdentity": identity}
    token = await body_of(await client.get("/api/token", headers=bearer("alex")), 201)
    assert token["user"] == {"communicationUserId": identity}
    assert local_azure.acs.verify_token(token["token"])["skypeid"] == identity.removeprefix("8:")
    assert local_azure.acs.all_identities() == [identity]


async def test_a_mapping_that_a_sample_made_and_nobody_sealed_is_told_with_the_remedy_and_can_be_replaced(
    client: Client, bearer: Bearer, local_azure: LocalAzure, sample: Sample
) -> None:
    identity = await sample.create_user()
    refused = await body_of(await client.get("/api/user", headers=bearer("alex")), 409)
    assert refused["error"] == "mapping_unreadable"
    assert "DELETE /api/user" in refused["message"]
    assert (await client.delete("/api/user", headers=bearer("alex"))).status_code == 204
    created = await body_of(await client.post("/api/user", headers=bearer("alex")), 201)
    assert await sample.find_user() == created["acsUserIdentity"] != identity


async def test_beside_the_samples_their_mappings_are_used_until_the_day_that_the_operator_set(
    environment: pytest.MonkeyPatch, bearer: Bearer, local_azure: LocalAzure, sample: Sample
) -> None:
    use_names(environment, local_azure, NODE)
    identity = await sample.create_user()
    today = datetime.now(UTC).date()
    environment.setenv("GRAPH_ACCEPT_UNSEALED_UNTIL", (today + timedelta(days=1)).isoformat())
    async with create_app(load_settings(None)) as app:
        client = app.test_client()
        found = await body_of(await client.get("/api/user", headers=bearer("alex")), 200)
        assert found == {"acsUserIdentity": identity}
        assert (await client.get("/api/token", headers=bearer("alex"))).status_code == 201
        assert (await client.delete("/api/user", headers=bearer("alex"))).status_code == 204
        assert await sample.find_user() is None
        assert local_azure.acs.live_identities() == [identity], "Nothing is deleted on an unsealed mapping's word."
    environment.setenv("GRAPH_ACCEPT_UNSEALED_UNTIL", (today - timedelta(days=1)).isoformat())
    await sample.add_mapping(identity)
    async with create_app(load_settings(None)) as app:
        refused = await body_of(await app.test_client().get("/api/user", headers=bearer("alex")), 409)
        assert refused["error"] == "mapping_unreadable"


async def test_an_identity_that_a_sample_mapped_is_deleted_with_its_mapping(
    client: Client, bearer: Bearer, local_azure: LocalAzure, sample: Sample
) -> None:
    await sample.create_user()
    await seal()
    assert (await client.delete("/api/user", headers=bearer("alex"))).status_code == 204
    assert local_azure.acs.live_identities() == []
    assert await sample.find_user() is None
    assert (await client.get("/api/user", headers=bearer("alex"))).status_code == 404


async def test_a_sample_reads_uses_and_deletes_what_this_service_mapped(
    client: Client, bearer: Bearer, local_azure: LocalAzure, sample: Sample
) -> None:
    created = await body_of(await client.post("/api/user", headers=bearer("alex")), 201)
    assert await sample.find_user() == created["acsUserIdentity"]
    await sample.issue_token()
    await sample.delete_user()
    assert (await client.get("/api/user", headers=bearer("alex"))).status_code == 404
    assert (await client.get("/api/token", headers=bearer("alex"))).status_code == 404
    again = await body_of(await client.post("/api/user", headers=bearer("alex")), 201)
    assert local_azure.acs.live_identities() == [again["acsUserIdentity"]]


async def test_a_mapping_of_a_sample_to_another_resource_is_told_and_can_be_replaced(
    client: Client, bearer: Bearer, local_azure: LocalAzure, sample: Sample
) -> None:
    await sample.add_mapping(local_azure.acs.foreign_id())
    await seal()
    refused = await body_of(await client.get("/api/token", headers=bearer("alex")), 409)
    assert refused["error"] == "identity_resource_mismatch"
    assert (await client.delete("/api/user", headers=bearer("alex"))).status_code == 204
    assert (await client.post("/api/user", headers=bearer("alex"))).status_code == 201
    assert (await client.get("/api/token", headers=bearer("alex"))).status_code == 201


async def test_the_success_answers_are_the_samples_own(
    environment: pytest.MonkeyPatch, bearer: Bearer, local_azure: LocalAzure
) -> None:
    use_names(environment, local_azure, NODE)
    environment.setenv("TEAMS_CLIENT_IDS", local_azure.service_environment()["TEAMS_CLIENT_IDS"])
    async with create_app(load_settings(None)) as app:
        client = app.test_client()
        created = await body_of(await client.post("/api/user", headers=bearer("alex")), 201)
        assert list(created) == ["acsUserIdentity"]
        assert await body_of(await client.post("/api/user", headers=bearer("alex")), 200) == created
        token = await body_of(await client.get("/api/token", headers=bearer("alex")), 201)
        assert list(token) == ["token", "expiresOn", "user"]
        assert token["user"] == {"communicationUserId": created["acsUserIdentity"]}
        teams = {"teams-user-aad-token": local_azure.entra.teams_token("alex")}
        answer = await client.get("/api/token/teams", headers={**bearer("alex"), **teams})
        assert list(await body_of(answer, 201)) == ["token", "expiresOn"]
        deleted = await client.delete("/api/user", headers=bearer("alex"))
        assert (deleted.status_code, await deleted.get_data()) == (204, b"")


async def test_errors_keep_the_samples_code_and_message(client: Client, bearer: Bearer) -> None:
    refused = await body_of(await client.get("/api/user", headers=bearer("alex")), 404)
    assert refused["code"] == 404
    assert refused["message"]
    assert "stack_trace" not in refused


def loaded_as(environment: pytest.MonkeyPatch, local_azure: LocalAzure, names: dict[str, str]) -> Settings:
    use_names(environment, local_azure, names)
    return load_settings(None)


@pytest.mark.parametrize("names", SAMPLES)
def test_each_name_of_the_samples_means_ours(
    names: str, environment: pytest.MonkeyPatch, local_azure: LocalAzure
) -> None:
    by_theirs = loaded_as(environment, local_azure, SAMPLES[names])
    for name in SAMPLES[names].values():
        environment.delenv(name)
    assert loaded_as(environment, local_azure, OURS) == by_theirs


def test_our_name_counts_where_both_are_set(environment: pytest.MonkeyPatch, local_azure: LocalAzure) -> None:
    use_names(environment, local_azure, OURS)
    environment.setenv(NODE["clientId"], "00001111-aaaa-2222-bbbb-3333cccc4444")
    assert load_settings(None).entra.client_id == local_azure.service_environment()["ENTRA_CLIENT_ID"]


def test_further_settings_of_the_csharp_sample_are_understood(
    environment: pytest.MonkeyPatch, local_azure: LocalAzure
) -> None:
    environment.delenv("ENTRA_AUTHORITY_HOST")
    environment.delenv("GRAPH_BASE_URL")
    environment.setenv("AzureActiveDirectory__Instance", "https://login.microsoftonline.us/")
    environment.setenv("Graph__BaseUrl", "https://graph.microsoft.us/v1.0")
    environment.setenv("Graph__ExtensionName", "com.fabrikam.mapping")
    settings = loaded_as(environment, local_azure, C_SHARP)
    assert settings.entra.authority_host == "https://login.microsoftonline.us"
    assert settings.graph.base_url == "https://graph.microsoft.us"
    assert settings.graph.extension_name == "com.fabrikam.mapping"


def test_settings_of_the_samples_that_mean_nothing_here_are_told(
    environment: pytest.MonkeyPatch, local_azure: LocalAzure
) -> None:
    environment.setenv("Graph__Scopes", "user.read")
    with pytest.raises(InvalidSettings, match="Graph__Scopes means nothing here; leave it out"):
        loaded_as(environment, local_azure, C_SHARP)


def test_a_fault_in_a_samples_setting_is_told_by_our_name(
    environment: pytest.MonkeyPatch, local_azure: LocalAzure
) -> None:
    use_names(environment, local_azure, C_SHARP)
    environment.setenv(C_SHARP["tenantId"], "common")
    with pytest.raises(InvalidSettings) as caught:
        load_settings(None)
    assert caught.value.faults == [
        "ENTRA_TENANT_ID: must be a GUID such as 11112222-bbbb-3333-cccc-4444dddd5555: the one tenant that holds the "
        "API's app registration; the tenants whose users may call go into ENTRA_ALLOWED_TENANTS."
    ]
