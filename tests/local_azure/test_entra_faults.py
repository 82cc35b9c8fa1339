"""Scripted faults and control routes of the Entra ID stand-in."""

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import requests

from local_azure.entra.directory import BROWSER, USERS
from local_azure.environment import LocalAzure
from local_azure.faults import Fault
from tests.support.entra_client import (
    TENANT,
    Browser,
    error_codes,
    on_behalf_of,
    read,
    redemption,
    with_msal,
)
from tests.support.held_time import time_running_out

KEYS = f"/{TENANT}/discovery/v2.0/keys"


@pytest.fixture
async def http(local_azure: LocalAzure) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(local_azure.entra.url) as session:
        yield session


async def status_of(http: aiohttp.ClientSession, path: str = KEYS, **more: Any) -> int:
    async with http.get(path, **more) as answer:
        return answer.status


async def test_a_scripted_status_comes_with_its_headers_and_body_and_then_ends(
    http: aiohttp.ClientSession, local_azure: LocalAzure
) -> None:
    local_azure.entra.faults.script("keys_v2", Fault(status=503, headers={"Retry-After": "7"}, body={"error": "down"}))
    async with http.get(KEYS) as answer:
        assert (answer.status, answer.headers["Retry-After"]) == (503, "7")
        assert await answer.json() == {"error": "down"}
    assert await status_of(http) == 200


async def test_a_fault_concerns_its_own_operation(http: aiohttp.ClientSession, local_azure: LocalAzure) -> None:
    local_azure.entra.faults.script("keys_v1", Fault(status=500))
    assert await status_of(http) == 200
    assert await status_of(http, f"/{TENANT}/discovery/keys") == 500


async def test_a_delay_outlasts_an_impatient_client(http: aiohttp.ClientSession, local_azure: LocalAzure) -> None:
    faults = local_azure.entra.faults
    faults.script("keys_v2", Fault(delay=30), Fault(delay=0.01))
    async with time_running_out(faults, "keys_v2", 3):
        with pytest.raises(TimeoutError):
            await status_of(http, timeout=aiohttp.ClientTimeout(total=3))
    assert await status_of(http) == 200


async def test_a_reset_breaks_the_connection(http: aiohttp.ClientSession, local_azure: LocalAzure) -> None:
    local_azure.entra.faults.script("keys_v2", Fault(reset=True, times=None))
    with pytest.raises(aiohttp.ClientConnectionError):
        await status_of(http)
    local_azure.entra.faults.clear()
    assert await status_of(http) == 200


async def test_a_hanging_call_ends_when_the_client_gives_up(
    http: aiohttp.ClientSession, local_azure: LocalAzure
) -> None:
    local_azure.entra.faults.script("keys_v2", Fault(hang=True))
    async with time_running_out(local_azure.entra.faults, "keys_v2", 3):
        with pytest.raises(TimeoutError):
            await status_of(http, timeout=aiohttp.ClientTimeout(total=3))
    assert await status_of(http) == 200


async def test_a_dropped_answer_has_used_the_code_up(http: aiohttp.ClientSession, local_azure: LocalAzure) -> None:
    browser = Browser(http, local_azure.entra.url)
    code = (await browser.authorize())["code"]
    local_azure.entra.faults.script("token", Fault(drop_answer=True))
    with pytest.raises(aiohttp.ClientConnectionError):
        await browser.redeem(redemption(code))
    assert error_codes((await browser.redeem(redemption(code)))[1]) == [54005]


async def test_msal_cannot_be_made_while_metadata_is_down(local_azure: LocalAzure) -> None:
    local_azure.entra.faults.script("openid_configuration_v2", Fault(reset=True, times=None))
    with pytest.raises(requests.exceptions.ConnectionError):
        await with_msal(local_azure.entra.url, lambda _: {})


async def test_faults_are_scripted_and_counted_over_http(http: aiohttp.ClientSession) -> None:
    fault = {"status": 429, "headers": {"Retry-After": "1"}, "times": 2}
    async with http.put("/local/faults/keys_v2", json=fault) as answer:
        assert answer.status == 204
    assert [await status_of(http) for _ in range(3)] == [429, 429, 200]
    async with http.put("/local/faults/keys_v2", json=[{"status": 500}, {"status": 502}]) as answer:
        assert answer.status == 204
    assert await status_of(http) == 500
    async with http.delete("/local/faults") as answer:
        assert answer.status == 204
    assert await status_of(http) == 200
    async with http.get("/local/calls") as answer:
        assert await answer.json() == {"keys_v2": 5}


@pytest.mark.parametrize(
    "body",
    [
        '{"x": 1}',
        '"down"',
        "[1]",
        "{",
        '{"status": "500"}',
        '{"times": 0}',
        '{"delay": "1"}',
        '{"headers": [1]}',
    ],
)
async def test_what_is_not_a_fault_is_refused_and_changes_nothing(http: aiohttp.ClientSession, body: str) -> None:
    async with http.put("/local/faults/keys_v2", data=body) as answer:
        assert answer.status == 400
    assert await status_of(http) == 200


async def test_the_command_line_gets_users_and_tokens(http: aiohttp.ClientSession, local_azure: LocalAzure) -> None:
    async with http.get("/local/users") as answer:
        users = await answer.json()
    assert [user["alias"] for user in users] == list(USERS)
    assert users[0]["object_id"] == USERS["alex"].object_id
    async with http.post("/local/token", json={"user": "megan"}) as answer:
        token = (await answer.json())["access_token"]
    claims = local_azure.entra.verify(token)
    assert claims is not None
    assert (claims["oid"], claims["azp"]) == (USERS["megan"].object_id, BROWSER.client_id)
    async with http.post("/local/token", json={"user": "megan", "teams": True}) as answer:
        teams = read((await answer.json())["access_token"])
    assert teams["scp"] == "Teams.ManageCalls Teams.ManageChats"


@pytest.mark.parametrize(("body", "status"), [('{"user": "eve"}', 404), ('{"user": 1}', 404), ("{", 400), ("[]", 400)])
async def test_a_faulty_token_request_is_refused(http: aiohttp.ClientSession, body: str, status: int) -> None:
    async with http.post("/local/token", data=body) as answer:
        assert answer.status == status


async def test_keys_are_rotated_and_retired_over_http(http: aiohttp.ClientSession, local_azure: LocalAzure) -> None:
    first = local_azure.entra.keys.current.kid
    async with http.post("/local/keys/rotate") as answer:
        assert answer.status == 204
    published = [key.kid for key in local_azure.entra.keys.published]
    assert first in published[:-1]
    async with http.post("/local/keys/retire") as answer:
        assert answer.status == 204
    assert [key.kid for key in local_azure.entra.keys.published] == published[-1:]


async def test_conditions_are_scripted_over_http(http: aiohttp.ClientSession, local_azure: LocalAzure) -> None:
    url, assertion = local_azure.entra.url, local_azure.entra.access_token("alex")
    async with http.put("/local/conditions/alex", json={"consent_missing": True}) as answer:
        assert answer.status == 204
    assert error_codes(await on_behalf_of(url, assertion)) == [65001]
    async with http.put("/local/conditions/alex", json={"multi_factor_required": True}) as answer:
        assert answer.status == 204
    assert error_codes(await on_behalf_of(url, assertion)) == [50076]
    async with http.delete("/local/conditions") as answer:
        assert answer.status == 204
    assert "access_token" in await on_behalf_of(url, assertion)


async def test_control_calls_are_neither_counted_nor_faulted(
    http: aiohttp.ClientSession, local_azure: LocalAzure
) -> None:
    local_azure.entra.faults.script("*", Fault(status=500, times=None))
    assert await status_of(http, "/local/users") == 200
    assert not local_azure.entra.faults.counts
