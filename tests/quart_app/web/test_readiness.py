"""Readiness: what works, what does not, and that nothing is ready of a service that is about to stop."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from quart.typing import TestClientProtocol as Client

from local_azure.environment import LocalAzure
from local_azure.faults import Fault
from quart_app.app import create_app
from quart_app.settings import load_settings
from quart_app.web.readiness import Readiness
from storage.mapping import StoreUnavailable


class Switch:
    """A part that works or not, as told."""

    works = True

    async def check(self) -> None:
        if not self.works:
            raise StoreUnavailable


async def test_readiness_turns_false_with_a_broken_part_and_back() -> None:
    store, keys = Switch(), Switch()
    readiness = Readiness({"store": store.check, "keys": keys.check})
    assert not readiness.checked
    assert readiness.states() == {"store": "unknown", "keys": "unknown"}
    await readiness.check()
    assert readiness.ready
    store.works = False
    await readiness.check()
    assert not readiness.ready
    assert readiness.checked
    assert readiness.states() == {"store": "unavailable", "keys": "ok"}
    store.works = True
    await readiness.check()
    assert readiness.ready


async def test_nothing_is_ready_once_the_service_is_about_to_stop() -> None:
    stop = asyncio.Event()
    readiness = Readiness({"store": Switch().check}, stop=stop)
    await readiness.check()
    assert readiness.ready
    stop.set()
    assert not readiness.ready
    assert (readiness.checked, readiness.states()) == (True, {"store": "ok"})


async def test_a_part_that_hangs_is_not_ready() -> None:
    async def hang() -> None:
        await asyncio.Event().wait()

    readiness = Readiness({"store": hang}, timeout=0)
    await readiness.check()
    assert not readiness.ready


@pytest.fixture(params=["cosmos", "graph"])
async def broken_store(
    request: pytest.FixtureRequest, settings: object, local_azure: LocalAzure, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Client, Any, Readiness]]:
    monkeypatch.setenv("STORAGE_BACKEND", request.param)
    made: list[Readiness] = []

    class Watched(Readiness):
        """Checks when the test says so."""

        def start(self) -> None:
            made.append(self)

    monkeypatch.setattr("quart_app.app.Readiness", Watched)
    faults = (local_azure.cosmos if request.param == "cosmos" else local_azure.graph).faults
    async with create_app(load_settings(None)) as app:
        yield app.test_client(), faults, made[0]


async def test_ready_follows_the_store_without_a_restart_and_live_does_not(
    broken_store: tuple[Client, Any, Readiness],
) -> None:
    client, faults, readiness = broken_store

    async def states() -> tuple[int, int, int]:
        return tuple([(await client.get(f"/health/{path}")).status_code for path in ("live", "startup", "ready")])  # type: ignore[return-value]

    assert await states() == (200, 503, 503)
    await readiness.check()
    assert await states() == (200, 200, 200)
    faults.script("*", Fault(status=503, times=None))
    await readiness.check()
    assert await states() == (200, 200, 503)
    answer = await (await client.get("/health/ready")).get_json()
    assert answer == {"status": "unavailable", "checks": {"signing_keys": "ok", "mapping_store": "unavailable"}}
    faults.clear()
    await readiness.check()
    assert await states() == (200, 200, 200)
