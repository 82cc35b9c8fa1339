"""Signing keys: fetched once, refreshed, kept, never asked for too often."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import aiohttp
import jwt
import pytest

from local_azure.environment import LocalAzure
from local_azure.faults import Fault
from quart_app.auth.signing_keys import RefreshSchedule, SigningKeys, SigningKeysUnavailable
from tests.conftest import FakeClock


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=ssl.create_default_context())) as session:
        yield session


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(1000)


@pytest.fixture
async def keys(session: aiohttp.ClientSession, local_azure: LocalAzure, clock: FakeClock) -> AsyncIterator[SigningKeys]:
    tenant = local_azure.service_environment()["ENTRA_TENANT_ID"]
    url = f"{local_azure.entra.url}/{tenant}/v2.0/.well-known/openid-configuration"
    keys = SigningKeys(session, [url], clock=clock)
    yield keys
    await keys.aclose()


def key_id(local_azure: LocalAzure) -> str:
    """The id of the key that Entra signs with at the moment."""
    return str(jwt.get_unverified_header(local_azure.entra.access_token("alex"))["kid"])


def fetches(local_azure: LocalAzure) -> int:
    return local_azure.entra.faults.counts["keys_v2"]


async def test_a_hundred_simultaneous_look_ups_cause_one_fetch(keys: SigningKeys, local_azure: LocalAzure) -> None:
    wanted = key_id(local_azure)
    found = await asyncio.gather(*(keys.find(wanted) for _ in range(100)))
    assert all(len(candidates) == 1 for candidates in found)
    assert fetches(local_azure) == 1


async def test_a_key_of_entra_carries_the_template_of_its_issuer(keys: SigningKeys, local_azure: LocalAzure) -> None:
    (key,) = await keys.find(key_id(local_azure))
    assert key.issuer == f"{local_azure.entra.url}/{local_azure.service_environment()['ENTRA_TENANT_ID']}/v2.0"
    assert key.key_issuer is not None
    assert "{tenantid}" in key.key_issuer


async def test_unknown_key_ids_cause_one_fetch_for_each_cooldown(
    keys: SigningKeys, local_azure: LocalAzure, clock: FakeClock
) -> None:
    await keys.refresh()
    for number in range(50):
        assert await keys.find(f"unknown-{number}") == ()
    assert fetches(local_azure) == 2
    clock.advance(299)
    assert await keys.find("still-unknown") == ()
    assert fetches(local_azure) == 2
    clock.advance(1)
    assert await keys.find("still-unknown") == ()
    assert fetches(local_azure) == 3


async def test_a_burst_of_unknown_key_ids_does_not_lock_out_known_ones(
    keys: SigningKeys, local_azure: LocalAzure
) -> None:
    wanted = key_id(local_azure)
    await keys.refresh()
    await asyncio.gather(*(keys.find(f"unknown-{number}") for number in range(100)))
    assert await keys.find(wanted)


async def test_nobody_waits_for_an_issuer_that_told_no_keys_the_last_time(
    session: aiohttp.ClientSession, local_azure: LocalAzure, clock: FakeClock
) -> None:
    """Its users would hold the places of those who come in by another door."""
    tenant, answering = local_azure.service_environment()["ENTRA_TENANT_ID"], asyncio.Event()
    url = f"{local_azure.entra.url}/{tenant}/v2.0/.well-known/openid-configuration"
    keys = SigningKeys(session, [url], RefreshSchedule(fetch_timeout=3600), clock=clock)
    faults = local_azure.entra.faults
    faults.script("openid_configuration_v2", Fault(status=503))
    await keys.refresh()
    faults.script("openid_configuration_v2", Fault(until=answering))
    fetching = asyncio.create_task(keys.refresh())
    await faults.arrived("openid_configuration_v2", 2)
    async with asyncio.timeout(60):
        with pytest.raises(SigningKeysUnavailable):
            await keys.find("unknown")
    assert not fetching.done()
    answering.set()
    await fetching
    assert keys.loaded
    await keys.aclose()


async def test_a_rotated_key_is_found_and_a_retired_one_forgotten(keys: SigningKeys, local_azure: LocalAzure) -> None:
    old = key_id(local_azure)
    (old_key,) = await keys.find(old)
    local_azure.entra.rotate()
    new = key_id(local_azure)
    assert new != old
    assert await keys.find(new)
    assert keys.holds(old_key)
    local_azure.entra.retire()
    await keys.refresh()
    assert await keys.find(new)
    assert not keys.holds(old_key)


@pytest.mark.parametrize(
    "fault",
    [
        Fault(status=503),
        Fault(status=302, headers={"Location": "https://localhost:1/keys"}),
        Fault(status=200, body="not json"),
        Fault(status=200, body=[]),
        Fault(status=200, body={"keys": []}),
        Fault(status=200, body={"keys": [{"kty": "RSA", "kid": "x", "n": "AQAB", "e": "AQAB"}]}),
        Fault(status=200, body="[" * 100_000),
        Fault(status=200, body='{"keys": [' + " " * (512 * 1024) + "]}"),
        Fault(reset=True),
    ],
)
async def test_keys_are_kept_when_a_refresh_fails(keys: SigningKeys, local_azure: LocalAzure, fault: Fault) -> None:
    wanted = key_id(local_azure)
    assert await keys.find(wanted)
    local_azure.entra.faults.script("keys_v2", fault)
    await keys.refresh()
    assert await keys.find(wanted)


async def test_while_keys_cannot_be_fetched_an_unknown_key_id_is_no_verdict(
    keys: SigningKeys, local_azure: LocalAzure, clock: FakeClock
) -> None:
    local_azure.entra.faults.script("openid_configuration_v2", Fault(status=503, times=None))
    wanted = key_id(local_azure)
    for _ in range(20):
        with pytest.raises(SigningKeysUnavailable):
            await keys.find(wanted)
    assert local_azure.entra.faults.counts["openid_configuration_v2"] == 1
    local_azure.entra.faults.clear()
    clock.advance(10)
    assert await keys.find(wanted)


async def test_after_an_empty_fetch_the_background_looks_again_soon_and_not_only_at_the_next_hour(
    session: aiohttp.ClientSession, local_azure: LocalAzure
) -> None:
    tenant = local_azure.service_environment()["ENTRA_TENANT_ID"]
    url = f"{local_azure.entra.url}/{tenant}/v2.0/.well-known/openid-configuration"
    fetched: asyncio.Queue[None] = asyncio.Queue()

    @contextmanager
    def measure(_: str) -> Iterator[None]:
        yield
        fetched.put_nowait(None)

    keys = SigningKeys(session, [url], RefreshSchedule(interval=3600, after_failure=0), measure=measure)
    keys.start()
    async with asyncio.timeout(10):
        await keys.refresh()
        while not fetched.empty():
            fetched.get_nowait()
        empty = Fault(status=200, body={"keys": []})
        local_azure.entra.faults.script("keys_v2", empty, empty)
        with pytest.raises(SigningKeysUnavailable):
            await keys.find("unknown")  # whose fetch is told nothing
        for _ in range(3):
            await fetched.get()
        await keys.refresh()
    assert await keys.find(key_id(local_azure))
    await keys.aclose()


@pytest.mark.parametrize("address", ["http://issuer.example/keys", "https://", "https://[", "https://[::1", 7, None])
async def test_a_discovery_document_may_not_point_to_anything_but_https(
    keys: SigningKeys, local_azure: LocalAzure, address: Any
) -> None:
    document = {"issuer": "https://issuer.example", "jwks_uri": address}
    local_azure.entra.faults.script("openid_configuration_v2", Fault(status=200, body=document, times=None))
    with pytest.raises(SigningKeysUnavailable):
        await keys.find("any")
    assert list(keys.faults().values()) == ["The discovery document lacks issuer or an https jwks_uri."]
    assert fetches(local_azure) == 0


async def test_an_issuer_that_names_an_impossible_host_costs_the_others_nothing(
    session: aiohttp.ClientSession, local_azure: LocalAzure
) -> None:
    root = f"{local_azure.entra.url}/{local_azure.service_environment()['ENTRA_TENANT_ID']}"
    odd, sound = [f"{root}{version}/.well-known/openid-configuration" for version in ("", "/v2.0")]
    document = {"issuer": "https://issuer.example", "jwks_uri": "https://issuer..example/keys"}
    local_azure.entra.faults.script("openid_configuration_v1", Fault(status=200, body=document, times=None))
    keys = SigningKeys(session, [odd, sound])
    assert await keys.find(key_id(local_azure))
    assert list(keys.faults()) == [odd]
    with pytest.raises(SigningKeysUnavailable):
        await keys.find("unknown")
    assert fetches(local_azure) == 1
    await keys.aclose()


async def test_the_background_fetch_makes_the_keys_ready_before_the_first_request(
    keys: SigningKeys, local_azure: LocalAzure
) -> None:
    assert not keys.loaded
    keys.start()
    await keys.refresh()
    assert keys.loaded
    assert fetches(local_azure) == 1
