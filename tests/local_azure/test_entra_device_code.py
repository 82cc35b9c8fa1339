"""The device authorization grant of the Entra ID stand-in, beyond what `acs-auth token` makes of it."""

import re

import aiohttp
import pytest

from local_azure.entra.directory import API, COMMAND_LINE, HOME_TENANT
from local_azure.environment import LocalAzure

SCOPE = f"{API.app_id_uri}/access_as_user"
GRANT = "urn:ietf:params:oauth:grant-type:device_code"


async def post(local_azure: LocalAzure, path: str, **form: str) -> tuple[int, dict[str, object]]:
    url = f"{local_azure.entra.url}/{HOME_TENANT.tenant_id}/oauth2/v2.0/{path}"
    async with aiohttp.ClientSession() as session, session.post(url, data=form) as answer:
        return answer.status, await answer.json()


async def poll(local_azure: LocalAzure, device_code: object, grant: str = GRANT) -> tuple[int, dict[str, object]]:
    form = {"grant_type": grant, "client_id": COMMAND_LINE.client_id, "device_code": str(device_code)}
    return await post(local_azure, "token", **form)


@pytest.mark.parametrize("grant", [GRANT, "device_code"], ids=["as in RFC 8628", "as MSAL.js writes it"])
async def test_a_device_code_is_pending_then_good_once(local_azure: LocalAzure, grant: str) -> None:
    status, begun = await post(local_azure, "devicecode", client_id=COMMAND_LINE.client_id, scope=SCOPE)
    assert status == 200
    assert re.fullmatch(r"[A-Z]{9}", str(begun["user_code"]))
    status, pending = await poll(local_azure, begun["device_code"], grant)
    assert (status, pending["error"], pending["error_codes"]) == (400, "authorization_pending", [70016])
    async with aiohttp.ClientSession() as session:
        await session.post(str(begun["verification_uri"]), data={"user_code": begun["user_code"], "user": "alex"})
    status, answer = await poll(local_azure, begun["device_code"], grant)
    assert status == 200
    claims = local_azure.entra.verify(str(answer["access_token"]))
    assert claims is not None
    assert claims["azp"] == COMMAND_LINE.client_id
    status, again = await poll(local_azure, begun["device_code"], grant)
    assert (status, again["error"]) == (400, "bad_verification_code")


@pytest.mark.parametrize(
    ("form", "error"),
    [
        ({"scope": SCOPE}, "invalid_request"),
        ({"client_id": COMMAND_LINE.client_id}, "invalid_request"),
        ({"client_id": "11112222-bbbb-3333-cccc-4444dddd5555", "scope": SCOPE}, "unauthorized_client"),
        ({"client_id": COMMAND_LINE.client_id, "scope": f"{API.app_id_uri}/none"}, "invalid_client"),
    ],
)
async def test_a_bad_request_for_a_code_is_refused(local_azure: LocalAzure, form: dict[str, str], error: str) -> None:
    status, answer = await post(local_azure, "devicecode", **form)
    assert status in (400, 401)
    assert answer["error"] == error


async def test_the_application_permission_for_graph_is_the_apis_alone(local_azure: LocalAzure) -> None:
    claims = local_azure.entra.verify(
        local_azure.entra.app_only_token(API, scope="https://graph.microsoft.com/.default")
    )
    assert claims is not None
    assert claims["roles"] == ["User.ReadWrite.All", "Directory.Read.All"]
    others = local_azure.entra.verify(local_azure.entra.app_only_token(scope="https://graph.microsoft.com/.default"))
    assert others is not None
    assert "roles" not in others
