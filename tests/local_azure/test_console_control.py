"""What the console drives of the stand-ins."""

import ssl
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from local_azure.environment import LocalAzure

ORIGIN = {"Origin": "http://localhost:5000"}


@pytest.fixture
async def control(local_azure: LocalAzure) -> AsyncIterator[aiohttp.ClientSession]:
    trust = ssl.create_default_context(cafile=local_azure.authority.certificate_path)
    connector = aiohttp.TCPConnector(ssl=trust)
    async with aiohttp.ClientSession(local_azure.entra.url, connector=connector, headers=ORIGIN) as session:
        yield session


async def told_by(control: aiohttp.ClientSession) -> dict[str, Any]:
    async with control.get("/local/console") as answer:
        assert answer.headers["Access-Control-Allow-Origin"] == ORIGIN["Origin"]
        told: dict[str, Any] = await answer.json()
        return told


async def test_a_fault_is_switched_on_and_off_and_others_stay(
    control: aiohttp.ClientSession, local_azure: LocalAzure
) -> None:
    names = [fault["name"] for fault in (await told_by(control))["faults"]]
    assert names == ["throttle_acs", "drop_cosmos_answer", "stop_entra"]
    for on in (True, True, False):
        async with control.put("/local/console/faults/stop_entra", json={"on": on}) as answer:
            assert answer.status == 204
        assert [fault["on"] for fault in (await told_by(control))["faults"]] == [False, False, on]
    async with control.put("/local/console/faults/none", json={"on": True}) as answer:
        assert answer.status == 404
        assert "throttle_acs" in await answer.text()


async def test_the_user_is_switched_and_keys_are_rotated(
    control: aiohttp.ClientSession, local_azure: LocalAzure
) -> None:
    async with control.post("/local/console/keys/rotate") as answer:
        assert answer.status == 204
    async with control.post("/local/console/token", json={"user": "zoe"}) as answer:
        claims = local_azure.entra.verify((await answer.json())["access_token"])
    assert claims is not None
    assert claims["name"] == "Zoë Ångström"
    local_azure.user_states.delete(local_azure.entra.users["zoe"])
    assert "zoe" not in [user["alias"] for user in (await told_by(control))["users"]]
    async with control.post("/local/console/token", json={"user": "zoe"}) as answer:
        assert answer.status == 404


@pytest.mark.parametrize("origin", ["https://example.com", "null", "http://localhost.example.com"])
async def test_a_page_from_elsewhere_drives_nothing(control: aiohttp.ClientSession, origin: str) -> None:
    for method in ("POST", "OPTIONS"):
        async with control.request(method, "/local/console/keys/rotate", headers={"Origin": origin}) as answer:
            assert answer.status == 403
            assert "Access-Control-Allow-Origin" not in answer.headers
