"""A store that answers reads and takes no writes: what real requests learn stops the minting, for half a minute."""

from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from quart.typing import TestClientProtocol as Client

from local_azure.environment import LocalAzure
from quart_app.identities import IdentityService
from quart_app.identities.reconciler import ReconcilerOptions
from quart_app.web.errors import describe
from quart_app.web.readiness import Readiness
from storage.guarded import GuardedStore
from storage.mapping import (
    StorageFull,
    StoreError,
    StoreMisconfigured,
    StoreThrottled,
    StoreUnavailable,
    UserKey,
    WritesRefused,
)
from storage.sqlite import open_sqlite_store
from tests.conftest import FakeClock
from tests.quart_app.conftest import Bearer
from tests.support.memory_acs import MemoryAcsClient
from tests.support.memory_store import MemoryMappingStore
from upstream.retrying import RetryPolicy

TENANT = "11111111-1111-1111-1111-111111111111"


class RefusingStore(MemoryMappingStore):
    """Refuses each write with `refusal`, if there is one."""

    refusal: StoreError | None = None

    async def create(self, *arguments: Any) -> Any:
        if self.refusal is not None:
            raise self.refusal
        return await super().create(*arguments)


class Scene:
    def __init__(self) -> None:
        self.clock, self.acs, self.store = FakeClock(0), MemoryAcsClient(), RefusingStore()
        self.service = IdentityService(
            GuardedStore(self.store, RetryPolicy(attempts=1)),
            self.acs,
            timer=self.clock,
            reconciler=ReconcilerOptions(first_pause=3600),
        )

    async def post(self, name: str) -> None:
        await self.service.get_or_create(UserKey(TENANT, name))

    async def refused(self, name: str) -> type[StoreError]:
        with pytest.raises(StoreError) as caught:
            await self.post(name)
        return type(caught.value)


@pytest.fixture
async def scene() -> AsyncIterator[Scene]:
    scene = Scene()
    yield scene
    scene.store.refusal = None
    await scene.service.aclose()


@pytest.mark.parametrize("refusal", [WritesRefused("read-only"), StorageFull("full")])
async def test_refused_writes_mint_one_identity_in_half_a_minute(scene: Scene, refusal: WritesRefused) -> None:
    scene.store.refusal = refusal
    for number in range(40):
        assert await scene.refused(f"user-{number}") is type(refusal)
        scene.clock.advance(0.5)
    assert len(scene.acs.minted) == 1


async def test_they_are_forgotten_after_half_a_minute(scene: Scene) -> None:
    scene.store.refusal = WritesRefused("read-only")
    await scene.refused("one")
    scene.store.refusal = None
    scene.clock.advance(29.9)
    assert await scene.refused("two") is WritesRefused
    scene.clock.advance(0.2)
    await scene.post("two")
    await scene.post("three")
    assert len(scene.acs.minted) == 3


async def test_a_write_that_is_carried_out_ends_it_at_once(scene: Scene) -> None:
    scene.store.refusal = WritesRefused("read-only")
    await scene.refused("one")
    scene.store.refusal = None
    await scene.post("one")  # goes on with the identity that it has
    await scene.post("two")
    assert len(scene.acs.minted) == 2


async def test_who_is_mapped_goes_on_meanwhile(scene: Scene) -> None:
    await scene.post("one")
    scene.store.refusal = WritesRefused("read-only")
    await scene.refused("two")
    await scene.post("one")
    issued = await scene.service.issue_token(UserKey(TENANT, "one"))
    assert issued.acs_user_id == scene.acs.minted[0]


@pytest.mark.parametrize("error", [StoreUnavailable(), StoreThrottled(), StoreMisconfigured("this user's")])
async def test_other_errors_of_one_write_stop_nobody_else(scene: Scene, error: StoreError) -> None:
    scene.store.refusal = error
    await scene.refused("one")
    scene.store.refusal = None
    await scene.post("two")


def test_a_full_disk_is_answered_as_such() -> None:
    answer = describe(StorageFull("full"), "https://login.example")
    assert (answer.error, answer.error.status, answer.headers["Retry-After"]) == ("storage_full", 503, "30")


async def test_a_file_that_was_removed_makes_the_service_refuse_writes_and_stops_the_minting(
    client: Client, bearer: Bearer, tmp_path: Path, local_azure: LocalAzure
) -> None:
    assert (await client.post("/api/user", headers=bearer("alex"))).status_code == 201
    (tmp_path / "mappings.sqlite").unlink()
    refused = await client.post("/api/user", headers=bearer("megan"))
    assert refused.status_code == 502
    assert (await refused.get_json())["error"] == "upstream_credentials_rejected"
    assert len(local_azure.acs.live_identities()) == 1


async def test_it_makes_the_service_not_ready(tmp_path: Path) -> None:
    path = tmp_path / "mappings.sqlite"
    async with aclosing(await open_sqlite_store(path)) as store:
        readiness = Readiness({"mapping_store": store.ping})
        await readiness.check()
        assert readiness.ready
        path.unlink()
        await readiness.check()
        assert readiness.states() == {"mapping_store": "unavailable"}
