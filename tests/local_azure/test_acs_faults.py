"""Faults of the ACS Identity stand-in, and what the SDK and a restart make of them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from azure.communication.identity import CommunicationUserIdentifier
from azure.communication.identity.aio import CommunicationIdentityClient
from azure.core.exceptions import AzureError, HttpResponseError, ResourceNotFoundError, ServiceRequestError

from local_azure.environment import LocalAzure, Ports
from local_azure.faults import Fault
from local_azure.keys import KeyFactory
from tests.support.held_time import time_running_out


def connection_string(local_azure: LocalAzure) -> str:
    return local_azure.service_environment()["ACS_CONNECTION_STRING"]


@pytest.fixture
async def retrying(local_azure: LocalAzure) -> AsyncIterator[CommunicationIdentityClient]:
    """A client with the SDK's own retries, but without its waits."""
    async with CommunicationIdentityClient.from_connection_string(
        connection_string(local_azure), retry_backoff_factor=0
    ) as client:
        yield client


@pytest.fixture
async def patient(local_azure: LocalAzure) -> AsyncIterator[CommunicationIdentityClient]:
    """A client that sends every request once."""
    async with CommunicationIdentityClient.from_connection_string(
        connection_string(local_azure), retry_total=0
    ) as client:
        yield client


@pytest.mark.parametrize(("status", "attempts"), [(500, 4), (503, 4), (504, 4), (502, 1), (429, 1), (404, 1)])
async def test_the_sdk_alone_repeats_a_failed_create(
    local_azure: LocalAzure, retrying: CommunicationIdentityClient, status: int, attempts: int
) -> None:
    local_azure.acs.faults.script("create_identity", Fault(status=status, times=None))
    with pytest.raises(HttpResponseError) as raised:
        await retrying.create_user()
    assert raised.value.status_code == status
    assert local_azure.acs.faults.counts["create_identity"] == attempts


async def test_the_sdk_repeats_a_throttled_create_when_told_how_long_to_wait(
    local_azure: LocalAzure, retrying: CommunicationIdentityClient
) -> None:
    throttled = Fault(status=429, headers={"Retry-After": "0"}, times=None)
    local_azure.acs.faults.script("create_identity", throttled)
    with pytest.raises(HttpResponseError):
        await retrying.create_user()
    assert local_azure.acs.faults.counts["create_identity"] == 4


@pytest.mark.parametrize("status", [429, 500, 503, 504])
async def test_without_retries_a_create_is_sent_once(
    local_azure: LocalAzure, patient: CommunicationIdentityClient, status: int
) -> None:
    fault = Fault(status=status, headers={"Retry-After": "1"}, times=None)
    local_azure.acs.faults.script("create_identity", fault)
    with pytest.raises(HttpResponseError):
        await patient.create_user()
    assert local_azure.acs.faults.counts["create_identity"] == 1


async def test_an_identity_whose_answer_was_lost_exists_although_the_error_speaks_of_the_request(
    local_azure: LocalAzure, retrying: CommunicationIdentityClient
) -> None:
    local_azure.acs.faults.script("create_identity", Fault(drop_answer=True))
    # azure-core calls a lost connection "the request was not sent", whatever the service did before.
    with pytest.raises(ServiceRequestError):
        await retrying.create_user()
    assert len(local_azure.acs.live_identities()) == 1
    assert local_azure.acs.faults.counts["create_identity"] == 1


async def test_a_reset_create_makes_nothing(local_azure: LocalAzure, patient: CommunicationIdentityClient) -> None:
    local_azure.acs.faults.script("create_identity", Fault(reset=True))
    with pytest.raises(AzureError):
        await patient.create_user()
    assert local_azure.acs.all_identities() == []
    await patient.create_user()


async def test_a_hanging_call_ends_with_the_clients_patience(
    local_azure: LocalAzure, patient: CommunicationIdentityClient
) -> None:
    local_azure.acs.faults.script("create_identity", Fault(hang=True))
    async with time_running_out(local_azure.acs.faults, "create_identity", 3):
        with pytest.raises(AzureError):
            await patient.create_user(read_timeout=3)
    assert local_azure.acs.all_identities() == []


async def test_each_operation_fails_under_its_own_name(
    local_azure: LocalAzure, patient: CommunicationIdentityClient
) -> None:
    created = await patient.create_user()
    calls: dict[str, Callable[[], Awaitable[Any]]] = {
        "create_identity": patient.create_user,
        "issue_access_token": lambda: patient.get_token(created, ["chat"]),
        "revoke_access_tokens": lambda: patient.revoke_tokens(created),
        "delete_identity": lambda: patient.delete_user(created),
        "exchange_teams_token": lambda: patient.get_token_for_teams_user("token", "client", "user"),
    }
    for operation, call in calls.items():
        local_azure.acs.faults.script(operation, Fault(status=418))
        with pytest.raises(HttpResponseError) as raised:
            await call()
        assert raised.value.status_code == 418
    assert local_azure.acs.live_identities() == [created.properties["id"]]


async def test_a_repeated_delete_meets_its_own_first_attempt(
    local_azure: LocalAzure, retrying: CommunicationIdentityClient
) -> None:
    created = await retrying.create_user()
    local_azure.acs.faults.script("delete_identity", Fault(drop_answer=True))
    with pytest.raises(ResourceNotFoundError):
        await retrying.delete_user(created)
    assert local_azure.acs.faults.counts["delete_identity"] == 2
    assert local_azure.acs.live_identities() == []


async def test_two_hundred_simultaneous_creates_mint_as_many_identities(
    local_azure: LocalAzure, patient: CommunicationIdentityClient
) -> None:
    users = await asyncio.gather(*(patient.create_user() for _ in range(200)))
    assert sorted(local_azure.acs.live_identities()) == sorted(user.properties["id"] for user in users)
    assert len(set(local_azure.acs.live_identities())) == 200


async def test_a_restart_keeps_the_key_the_identities_and_their_tokens(
    state_directory: Path, new_key: KeyFactory
) -> None:
    async with LocalAzure(state_directory, Ports(0, 0, 0, 0), new_key=new_key) as first:
        before = connection_string(first).split("accesskey=")[1]
        async with CommunicationIdentityClient.from_connection_string(connection_string(first)) as client:
            kept, token = await client.create_user_and_token(["chat"])
            deleted = await client.create_user()
            await client.delete_user(deleted)
    async with LocalAzure(state_directory, Ports(0, 0, 0, 0), new_key=new_key) as second:
        assert connection_string(second).split("accesskey=")[1] == before
        assert second.acs.live_identities() == [kept.properties["id"]]
        assert second.acs.all_identities() == [kept.properties["id"], deleted.properties["id"]]
        claims = second.acs.verify_token(token.token)
        async with CommunicationIdentityClient.from_connection_string(connection_string(second)) as client:
            new = await client.create_user()
            await client.get_token(CommunicationUserIdentifier(kept.properties["id"]), ["chat"])
        assert new.properties["id"].startswith(f"8:acs:{claims['resourceId']}_")


async def test_a_call_can_be_carried_out_and_never_answered(
    local_azure: LocalAzure, patient: CommunicationIdentityClient
) -> None:
    faults = local_azure.acs.faults
    faults.script("create_identity", Fault(hang=True, drop_answer=True))
    waiting = asyncio.ensure_future(patient.create_user())
    await faults.kept_back("create_identity")
    assert len(local_azure.acs.live_identities()) == 1
    assert not waiting.done()
    waiting.cancel()
    await asyncio.wait({waiting})
