"""Signing out: every token from before is revoked, and a mark says so, whatever happens to the mapping meanwhile."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from quart_app.acs.interface import AcsUnavailable
from quart_app.identities import IdentityNotFound, MappedIdentityGone, MappedIdentityNotOwned
from quart_app.identities.service import _ROUNDS
from quart_app.identities.token_cache import TokenCache
from storage.mapping import MappingUnreadable, StoreUnavailable, Unreadable, UnreadableMapping
from tests.quart_app.identities.test_service import ALICE, FOREIGN, World, a_world
from tests.support.acs_ids import acs_id
from tests.support.scripted import FailBefore, Gate

NOW = datetime(2026, 11, 27, 8, tzinfo=UTC)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with a_world() as opened:
        yield opened


async def test_every_token_is_revoked_and_the_mapping_says_when(world: World) -> None:
    service = world.process(now=lambda: NOW, token_cache=TokenCache(10))
    identity = (await service.get_or_create(ALICE)).acs_user_id
    kept = await service.issue_token(ALICE)
    assert await service.issue_token(ALICE) == kept
    await service.sign_out(ALICE)
    assert world.acs.good_tokens == {}
    assert world.stored.stored[ALICE].signed_out_at == NOW
    assert world.acs.live == {identity} == {world.mapped()}
    assert await service.issue_token(ALICE) != kept


@pytest.mark.parametrize("remembered", [False, True])
async def test_without_an_identity_there_is_nobody_to_sign_out(world: World, remembered: bool) -> None:
    service, other = world.process(), world.process()
    if remembered:
        await service.get_or_create(ALICE)
        await other.delete(ALICE)
    with pytest.raises(IdentityNotFound):
        await service.sign_out(ALICE)
    assert world.acs.counts["revoke_tokens"] == 0
    with pytest.raises(IdentityNotFound):
        await service.issue_token(ALICE)
    assert world.acs.counts["issue_token"] == 0, "the mapping was still remembered"


async def test_a_deletion_that_was_interrupted_is_finished_instead(world: World) -> None:
    service = world.process()
    await service.get_or_create(ALICE)
    mapping = world.stored.stored[ALICE]
    await world.stored.change(mapping, deleting=True)
    with pytest.raises(IdentityNotFound):
        await service.sign_out(ALICE)
    assert (world.acs.live, world.mapped()) == (set(), None)


@pytest.mark.parametrize(
    ("mapped", "error"), [(acs_id("own_9"), MappedIdentityGone), (FOREIGN, MappedIdentityNotOwned)]
)
async def test_an_identity_that_acs_refuses_is_reported(world: World, mapped: str, error: type[Exception]) -> None:
    service = world.process()
    await world.stored.create(ALICE, mapped)
    with pytest.raises(error):
        await service.sign_out(ALICE)
    assert world.acs.counts["revoke_tokens"] == 1
    assert world.stored.stored[ALICE].signed_out_at is None


@pytest.mark.parametrize("first", [acs_id("own_0"), acs_id("own_9")])
async def test_an_identity_that_was_replaced_meanwhile_is_signed_out_as_well(world: World, first: str) -> None:
    service, other = world.process(), world.process()
    await world.stored.create(ALICE, first)
    world.acs.live.add(first)
    world.acs.script("revoke_tokens", gate := Gate())
    signing_out = asyncio.create_task(service.sign_out(ALICE))
    await gate.reached.wait()
    await other.delete(ALICE)
    second = (await other.get_or_create(ALICE)).acs_user_id
    await other.issue_token(ALICE)
    gate.opened.set()
    await signing_out
    assert world.acs.good_tokens == {}
    assert (world.mapped(), world.acs.counts["revoke_tokens"]) == (second, 2)
    assert world.stored.stored[ALICE].signed_out_at is not None


async def test_an_identity_that_is_being_deleted_meanwhile_is_not_reported_as_gone(world: World) -> None:
    service = world.process()
    identity = (await service.get_or_create(ALICE)).acs_user_id
    world.acs.script("revoke_tokens", gate := Gate())
    signing_out = asyncio.create_task(service.sign_out(ALICE))
    await gate.reached.wait()
    await world.stored.change(world.stored.stored[ALICE], deleting=True)
    world.acs.live.remove(identity)
    gate.opened.set()
    with pytest.raises(IdentityNotFound):
        await signing_out
    assert world.mapped() is None


async def test_the_mark_of_another_replica_does_not_count_as_ones_own(world: World) -> None:
    service, other = world.process(now=lambda: NOW), world.process(now=lambda: NOW)
    await service.get_or_create(ALICE)
    world.store.script("change", gate := Gate())
    signing_out = asyncio.create_task(service.sign_out(ALICE))
    await gate.reached.wait()
    await other.sign_out(ALICE)
    gate.opened.set()
    await signing_out
    assert world.acs.counts["revoke_tokens"] == 2, "of one identity each process revokes once"
    assert world.stored.stored[ALICE].signed_out_at == NOW + timedelta(microseconds=1)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (NOW - timedelta(seconds=1), NOW),
        (NOW, NOW + timedelta(microseconds=1)),
        (NOW + timedelta(hours=1), NOW + timedelta(hours=1, microseconds=1)),
    ],
)
async def test_a_mark_is_always_later_than_the_last_also_where_a_clock_is_behind(
    world: World, before: datetime, after: datetime
) -> None:
    service = world.process(now=lambda: NOW)
    await service.get_or_create(ALICE)
    world.stored.stored[ALICE] = replace(world.stored.stored[ALICE], signed_out_at=before)
    await service.sign_out(ALICE)
    assert world.stored.stored[ALICE].signed_out_at == after


async def test_it_gives_up_in_the_end_when_the_mapping_never_holds_still(world: World) -> None:
    service, other = world.process(), world.process()
    await service.get_or_create(ALICE)
    change = world.store.change
    times = 0

    async def changed_by_another_just_before(mapping: object, **changes: object) -> object:
        nonlocal times
        times += 1
        world.store.change = change  # type: ignore[method-assign]
        await other.sign_out(ALICE)
        world.store.change = changed_by_another_just_before  # type: ignore[method-assign,assignment]
        return await change(mapping, **changes)  # type: ignore[arg-type]

    world.store.change = changed_by_another_just_before  # type: ignore[method-assign,assignment]
    with pytest.raises(StoreUnavailable):
        await service.sign_out(ALICE)
    assert times == _ROUNDS


async def test_what_acs_could_not_revoke_is_not_marked(world: World) -> None:
    service = world.process()
    await service.get_or_create(ALICE)
    world.acs.script("revoke_tokens", FailBefore(AcsUnavailable()))
    with pytest.raises(AcsUnavailable):
        await service.sign_out(ALICE)
    assert world.stored.stored[ALICE].signed_out_at is None


async def test_a_mapping_that_its_user_may_have_written_signs_nobody_out(world: World) -> None:
    service = world.process()
    await service.get_or_create(ALICE)
    mapping = world.stored.stored[ALICE] = replace(world.stored.stored[ALICE], unsealed=True)
    with pytest.raises(MappingUnreadable) as caught:
        await service.sign_out(ALICE)
    told = UnreadableMapping(ALICE, mapping.version, Unreadable.UNSEALED, users_may_write=True)
    assert caught.value.unreadable == told
    assert world.acs.counts["revoke_tokens"] == 0


async def test_a_mark_at_the_end_of_time_is_no_obstacle(world: World) -> None:
    service = world.process()
    await service.get_or_create(ALICE)
    last = datetime.max.replace(tzinfo=UTC)
    for _ in range(2):
        world.stored.stored[ALICE] = replace(world.stored.stored[ALICE], signed_out_at=last)
        await service.sign_out(ALICE)
        assert world.stored.stored[ALICE].signed_out_at == last - timedelta(microseconds=1)
    await service.sign_out(ALICE)
    assert world.stored.stored[ALICE].signed_out_at == last
