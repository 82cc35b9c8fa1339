"""A scripted fault can be any answer at all, also one that no server of Azure wrote."""

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from azure.cosmos.aio import CosmosClient
from azure.cosmos.exceptions import CosmosHttpResponseError
from azure.identity.aio import ManagedIdentityCredential

from local_azure.control import operations
from local_azure.cosmos import forbidden
from local_azure.entra.directory import HOME_TENANT, MANAGED_IDENTITY
from local_azure.environment import LocalAzure
from local_azure.faults import Fault, Faults, UnknownOperation
from tests.support.entra_client import on_behalf_of

TOKEN = f"/{HOME_TENANT.tenant_id}/oauth2/v2.0/token"
HTML = "<html><body><h1>404 Not Found</h1><hr>nginx</body></html>"
STRANGER = Fault(status=404, headers={"X-Powered-By": "stranger"}, body=HTML, content_type="text/html", times=None)
PLACES = {
    "entra token endpoint": ("entra", "POST", TOKEN, "token"),
    "managed identity endpoint": ("entra", "GET", "/msi/token", "managed_identity_token"),
    "graph": ("graph", "GET", "/v1.0/me", "get_me"),
    "acs": ("acs", "POST", "/identities", "create_identity"),
    "cosmos": ("cosmos", "GET", "/dbs/acs/colls/identities/docs/x", "read_item"),
}


def url_of(local_azure: LocalAzure, service: str) -> str:
    settings = local_azure.service_environment(secrets=False)
    names = {"graph": "GRAPH_BASE_URL", "acs": "ACS_ENDPOINT", "cosmos": "COSMOS_ENDPOINT"}
    return local_azure.entra.url if service == "entra" else settings[names[service]].rstrip("/")


def faults_of(local_azure: LocalAzure, service: str) -> Faults:
    faults: Faults = getattr(local_azure, service).faults
    return faults


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def script(local_azure: LocalAzure, http: aiohttp.ClientSession, place: str, fault: Any) -> tuple[int, str]:
    """Script a fault over HTTP; the status of the answer, and its text."""
    service, _, _, operation = PLACES[place]
    async with http.put(f"{url_of(local_azure, service)}/local/faults/{operation}", json=fault) as answer:
        return answer.status, await answer.text()


async def call(local_azure: LocalAzure, http: aiohttp.ClientSession, place: str) -> tuple[int, dict[str, str], bytes]:
    """Status, headers (names in lower case) and body of a plain call."""
    service, method, path, _ = PLACES[place]
    async with http.request(method, f"{url_of(local_azure, service)}{path}") as answer:
        return answer.status, {name.lower(): value for name, value in answer.headers.items()}, await answer.read()


@pytest.mark.parametrize("place", PLACES)
async def test_a_strangers_answer_has_nothing_of_the_stand_in(
    local_azure: LocalAzure, http: aiohttp.ClientSession, place: str
) -> None:
    faults_of(local_azure, PLACES[place][0]).script(PLACES[place][3], STRANGER)
    status, headers, body = await call(local_azure, http, place)
    assert (status, body.decode()) == (404, HTML)
    assert headers["content-type"] == "text/html"
    assert headers.keys() == {"x-powered-by", "content-type", "content-length", "date", "server"}


@pytest.mark.parametrize("place", PLACES)
async def test_an_answer_may_be_any_bytes_without_a_type(
    local_azure: LocalAzure, http: aiohttp.ClientSession, place: str
) -> None:
    faults = faults_of(local_azure, PLACES[place][0])
    faults.script(PLACES[place][3], Fault(status=502, body=b"\x1f\x8b\x00", content_type=""))
    status, headers, body = await call(local_azure, http, place)
    assert (status, body) == (502, b"\x1f\x8b\x00")
    assert "content-type" not in headers


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    ("fault", "body", "content_type"),
    [
        ({"body": "null", "content_type": "application/json"}, b"null", "application/json"),
        ({"body": {"error": {"code": "Denied"}}}, b'{"error": {"code": "Denied"}}', "application/json; charset=utf-8"),
        ({"body": "gone"}, b"gone", "text/plain; charset=utf-8"),
        ({"body_base64": "AP8="}, b"\x00\xff", "application/octet-stream"),
        ({"body": HTML, "headers": {"content-type": "text/html"}}, HTML.encode(), "text/html"),
        ({"body": "", "content_type": ""}, b"", None),
    ],
)
async def test_the_same_can_be_scripted_over_http(
    local_azure: LocalAzure,
    http: aiohttp.ClientSession,
    place: str,
    fault: dict[str, Any],
    body: bytes,
    content_type: str | None,
) -> None:
    assert await script(local_azure, http, place, {"status": 200, **fault}) == (204, "")
    status, headers, answered = await call(local_azure, http, place)
    assert (status, answered, headers.get("content-type")) == (200, body, content_type)


@pytest.mark.parametrize(
    "fault",
    [
        {"status": 200, "body": "x", "body_base64": "eA=="},
        {"status": 200, "body_base64": "not base64"},
        {"status": 200, "body_base64": 1},
        {"status": 200, "content_type": 1},
        {"status": 200, "until": None},
    ],
)
async def test_what_cannot_be_an_answer_is_refused(
    local_azure: LocalAzure, http: aiohttp.ClientSession, fault: dict[str, Any]
) -> None:
    assert (await script(local_azure, http, "graph", fault))[0] == 400


@pytest.mark.parametrize("service", ["entra", "graph", "acs", "cosmos"])
async def test_an_unknown_operation_is_refused_with_the_known_ones(
    local_azure: LocalAzure, http: aiohttp.ClientSession, service: str
) -> None:
    url = f"{url_of(local_azure, service)}/local/faults/craete_identity"
    async with http.put(url, json={"status": 500}) as answer:
        assert answer.status == 404
        told = await answer.text()
    known = operations(getattr(local_azure, service).application())
    with pytest.raises(UnknownOperation, match="craete_identity"):
        faults_of(local_azure, service).script("craete_identity", Fault(status=500))
    assert "craete_identity" in told
    assert told.endswith(f"{', '.join(known)}.\n")
    assert {"*", "unknown", PLACES.get(service, PLACES["entra token endpoint"])[3]} <= set(known)


# What real clients make of it


async def test_msal_meets_a_gateways_error_and_a_null_at_the_token_endpoint(local_azure: LocalAzure) -> None:
    entra = local_azure.entra
    entra.faults.script("token", Fault(status=403, body={"error": {"code": "Denied"}}))
    assert (await on_behalf_of(entra.url, entra.access_token("alex")))["error"] == {"code": "Denied"}
    entra.faults.script("token", Fault(status=200, body="null", content_type="application/json"))
    with pytest.raises(TypeError):
        await on_behalf_of(entra.url, entra.access_token("alex"))


async def test_a_refusal_without_a_content_type_breaks_azure_identity_in_its_known_way(
    local_azure: LocalAzure, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in local_azure.entra.managed_identity_environment().items():
        monkeypatch.setenv(name, value)
    refused = Fault(status=403, body="Forbidden", content_type="", times=None)
    local_azure.entra.faults.script("managed_identity_token", refused)
    async with ManagedIdentityCredential(client_id=MANAGED_IDENTITY.client_id, retry_total=0) as credential:
        with pytest.raises(AttributeError, match="startswith"):
            await credential.get_token("https://communication.azure.com//.default")


async def test_the_cosmos_sdk_reads_a_strangers_404_as_a_missing_item(local_azure: LocalAzure) -> None:
    settings = local_azure.cosmos.service_environment()
    local_azure.cosmos.faults.script("read_item", STRANGER)
    async with CosmosClient(settings["COSMOS_ENDPOINT"], settings["COSMOS_KEY"]) as client:
        container = client.get_database_client("acs").get_container_client("identities")
        with pytest.raises(CosmosHttpResponseError) as raised:
            await container.read_item("x", partition_key="x")
    assert raised.value.status_code == 404
    assert not any(name.lower().startswith("x-ms") for name in raised.value.headers)


@pytest.mark.parametrize("sub_status", [3, 1008, 5301])
async def test_a_refusal_of_cosmos_has_its_sub_status(local_azure: LocalAzure, sub_status: int) -> None:
    settings = local_azure.cosmos.service_environment()
    local_azure.cosmos.faults.script("create_item", forbidden(sub_status, times=None))
    client = CosmosClient(settings["COSMOS_ENDPOINT"], settings["COSMOS_KEY"], enable_endpoint_discovery=False)
    async with client:
        container = client.get_database_client("acs").get_container_client("identities")
        with pytest.raises(CosmosHttpResponseError) as raised:
            await container.create_item({"id": "x"})
    assert (raised.value.status_code, raised.value.sub_status) == (403, sub_status)
