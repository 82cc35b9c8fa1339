"""What the stand-ins say about a path or a method that is not there: each in the form of its own service."""

from typing import Any

import aiohttp
import pytest
from azure.communication.identity.aio import CommunicationIdentityClient
from azure.core.exceptions import HttpResponseError
from azure.core.rest import HttpRequest
from azure.cosmos.aio import CosmosClient
from azure.cosmos.exceptions import CosmosHttpResponseError

from local_azure.entra.directory import HOME_TENANT
from local_azure.environment import LocalAzure

TOKEN = f"/{HOME_TENANT.tenant_id}/oauth2/v2.0/token"


async def ask(url: str, method: str, token: str | None = None) -> tuple[int, Any]:
    headers = {} if token is None else {"Authorization": token}
    async with aiohttp.ClientSession(headers=headers) as session, session.request(method, url) as answer:
        assert answer.content_type == "application/json"
        return answer.status, await answer.json()


@pytest.mark.parametrize(
    ("method", "path", "status", "code", "part"),
    [
        ("GET", TOKEN, 405, 900561, "only accepts OPTIONS, POST requests. Received a GET request."),
        ("DELETE", "/common/discovery/v2.0/keys", 405, 900561, "Received a DELETE request."),
        ("GET", "/common/nowhere", 404, 90023, "/common/nowhere"),
    ],
)
async def test_entra_id(local_azure: LocalAzure, method: str, path: str, status: int, code: int, part: str) -> None:
    answered, body = await ask(f"{local_azure.entra.url}{path}", method)
    assert (answered, body["error"], body["error_codes"]) == (status, "invalid_request", [code])
    assert body["error_description"].startswith(f"AADSTS{code}: ")
    assert part in body["error_description"]
    assert {"trace_id", "correlation_id", "timestamp"} <= body.keys()


async def test_the_managed_identity_endpoint(local_azure: LocalAzure) -> None:
    status, body = await ask(f"{local_azure.entra.url}/msi/token", "POST")
    assert (status, body["statusCode"]) == (405, 405)
    assert body["message"]


@pytest.mark.parametrize(("method", "path", "status"), [("PUT", "/v1.0/me", 405), ("GET", "/v1.0/me/shoes", 400)])
async def test_graph(local_azure: LocalAzure, method: str, path: str, status: int) -> None:
    url = local_azure.graph.service_environment()["GRAPH_BASE_URL"]
    answered, body = await ask(f"{url}{path}", method, f"Bearer {local_azure.entra.graph_token('alex')}")
    assert answered == status
    assert {"date", "request-id", "client-request-id"} == body["error"]["innerError"].keys()


async def test_acs(local_azure: LocalAzure) -> None:
    connection_string = local_azure.service_environment()["ACS_CONNECTION_STRING"]
    async with CommunicationIdentityClient.from_connection_string(connection_string, retry_total=0) as client:
        operations = client._identity_service_client._client
        for method, path, status, code in (
            ("GET", "/identities", 405, "MethodNotAllowed"),
            ("POST", "/rooms", 404, "ResourceNotFound"),
        ):
            url = f"{connection_string.split(';')[0].removeprefix('endpoint=')[:-1]}{path}?api-version=2023-10-01"
            answer = await operations.send_request(HttpRequest(method, url))
            assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
            assert answer.json()["error"]["message"]
            with pytest.raises(HttpResponseError):
                answer.raise_for_status()


async def test_cosmos(local_azure: LocalAzure) -> None:
    settings = local_azure.cosmos.service_environment()
    async with CosmosClient(settings["COSMOS_ENDPOINT"], settings["COSMOS_KEY"]) as client:
        container = client.get_database_client("acs").get_container_client("identities")
        await container.create_item({"id": "x"})
        with pytest.raises(CosmosHttpResponseError) as raised:
            await container.patch_item("x", "x", [{"op": "add", "path": "/a", "value": 1}])
        assert raised.value.status_code == 405
        assert "MethodNotAllowed" in str(raised.value)
        with pytest.raises(CosmosHttpResponseError) as raised:
            await anext(container.scripts.list_stored_procedures())
        assert raised.value.status_code == 404
        assert "NotFound" in str(raised.value)
