"""National clouds: other hosts, other issuers, other audiences, other ids; by settings alone."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from quart.typing import TestClientProtocol as Client

from local_azure.entra.directory import API, HOME_TENANT
from local_azure.environment import LocalAzure
from local_azure.faults import Fault
from quart_app.app import create_app
from quart_app.auth.entra_tokens import EntraTokens
from quart_app.auth.on_behalf_of.credentials import FederatedCredential, client_credential
from quart_app.auth.signing_keys import SigningKeys
from quart_app.clouds import CLOUDS, issuing_host
from quart_app.credentials import managed_identity
from quart_app.settings import InvalidSettings, load_settings
from tests.quart_app.conftest import Bearer
from upstream.http_session import new_http_session

TENANT = HOME_TENANT.tenant_id
CHINA_V1 = f"https://sts.chinacloudapi.cn/{TENANT}/"
CHINA_V2 = f"https://login.partner.microsoftonline.cn/{TENANT}/v2.0"
IDENTITY = "5e1f0a2b-9c3d-4d7e-8b6a-1a2b3c4d5e05"

Serve = Callable[..., AbstractAsyncContextManager[Client]]


@pytest.fixture
def serve(configured: pytest.MonkeyPatch) -> Serve:
    @asynccontextmanager
    async def serve(**more: str) -> AsyncIterator[Client]:
        for name, value in more.items():
            configured.setenv(name, value)
        async with create_app(load_settings(None)) as app:
            yield app.test_client()

    return serve


def publish_as_china(local_azure: LocalAzure) -> None:
    """Let Entra describe itself as the one in China does: other issuers than its address."""
    entra = local_azure.entra
    keys = [{**key.public(), "issuer": CHINA_V2.replace(TENANT, "{tenantid}")} for key in entra.keys.published]
    for version, issuer, part in ((1, CHINA_V1, ""), (2, CHINA_V2, "/v2.0")):
        document = {"issuer": issuer, "jwks_uri": f"{entra.url}/{TENANT}/discovery{part}/keys"}
        entra.faults.script(f"openid_configuration_v{version}", Fault(status=200, body=document, times=None))
    entra.faults.script("keys_v2", Fault(status=200, body={"keys": keys}, times=None))


@pytest.mark.parametrize(("version", "issuer"), [(1, CHINA_V1), (2, CHINA_V2)])
async def test_the_issuers_of_a_cloud_are_those_that_its_metadata_names(
    serve: Serve, local_azure: LocalAzure, version: int, issuer: str
) -> None:
    publish_as_china(local_azure)
    entra = local_azure.entra
    async with serve() as client:
        good = {"Authorization": f"Bearer {entra.access_token('alex', version=version, iss=issuer)}"}
        public = {"Authorization": f"Bearer {entra.access_token('alex', version=version)}"}
        assert (await client.post("/api/user", headers=good)).status_code == 201
        assert (await client.post("/api/user", headers=public)).status_code == 401


@pytest.mark.parametrize("host", ["https://login.partner.microsoftonline.cn", "https://login.chinacloudapi.cn"])
async def test_a_v1_token_is_taken_whichever_address_of_its_cloud_is_configured(
    local_azure: LocalAzure, host: str
) -> None:
    publish_as_china(local_azure)
    entra = local_azure.entra
    published = [{**key.public(), "issuer": CHINA_V2} for key in entra.keys.published]
    entra.faults.script("keys_v1", Fault(status=200, body={"keys": published}, times=None))
    async with new_http_session() as session:
        keys = SigningKeys(session, [f"{entra.url}/{TENANT}/.well-known/openid-configuration"])
        await keys.check()
        (key,) = await keys.find(entra.keys.current.kid)
        await keys.aclose()
    rules = EntraTokens([TENANT], issuing_host(host))
    assert rules.issuer_matches_key({"iss": CHINA_V1, "tid": TENANT}, key)
    public = EntraTokens([TENANT], issuing_host("https://login.microsoftonline.com"))
    assert not public.issuer_matches_key({"iss": CHINA_V1, "tid": TENANT}, key)


@pytest.mark.parametrize("prefix", ["8:acs:", "8:dod-acs:", "8:gcch-acs:"])
@pytest.mark.parametrize("storage", ["sqlite", "cosmos", "graph"])
async def test_ids_of_every_cloud_are_kept_and_used_as_they_are(
    serve: Serve, bearer: Bearer, local_azure: LocalAzure, storage: str, prefix: str
) -> None:
    local_azure.acs.move_to_cloud(prefix)
    development = {"COSMOS_CREATE_IF_MISSING": "true", "ENVIRONMENT": "development"} if storage == "cosmos" else {}
    async with serve(STORAGE_BACKEND=storage, **development) as client:
        created = await client.post("/api/user", headers=bearer("alex"))
        identity = (await created.get_json())["acsUserIdentity"]
        assert identity.startswith(prefix)
        read = await (await client.get("/api/user", headers=bearer("alex"))).get_json()
        assert read == {"acsUserIdentity": identity}
        issued = await (await client.get("/api/token", headers=bearer("alex"))).get_json()
        assert issued["user"] == {"communicationUserId": identity}
        assert f"8:{local_azure.acs.verify_token(issued['token'])['skypeid']}" == identity
        assert (await client.delete("/api/user", headers=bearer("alex"))).status_code == 204
        assert local_azure.acs.live_identities() == []


@pytest.mark.parametrize(
    ("host", "audience"),
    [
        ("https://login.microsoftonline.com", "api://AzureADTokenExchange"),
        ("https://login.microsoftonline.us", "api://AzureADTokenExchangeUSGov"),
        ("https://login.partner.microsoftonline.cn", "api://AzureADTokenExchangeChina"),
        ("https://login.chinacloudapi.cn", "api://AzureADTokenExchangeChina"),
        ("https://localhost:5001", "api://AzureADTokenExchange"),
    ],
)
async def test_a_managed_identity_proves_itself_with_the_audience_of_its_cloud(
    configured: pytest.MonkeyPatch, local_azure: LocalAzure, host: str, audience: str
) -> None:
    entra = local_azure.entra
    configured.delenv("ENTRA_CLIENT_SECRET")
    configured.setenv("ENTRA_AUTHORITY_HOST", host)
    for name, value in entra.managed_identity_environment().items():
        configured.setenv(name, value)
    body = {"access_token": "proof", "expires_on": "9999999999", "resource": audience, "token_type": "Bearer"}
    entra.faults.script("managed_identity_token", Fault(status=200, body=body))
    settings = load_settings(None)
    async with managed_identity(settings.entra) as identity:
        credential = client_credential(settings.entra, identity)
        assert isinstance(credential, FederatedCredential)
        assert await credential.assertion() == "proof"
    (call,) = [call for call in entra.faults.calls if call.operation == "managed_identity_token"]
    asked = parse_qs(urlsplit(call.path).query)
    assert (asked["resource"], asked["client_id"]) == ([audience], [IDENTITY])


async def test_a_teams_token_must_be_for_the_acs_of_this_cloud(
    serve: Serve, bearer: Bearer, local_azure: LocalAzure
) -> None:
    audience = "https://auth.other-cloud.example"
    asked = local_azure.acs.faults.counts
    async with serve(TEAMS_AUDIENCES=audience) as client:
        public, here = local_azure.entra.teams_token("alex"), local_azure.entra.teams_token("alex", aud=audience)
        for token, requests in ((public, 0), (here, 1)):
            headers = {**bearer("alex"), "teams-user-aad-token": token}
            # The stand-in for ACS is that of the public cloud: what reaches it is refused there.
            assert (await client.get("/api/token/teams", headers=headers)).status_code == 401
            assert asked["exchange_teams_token"] == requests


async def test_graph_is_asked_for_with_its_own_host(serve: Serve, bearer: Bearer, local_azure: LocalAzure) -> None:
    async with serve(STORAGE_BACKEND="graph") as client:
        assert (await client.post("/api/user", headers=bearer("alex"))).status_code == 201
        page = await client.get("/docs")
        document = await (await client.get("/openapi.json")).get_json()
    assert local_azure.graph.faults.counts["create_extension"] == 1
    host = local_azure.entra.url
    assert f"connect-src 'self' {host};" in page.headers["Content-Security-Policy"]
    assert "microsoftonline.com" not in json.dumps(document)


FOREIGN_GRAPH = [
    (authority, graph)
    for here in CLOUDS
    for there in CLOUDS
    if here is not there
    for authority in here.authority_hosts
    for graph in there.graph_hosts
]


@pytest.mark.parametrize(("authority", "graph"), FOREIGN_GRAPH)
def test_graph_of_another_cloud_than_the_authority_is_found_at_start(
    configured: pytest.MonkeyPatch, authority: str, graph: str
) -> None:
    configured.setenv("STORAGE_BACKEND", "graph")
    configured.setenv("ENTRA_AUTHORITY_HOST", authority)
    configured.setenv("GRAPH_BASE_URL", graph)
    with pytest.raises(InvalidSettings, match=r"^GRAPH_BASE_URL is in another cloud than ENTRA_AUTHORITY_HOST"):
        load_settings(None)


@pytest.mark.parametrize("cloud", CLOUDS)
def test_the_hosts_of_one_cloud_go_together(configured: pytest.MonkeyPatch, cloud: Any) -> None:
    configured.setenv("STORAGE_BACKEND", "graph")
    for authority in cloud.authority_hosts:
        for graph in cloud.graph_hosts:
            configured.setenv("ENTRA_AUTHORITY_HOST", authority)
            configured.setenv("GRAPH_BASE_URL", graph)
            settings = load_settings(None)
            assert (settings.entra.authority_host, settings.graph.base_url) == (authority, graph)
            assert settings.entra.client_id == API.client_id
