"""The 1:1 rule, case by case: races, lost answers, interrupted deletions, stale caches."""

import asyncio
import contextlib
import dataclasses
import gc
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

import pytest

from quart_app.acs.interface import AcsUnavailable, IdentityGone
from quart_app.identities import (
    Identity,
    IdentityNotFound,
    IdentityService,
    MappedIdentityGone,
    MappedIdentityNotOwned,
    TooManyFlights,
)
from quart_app.identities.reconciler import Reconciler, ReconcilerOptions
from quart_app.identities.service import _ROUNDS, _Minted
from storage.guarded import GuardedStore
from storage.mapping import (
    ExtensionLimitReached,
    MappingChanged,
    MappingExists,
    MappingUnreadable,
    StoreError,
    StoreMisconfigured,
    StoreThrottled,
    StoreUnavailable,
    Unreadable,
    UnreadableMapping,
    UserKey,
)
from tests.conftest import FakeClock
from tests.support import virtual_time
from tests.support.acs_ids import acs_id
from tests.support.memory_acs import MemoryAcsClient
from tests.support.memory_store import MemoryMappingStore
from tests.support.scripted import FailAfter, FailBefore, Gate, Hang, ScriptedStore
from tests.support.store_contract import no_wait
from upstream.deadline import deadline
from upstream.retrying import RetryPolicy

ALICE = UserKey("11111111-1111-1111-1111-111111111111", "alice")
BOB = UserKey("11111111-1111-1111-1111-111111111111", "bob")
CAROL = UserKey("11111111-1111-1111-1111-111111111111", "carol")
FOREIGN = acs_id("foreign_1")


class World:
    """One store and one ACS resource, shared by any number of processes of the service."""

    def __init__(self) -> None:
        self.stored = MemoryMappingStore()
        self.store = ScriptedStore(self.stored)
        self.acs = MemoryAcsClient()
        self.services: list[IdentityService] = []

    def process(self, **options: Any) -> IdentityService:
        """Start another process of the service."""
        service = IdentityService(GuardedStore(self.store, RetryPolicy(attempts=1)), self.acs, **options)
        self.services.append(service)
        return service

    def mapped(self, user: UserKey = ALICE) -> str | None:
        mapping = self.stored.stored.get(user)
        return None if mapping is None else mapping.acs_user_id

    async def aclose(self) -> None:
        self.store.clear()
        self.acs.clear()
        for service in self.services:
            await service.aclose()


def passing() -> Gate:
    """Lets a call through: for the calls that come before a scripted fault."""
    gate = Gate()
    gate.opened.set()
    return gate


async def leave_surplus(world: World, service: IdentityService, user: UserKey) -> None:
    """Let an identity be minted that can't be mapped, and not yet be deleted."""
    world.store.script("create", FailBefore(ExtensionLimitReached()))
    world.acs.script("delete_identity", FailBefore(AcsUnavailable()))
    with pytest.raises(ExtensionLimitReached):
        await service.get_or_create(user)


@asynccontextmanager
async def a_world() -> AsyncIterator[World]:
    world = World()
    try:
        yield world
    finally:
        await world.aclose()


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with a_world() as opened:
        yield opened


@pytest.fixture
def service(world: World) -> IdentityService:
    return world.process()


class TestCreation:
    async def test_a_new_user_gets_a_new_identity(self, world: World, service: IdentityService) -> None:
        identity = await service.get_or_create(ALICE)
        assert identity == Identity(world.acs.minted[0], created=True)
        assert world.mapped() == identity.acs_user_id
        assert await service.find(ALICE) == identity.acs_user_id

    async def test_a_known_user_gets_the_same_identity_again(self, world: World, service: IdentityService) -> None:
        first = await service.get_or_create(ALICE)
        assert await service.get_or_create(ALICE) == Identity(first.acs_user_id, created=False)
        assert len(world.acs.minted) == 1

    async def test_two_users_get_two_identities(self, service: IdentityService) -> None:
        alice, bob = await asyncio.gather(service.get_or_create(ALICE), service.get_or_create(BOB))
        assert alice.created
        assert bob.created
        assert alice.acs_user_id != bob.acs_user_id

    async def test_simultaneous_calls_mint_once_and_only_one_of_them_created(
        self, world: World, service: IdentityService
    ) -> None:
        identities = await asyncio.gather(*(service.get_or_create(ALICE) for _ in range(200)))
        assert {identity.acs_user_id for identity in identities} == set(world.acs.minted) == world.acs.live
        assert len(world.acs.minted) == 1
        assert [identity.created for identity in identities].count(True) == 1
        assert world.store.counts["get"] == 1

    async def test_a_cancelled_leader_does_not_fail_its_followers(self, world: World, service: IdentityService) -> None:
        world.acs.script("create_identity", gate := Gate())
        leader = asyncio.create_task(service.get_or_create(ALICE))
        await gate.reached.wait()
        follower = asyncio.create_task(service.get_or_create(ALICE))
        await asyncio.sleep(0)
        leader.cancel()
        await asyncio.wait({leader})
        gate.opened.set()
        assert (await follower).acs_user_id == world.mapped()
        assert leader.cancelled()

    async def test_the_work_goes_on_when_every_caller_is_cancelled(
        self, world: World, service: IdentityService
    ) -> None:
        world.acs.script("create_identity", gate := Gate(after=True))
        caller = asyncio.create_task(service.get_or_create(ALICE))
        await gate.reached.wait()
        caller.cancel()
        await asyncio.wait({caller})
        gate.opened.set()
        await service.aclose()
        assert {world.mapped()} == world.acs.live

    async def test_an_error_that_nobody_waits_for_is_not_reported_as_lost(
        self, world: World, service: IdentityService
    ) -> None:
        reports: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: reports.append(context))
        world.acs.script("create_identity", gate := Gate())
        world.store.script("create", FailBefore(StoreMisconfigured("no container")))
        caller = asyncio.create_task(service.get_or_create(ALICE))
        await gate.reached.wait()
        caller.cancel()
        await asyncio.wait({caller})
        gate.opened.set()
        await service.aclose()
        gc.collect()
        assert reports == []

    async def test_an_error_reaches_all_who_share_the_work_and_the_next_call_starts_afresh(
        self, world: World, service: IdentityService
    ) -> None:
        world.acs.script("create_identity", FailBefore(AcsUnavailable(nothing_happened=True)))
        outcomes = await asyncio.gather(*(service.get_or_create(ALICE) for _ in range(3)), return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [AcsUnavailable] * 3
        assert (await service.get_or_create(ALICE)).created

    async def test_a_failed_read_never_mints(self, world: World, service: IdentityService) -> None:
        world.store.script("get", FailBefore(StoreUnavailable()))
        with pytest.raises(StoreUnavailable):
            await service.get_or_create(ALICE)
        assert world.acs.minted == []

    async def test_the_loser_of_a_race_answers_the_winners_identity_and_deletes_its_own(self, world: World) -> None:
        one, other = world.process(), world.process()
        world.store.script("create", gate := Gate())
        loser = asyncio.create_task(one.get_or_create(ALICE))
        await gate.reached.wait()
        winner = await other.get_or_create(ALICE)
        gate.opened.set()
        assert await loser == Identity(winner.acs_user_id, created=False)
        assert world.acs.live == {winner.acs_user_id}
        assert len(world.acs.minted) == 2

    async def test_a_winner_in_deletion_is_finished_and_then_the_own_identity_is_mapped(self, world: World) -> None:
        one, other = world.process(), world.process()
        world.store.script("create", gate := Gate())
        creating = asyncio.create_task(one.get_or_create(ALICE))
        await gate.reached.wait()
        await other.get_or_create(ALICE)
        world.acs.script("delete_identity", FailBefore(AcsUnavailable()))
        with pytest.raises(AcsUnavailable):
            await other.delete(ALICE)
        gate.opened.set()
        identity = await creating
        assert identity.created
        assert world.acs.live == {identity.acs_user_id} == {world.mapped()}
        assert len(world.acs.minted) == 2

    async def test_it_gives_up_in_the_end_when_the_mapping_never_holds_still(
        self, world: World, service: IdentityService
    ) -> None:
        async def always_in_deletion(user: UserKey, _: str, __: object = None) -> Any:
            mapping = await world.stored.create(user, FOREIGN)
            raise MappingExists(await world.stored.change(mapping, deleting=True))

        world.store.create = always_in_deletion  # type: ignore[method-assign,assignment]
        with pytest.raises(StoreUnavailable):
            await service.get_or_create(ALICE)
        assert len(world.acs.minted) == 1
        del world.store.create


class TestUnknownOutcomes:
    @pytest.mark.parametrize("error", [StoreUnavailable(), StoreThrottled(), StoreMisconfigured("?")])
    async def test_a_write_whose_answer_was_lost_is_recognised_as_our_own(
        self, world: World, service: IdentityService, error: StoreError
    ) -> None:
        world.store.script("create", FailAfter(error))
        identity = await service.get_or_create(ALICE)
        assert identity == Identity(world.acs.minted[0], created=True)
        assert world.acs.live == {world.mapped()}

    async def test_a_conflict_with_our_own_earlier_write_is_success(
        self, world: World, service: IdentityService
    ) -> None:
        async def create_twice(user: UserKey, acs_user_id: str, created_at: datetime | None = None) -> Any:
            await world.stored.create(user, acs_user_id)
            return await world.stored.create(user, acs_user_id)

        world.store.create = create_twice  # type: ignore[method-assign]
        identity = await service.get_or_create(ALICE)
        assert identity == Identity(world.acs.minted[0], created=True)
        assert world.acs.live == {identity.acs_user_id}

    @pytest.mark.parametrize("fault", [FailBefore(StoreUnavailable()), FailAfter(StoreUnavailable())])
    async def test_a_write_that_may_be_repeated_hides_a_short_outage(
        self, world: World, fault: FailBefore | FailAfter
    ) -> None:
        service = world.process(retry=RetryPolicy(sleep=no_wait))
        world.store.script("create", fault, times=2)
        identity = await service.get_or_create(ALICE)
        assert identity == Identity(world.acs.minted[0], created=True)
        assert world.acs.live == {world.mapped()} == {identity.acs_user_id}

    async def test_a_repeated_write_never_revives_what_another_process_deleted_in_between(self, world: World) -> None:
        other = world.process()

        async def delete_meanwhile(_: float) -> None:
            await other.delete(ALICE)

        service = world.process(retry=RetryPolicy(sleep=delete_meanwhile))
        world.store.script("create", FailAfter(StoreUnavailable()))
        identity = await service.get_or_create(ALICE)
        assert identity.acs_user_id != world.acs.minted[0]
        assert world.acs.live == {world.mapped()} == {identity.acs_user_id}

    @pytest.mark.parametrize("fault", [FailBefore(StoreUnavailable(3)), FailAfter(StoreUnavailable(3))])
    async def test_what_can_not_be_decided_fails_with_the_first_error_and_the_next_call_goes_on_with_the_same_identity(
        self, world: World, service: IdentityService, fault: FailBefore | FailAfter
    ) -> None:
        world.store.script("create", fault)
        world.store.script("get", passing())
        world.store.script("get", FailBefore(StoreUnavailable(9)))
        with pytest.raises(StoreUnavailable) as caught:
            await service.get_or_create(ALICE)
        assert caught.value.retry_after == 3
        assert world.acs.live == set(world.acs.minted)
        identity = await service.get_or_create(ALICE)
        assert identity == Identity(world.acs.minted[0], created=True)
        assert len(world.acs.minted) == 1
        assert world.acs.live == {world.mapped()}

    @pytest.mark.parametrize(
        "fault", [FailBefore(StoreUnavailable()), FailAfter(StoreUnavailable()), Hang(), Hang(True)]
    )
    def test_after_an_outage_the_user_is_mapped_without_a_further_request(
        self, fault: FailBefore | FailAfter | Hang
    ) -> None:
        async def main() -> None:
            async with a_world() as world:
                service = world.process()
                with deadline(5):
                    await service.get_or_create(BOB)
                    world.store.script("get", passing())
                    world.store.script("create", fault)
                    world.store.script("*", FailBefore(StoreUnavailable()), None)
                    with pytest.raises(StoreUnavailable):
                        await service.get_or_create(ALICE)
                await asyncio.sleep(200)
                world.store.clear()
                await asyncio.sleep(60)
                assert world.mapped() == world.acs.minted[1]
                assert world.acs.live == {world.mapped(), world.mapped(BOB)}
                assert await service.reconcile() == 0

        virtual_time.run(main())

    async def test_an_identity_that_another_process_deleted_meanwhile_is_not_mapped_again(self, world: World) -> None:
        one, other = world.process(), world.process()
        world.store.script("create", FailAfter(StoreUnavailable()))
        world.store.script("get", passing())
        world.store.script("get", FailBefore(StoreUnavailable()))
        with pytest.raises(StoreUnavailable):
            await one.get_or_create(ALICE)
        await other.delete(ALICE)
        assert world.acs.live == set()
        identity = await one.get_or_create(ALICE)
        assert identity == Identity(world.acs.minted[1], created=True)
        assert world.acs.live == {world.mapped()}

    async def test_an_identity_whose_deletion_another_process_began_is_not_mapped_once_more(self, world: World) -> None:
        service = world.process(reconciler=ReconcilerOptions(first_pause=3600))
        world.store.script("create", FailAfter(StoreUnavailable()))
        world.store.script("get", passing())
        world.store.script("get", FailBefore(StoreUnavailable()))
        with pytest.raises(StoreUnavailable):
            await service.get_or_create(ALICE)
        await world.stored.change(world.stored.stored[ALICE], deleting=True)
        world.store.counts.clear()
        identity = await service.get_or_create(ALICE)
        assert identity == Identity(world.acs.minted[1], created=True)
        assert world.acs.live == {world.mapped()}
        assert world.store.counts["create"] == 1, "only the new identity was written"

    async def test_the_background_does_not_bring_a_deleted_user_back(self, world: World) -> None:
        one, other = world.process(), world.process()
        world.store.script("create", FailAfter(StoreUnavailable()))
        world.store.script("get", passing())
        world.store.script("get", FailBefore(StoreUnavailable()))
        with pytest.raises(StoreUnavailable):
            await one.get_or_create(ALICE)
        await other.delete(ALICE)
        assert await one.reconcile() == 0
        assert world.mapped() is None
        assert world.acs.live == set()
        assert len(world.acs.minted) == 1

    async def test_deleting_settles_first_so_nothing_stays_behind(self, world: World, service: IdentityService) -> None:
        world.store.script("create", FailBefore(StoreUnavailable()))
        with pytest.raises(StoreUnavailable):
            await service.get_or_create(ALICE)
        assert len(world.acs.live) == 1
        await service.delete(ALICE)
        assert world.acs.live == set()
        assert world.mapped() is None
        assert await service.reconcile() == 0

    async def test_a_surplus_identity_that_could_not_be_deleted_is_deleted_later(self, world: World) -> None:
        one, other = world.process(), world.process()
        world.store.script("create", gate := Gate())
        loser = asyncio.create_task(one.get_or_create(ALICE))
        await gate.reached.wait()
        winner = await other.get_or_create(ALICE)
        world.acs.script("delete_identity", FailBefore(AcsUnavailable()))
        gate.opened.set()
        assert (await loser).acs_user_id == winner.acs_user_id
        assert len(world.acs.live) == 2
        assert await one.reconcile() == 0
        assert world.acs.live == {winner.acs_user_id}

    async def test_when_the_mapping_can_not_be_held_the_identity_is_deleted(
        self, world: World, service: IdentityService
    ) -> None:
        world.store.script("create", FailBefore(ExtensionLimitReached()))
        with pytest.raises(ExtensionLimitReached):
            await service.get_or_create(ALICE)
        assert world.acs.live == set()
        assert await service.reconcile() == 0

    async def test_a_limit_reported_after_our_own_write_does_not_delete_the_mapped_identity(
        self, world: World, service: IdentityService
    ) -> None:
        world.store.script("create", FailAfter(ExtensionLimitReached()))
        identity = await service.get_or_create(ALICE)
        assert world.acs.live == {identity.acs_user_id} == {world.mapped()}

    async def test_a_limit_found_while_deleting_leaves_nothing(self, world: World, service: IdentityService) -> None:
        world.store.script("create", FailBefore(StoreUnavailable()))
        world.store.script("create", FailBefore(ExtensionLimitReached()))
        with pytest.raises(StoreUnavailable):
            await service.get_or_create(ALICE)
        await service.delete(ALICE)
        assert world.acs.live == set()

    async def test_an_error_of_another_kind_keeps_the_identity_too(
        self, world: World, service: IdentityService
    ) -> None:
        world.store.script("create", FailBefore(PermissionError("the caller must consent")))
        with pytest.raises(PermissionError):
            await service.get_or_create(ALICE)
        assert (await service.get_or_create(ALICE)).acs_user_id == world.acs.minted[0]
        assert len(world.acs.minted) == 1

    async def test_no_more_is_minted_than_can_be_remembered(self, world: World) -> None:
        service = world.process(pending_limit=1)
        world.store.script("create", FailBefore(StoreUnavailable()))
        with pytest.raises(StoreUnavailable):
            await service.get_or_create(ALICE)
        with pytest.raises(StoreUnavailable):
            await service.get_or_create(BOB)
        assert len(world.acs.minted) == 1
        await service.reconcile()
        assert (await service.get_or_create(BOB)).created

    async def test_nor_by_several_at_once(self, world: World) -> None:
        service = world.process(pending_limit=2)
        world.acs.script("create_identity", gate := Gate(), 2)
        users = ALICE, BOB, CAROL
        under_way = [asyncio.create_task(service.get_or_create(user)) for user in users]
        await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
        gate.opened.set()
        outcomes = await asyncio.gather(*under_way, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [Identity, Identity, StoreUnavailable]
        assert (await service.get_or_create(CAROL)).created

    async def test_one_that_is_only_left_to_be_deleted_counts_among_them(self, world: World) -> None:
        service = world.process(pending_limit=1, reconciler=ReconcilerOptions(first_pause=3600))
        await leave_surplus(world, service, ALICE)
        with pytest.raises(StoreUnavailable):
            await service.get_or_create(BOB)
        assert len(world.acs.minted) == 1

    async def test_those_that_are_being_minted_count_among_them(self, world: World) -> None:
        service = world.process(pending_limit=2)
        world.store.script("create", FailBefore(StoreUnavailable()))
        with pytest.raises(StoreUnavailable):
            await service.get_or_create(ALICE)
        world.acs.script("create_identity", gate := Gate())
        creation = asyncio.create_task(service.get_or_create(BOB))
        await gate.reached.wait()
        with pytest.raises(StoreUnavailable):
            await service.get_or_create(CAROL)
        gate.opened.set()
        assert (await creation).created
        assert len(world.acs.minted) == 2

    async def test_surplus_identities_count_among_those_that_can_be_remembered(self, world: World) -> None:
        service = world.process(pending_limit=2)
        world.store.script("create", gate := Gate())
        creation = asyncio.create_task(service.get_or_create(ALICE))
        await gate.reached.wait()
        await world.stored.create(ALICE, acs_id("own_winner"))
        world.acs.script("delete_identity", FailBefore(AcsUnavailable()))
        gate.opened.set()
        await creation
        world.store.script("create", FailBefore(StoreUnavailable()))
        with pytest.raises(StoreUnavailable):
            await service.get_or_create(BOB)
        assert (service.orphans, service.pending) == (1, 1)
        with pytest.raises(StoreUnavailable):
            await service.get_or_create(UserKey("tenant", "carol"))
        assert len(world.acs.minted) == 2

    async def test_callers_who_leave_leave_no_more_behind_than_may_be_under_way(self, world: World) -> None:
        refused: list[None] = []
        service = world.process(flight_limit=2, on_refused=lambda: refused.append(None))
        gates = [Gate(), Gate()]
        for gate in gates:
            world.acs.script("create_identity", gate)
        for user, gate in zip((ALICE, BOB), gates, strict=True):
            caller = asyncio.create_task(service.get_or_create(user))
            await gate.reached.wait()
            caller.cancel()
            await asyncio.wait({caller})
        for call in (service.get_or_create, service.delete, service.sign_out):
            with pytest.raises(TooManyFlights):
                await call(CAROL)
        assert len(refused) == 3
        repeated = asyncio.create_task(service.get_or_create(ALICE))
        for gate in gates:
            gate.opened.set()
        assert (await repeated).acs_user_id in world.acs.minted
        assert (await service.get_or_create(CAROL)).created
        assert len(world.acs.minted) == 3

    async def test_creations_deletions_and_sign_outs_count_together(self, world: World) -> None:
        dave = UserKey(ALICE.issuer, "dave")
        for user in (BOB, CAROL, dave):
            await world.process().get_or_create(user)
        service = world.process(flight_limit=4)
        operations = "create_identity", "delete_identity", "revoke_tokens", "revoke_tokens"
        gates = [Gate() for _ in operations]
        for operation, gate in zip(operations, gates, strict=True):
            world.acs.script(operation, gate)
        calls = service.get_or_create(ALICE), service.delete(BOB), service.sign_out(CAROL), service.sign_out(dave)
        under_way = [asyncio.ensure_future(call) for call in calls]
        for gate in gates:
            await gate.reached.wait()
        (refused,) = await asyncio.gather(service.delete(UserKey(ALICE.issuer, "eve")), return_exceptions=True)
        for gate in gates:
            gate.opened.set()
        await asyncio.gather(*under_way)
        assert isinstance(refused, TooManyFlights)
        await service.sign_out(CAROL)

    async def test_no_representation_holds_an_id(self, world: World, service: IdentityService) -> None:
        identity = await service.get_or_create(ALICE)
        issued = await service.issue_token(ALICE)
        shown = repr([identity, issued, _Minted(identity.acs_user_id)])
        assert identity.acs_user_id not in shown
        assert issued.token.token not in shown

    async def test_it_is_told_how_much_is_still_open(self, world: World) -> None:
        users = ALICE, BOB, CAROL, UserKey(ALICE.issuer, "dave")
        service = world.process(reconciler=ReconcilerOptions(first_pause=3600))
        for user in users[:2]:
            await leave_surplus(world, service, user)
        await service.get_or_create(users[2])
        world.acs.script("delete_identity", FailBefore(AcsUnavailable()))
        with pytest.raises(AcsUnavailable):
            await service.delete(users[2])
        world.store.script("create", FailBefore(StoreUnavailable()))
        with pytest.raises(StoreUnavailable):
            await service.get_or_create(users[3])
        assert (service.pending, service.unfinished_deletions, service.orphans) == (1, 1, 2)
        world.store.script("*", FailBefore(StoreUnavailable()), None)
        world.acs.script("*", FailBefore(AcsUnavailable()), None)
        assert await service.reconcile() == 4
        world.store.clear()
        world.acs.clear()
        assert await service.reconcile() == 0
        assert world.acs.live == {world.mapped(users[3])}

    async def test_closing_deletes_a_surplus_identity_also_where_nothing_else_is_open(self, world: World) -> None:
        service = world.process(reconciler=ReconcilerOptions(first_pause=3600))
        await leave_surplus(world, service, ALICE)
        assert (service.pending, service.unfinished_deletions, service.orphans) == (0, 0, 1)
        await service.aclose()
        assert world.acs.live == set()

    async def test_what_could_not_be_deleted_and_what_was_left_behind_count_together(self, world: World) -> None:
        service = world.process(reconciler=ReconcilerOptions(first_pause=3600))
        await leave_surplus(world, service, ALICE)
        world.stored.unreadable[BOB] = dataclasses.replace(DAMAGED, user=BOB)
        await service.delete(BOB)
        assert service.orphans == 2

    async def test_closing_settles_what_is_open(self, world: World) -> None:
        service = world.process()
        world.store.script("create", FailBefore(StoreUnavailable()))
        with pytest.raises(StoreUnavailable):
            await service.get_or_create(ALICE)
        await service.aclose()
        assert world.acs.live == {world.mapped()}

    def test_closing_does_not_wait_for_ever(self, caplog: pytest.LogCaptureFixture) -> None:
        async def main() -> float:
            async with a_world() as world:
                service = world.process(close_seconds=5)
                world.store.script("create", Hang(), None)
                creating = asyncio.create_task(service.get_or_create(ALICE))
                await asyncio.sleep(1)
                started = asyncio.get_running_loop().time()
                await service.aclose()
                with pytest.raises(StoreUnavailable):
                    await creating
                world.services.clear()
                return asyncio.get_running_loop().time() - started

        with caplog.at_level(logging.INFO):
            assert virtual_time.run(main()) == 10
        closed = caplog.records[-1]
        assert (closed.getMessage(), closed.pending, closed.orphaned) == ("closed", 1, 0)  # type: ignore[attr-defined]
        assert "alice" not in caplog.text
        assert "8:acs" not in caplog.text


class TestDeletion:
    async def test_identity_and_mapping_are_gone(self, world: World, service: IdentityService) -> None:
        await service.get_or_create(ALICE)
        await service.delete(ALICE)
        assert world.acs.live == set()
        assert world.mapped() is None
        with pytest.raises(IdentityNotFound):
            await service.find(ALICE)

    async def test_nothing_to_delete_is_success(self, world: World, service: IdentityService) -> None:
        await service.delete(ALICE)
        assert world.acs.counts["delete_identity"] == 0

    async def test_afterwards_the_user_gets_a_new_identity(self, world: World, service: IdentityService) -> None:
        first = await service.get_or_create(ALICE)
        await service.delete(ALICE)
        second = await service.get_or_create(ALICE)
        assert second.created
        assert second.acs_user_id != first.acs_user_id
        assert world.acs.live == {second.acs_user_id}

    @pytest.mark.parametrize(
        ("where", "operation"),
        [("store", "get"), ("store", "change"), ("acs", "delete_identity"), ("store", "remove")],
    )
    @pytest.mark.parametrize("fault", [FailBefore, FailAfter])
    @pytest.mark.parametrize("resume", ["delete", "get_or_create", "delete elsewhere"])
    async def test_interrupted_anywhere_it_is_resumed(
        self, world: World, where: str, operation: str, fault: type[FailBefore | FailAfter], resume: str
    ) -> None:
        service, elsewhere = world.process(), world.process()
        first = await service.get_or_create(ALICE)
        if where == "store":
            world.store.script(operation, fault(StoreUnavailable()))
        else:
            world.acs.script(operation, fault(AcsUnavailable()))
        with pytest.raises((StoreUnavailable, AcsUnavailable)):
            await service.delete(ALICE)
        if resume == "get_or_create":
            identity = await service.get_or_create(ALICE)
            assert world.acs.live == {identity.acs_user_id} == {world.mapped()}
            # What had not begun is not a deletion: then the user keeps the identity.
            begun = (operation, fault) not in [("get", FailBefore), ("get", FailAfter), ("change", FailBefore)]
            assert (identity.acs_user_id != first.acs_user_id) == begun
        else:
            await (service if resume == "delete" else elsewhere).delete(ALICE)
            assert world.acs.live == set()
            assert world.mapped() is None

    async def test_a_mapping_in_deletion_counts_as_absent(self, world: World, service: IdentityService) -> None:
        await service.get_or_create(ALICE)
        await world.stored.change(world.stored.stored[ALICE], deleting=True)
        with pytest.raises(IdentityNotFound):
            await service.find(ALICE)
        with pytest.raises(IdentityNotFound):
            await service.issue_token(ALICE)

    async def test_an_identity_of_another_resource_does_not_keep_the_mapping(
        self, world: World, service: IdentityService
    ) -> None:
        await world.stored.create(ALICE, FOREIGN)
        await service.delete(ALICE)
        assert world.mapped() is None

    async def test_two_processes_may_delete_at_once(self, world: World) -> None:
        one, other = world.process(), world.process()
        await one.get_or_create(ALICE)
        await asyncio.gather(one.delete(ALICE), other.delete(ALICE), one.delete(ALICE))
        assert world.acs.live == set()
        assert world.mapped() is None

    @pytest.mark.parametrize("first", [acs_id("own_0"), acs_id("own_9")])
    async def test_a_user_who_came_back_meanwhile_keeps_the_new_identity(self, world: World, first: str) -> None:
        one, other = world.process(), world.process()
        await world.stored.create(ALICE, first)
        world.acs.live.add(first)
        world.store.script("change", gate := Gate())
        deleting = asyncio.create_task(one.delete(ALICE))
        await gate.reached.wait()
        await other.delete(ALICE)
        second = await other.get_or_create(ALICE)
        gate.opened.set()
        await deleting
        assert world.acs.live == {second.acs_user_id} == {world.mapped()}

    async def test_it_gives_up_in_the_end_when_the_mapping_never_holds_still(
        self, world: World, service: IdentityService
    ) -> None:
        identity = (await service.get_or_create(ALICE)).acs_user_id
        world.store.script("change", FailBefore(MappingChanged()), None)
        with pytest.raises(StoreUnavailable):
            await service.delete(ALICE)
        assert world.store.counts["change"] == _ROUNDS
        assert world.acs.live == {identity} == {world.mapped()}

    async def test_nor_does_the_background_go_on_for_ever(self, world: World) -> None:
        service = world.process(reconciler=ReconcilerOptions(first_pause=3600))
        await service.get_or_create(ALICE)
        world.acs.script("delete_identity", FailBefore(AcsUnavailable()))
        with pytest.raises(AcsUnavailable):
            await service.delete(ALICE)
        world.store.script("remove", FailBefore(MappingChanged()), None)
        assert await service.reconcile() == 1
        assert world.store.counts["remove"] == _ROUNDS
        world.store.clear()
        assert await service.reconcile() == 0
        assert world.mapped() is None

    async def test_a_deletion_whose_mapping_was_changed_and_can_not_be_read_again_stays_unfinished(
        self, world: World
    ) -> None:
        service = world.process(reconciler=ReconcilerOptions(first_pause=3600))
        await service.get_or_create(ALICE)
        world.store.script("get", passing())
        world.store.script("get", FailBefore(StoreUnavailable()))
        world.store.script("remove", FailBefore(MappingChanged()))
        with pytest.raises(StoreUnavailable):
            await service.delete(ALICE)
        assert service.unfinished_deletions == 1
        assert await service.reconcile() == 0
        assert world.mapped() is None

    async def test_creation_and_deletion_of_one_user_follow_one_another(
        self, world: World, service: IdentityService
    ) -> None:
        world.store.script("create", gate := Gate())
        creating = asyncio.create_task(service.get_or_create(ALICE))
        await gate.reached.wait()
        deleting = asyncio.create_task(service.delete(ALICE))
        for _ in range(20):
            await asyncio.sleep(0)
        assert not deleting.done()
        gate.opened.set()
        assert (await creating).created
        await deleting
        assert world.acs.live == set()
        assert world.mapped() is None

    def test_waiting_for_another_request_of_the_same_user_ends_at_the_deadline(self) -> None:
        async def main() -> None:
            async with a_world() as world:
                service = world.process()
                world.acs.script("create_identity", gate := Gate())
                creating = asyncio.create_task(service.get_or_create(ALICE))
                await gate.reached.wait()
                operations: list[Callable[[UserKey], Awaitable[object]]] = [service.delete, service.get_or_create]
                for operation in operations:
                    started = asyncio.get_running_loop().time()
                    with deadline(5), pytest.raises(StoreUnavailable):
                        await operation(ALICE)
                    assert asyncio.get_running_loop().time() - started == 5
                gate.opened.set()
                assert (await creating).created

        virtual_time.run(main())

    async def test_nothing_is_remembered_of_users_who_are_done(self, world: World, service: IdentityService) -> None:
        for number in range(20):
            user = UserKey("gone", str(number))
            await service.get_or_create(user)
            await service.delete(user)
        del user
        gc.collect()
        assert (service.pending, service.orphans) == (0, 0)
        assert [each for each in gc.get_objects() if isinstance(each, UserKey) and each.issuer == "gone"] == []


class TestTokens:
    async def test_a_token_is_issued_for_the_mapped_identity(self, world: World, service: IdentityService) -> None:
        identity = await service.get_or_create(ALICE)
        issued = await service.issue_token(ALICE)
        assert issued.acs_user_id == identity.acs_user_id
        assert issued.token.token == f"token 1 of {identity.acs_user_id}"

    async def test_without_a_mapping_there_is_no_token(self, service: IdentityService) -> None:
        with pytest.raises(IdentityNotFound):
            await service.issue_token(ALICE)

    async def test_the_mapping_is_read_once_while_it_is_remembered(self, world: World) -> None:
        clock = FakeClock(0)
        service = world.process(cache_seconds=60, timer=clock)
        await world.process().get_or_create(ALICE)
        world.store.counts.clear()
        await service.issue_token(ALICE)
        clock.advance(59)
        await service.issue_token(ALICE)
        assert world.store.counts["get"] == 1
        clock.advance(2)
        await service.issue_token(ALICE)
        assert world.store.counts["get"] == 2

    async def test_each_look_into_memory_is_told_with_its_outcome(self, world: World) -> None:
        looks: list[bool] = []
        await world.process().get_or_create(ALICE)
        service = world.process(on_lookup=looks.append)
        for _ in range(3):
            await service.issue_token(ALICE)
        assert looks == [False, True, True]

    async def test_after_the_mapping_was_made_or_told_a_token_needs_no_read(self, world: World) -> None:
        one, other = world.process(), world.process()
        await one.get_or_create(ALICE)
        await other.find(ALICE)
        world.store.counts.clear()
        await one.issue_token(ALICE)
        await other.issue_token(ALICE)
        assert world.store.counts["get"] == 0

    async def test_a_process_that_saw_a_deletion_begin_issues_nothing_more(self, world: World) -> None:
        one = world.process()
        await one.get_or_create(ALICE)
        await world.stored.change(world.stored.stored[ALICE], deleting=True)
        with pytest.raises(IdentityNotFound):
            await one.find(ALICE)
        with pytest.raises(IdentityNotFound):
            await one.issue_token(ALICE)

    async def test_with_zero_seconds_nothing_is_remembered(self, world: World) -> None:
        service = world.process(cache_seconds=0, timer=FakeClock(0))
        await service.get_or_create(ALICE)
        world.store.counts.clear()
        await service.issue_token(ALICE)
        await service.issue_token(ALICE)
        assert world.store.counts["get"] == 2

    async def test_no_more_mappings_are_remembered_than_allowed(self, world: World) -> None:
        service = world.process(cache_size=1)
        for user in (ALICE, BOB):
            await service.get_or_create(user)
            await service.issue_token(user)
        world.store.counts.clear()
        await service.issue_token(BOB)
        assert world.store.counts["get"] == 0
        await service.issue_token(ALICE)
        assert world.store.counts["get"] == 1

    async def test_after_a_deletion_here_the_store_is_asked(self, service: IdentityService) -> None:
        await service.get_or_create(ALICE)
        await service.issue_token(ALICE)
        await service.delete(ALICE)
        with pytest.raises(IdentityNotFound):
            await service.issue_token(ALICE)

    async def test_after_a_deletion_elsewhere_acs_tells(self, world: World) -> None:
        one, other = world.process(), world.process()
        await one.get_or_create(ALICE)
        await one.issue_token(ALICE)
        await other.delete(ALICE)
        with pytest.raises(IdentityNotFound):
            await one.issue_token(ALICE)

    @pytest.mark.parametrize("first", [acs_id("own_0"), acs_id("own_9")])
    async def test_a_new_identity_from_elsewhere_is_found_by_repeating_once(self, world: World, first: str) -> None:
        one, other = world.process(), world.process()
        await world.stored.create(ALICE, first)
        world.acs.live.add(first)
        await one.issue_token(ALICE)
        await other.delete(ALICE)
        second = await other.get_or_create(ALICE)
        world.acs.counts.clear()
        assert (await one.issue_token(ALICE)).acs_user_id == second.acs_user_id
        assert world.acs.counts["issue_token"] == 2
        assert (await one.issue_token(ALICE)).acs_user_id == second.acs_user_id
        assert world.acs.counts["issue_token"] == 3

    @pytest.mark.parametrize("remembered", [True, False])
    async def test_an_identity_that_acs_lost_is_reported_and_can_be_replaced(
        self, world: World, service: IdentityService, *, remembered: bool
    ) -> None:
        first = await service.get_or_create(ALICE)
        if remembered:
            await service.issue_token(ALICE)
        world.acs.live.discard(first.acs_user_id)
        with pytest.raises(MappedIdentityGone):
            await service.issue_token(ALICE)
        await service.delete(ALICE)
        second = await service.get_or_create(ALICE)
        assert (await service.issue_token(ALICE)).acs_user_id == second.acs_user_id

    async def test_an_identity_of_another_resource_is_reported(self, world: World, service: IdentityService) -> None:
        await world.stored.create(ALICE, FOREIGN)
        with pytest.raises(MappedIdentityNotOwned):
            await service.issue_token(ALICE)

    async def test_a_second_refusal_is_reported_and_not_repeated(self, world: World) -> None:
        one, other = world.process(), world.process()
        await one.get_or_create(ALICE)
        await one.issue_token(ALICE)
        await other.delete(ALICE)
        await other.get_or_create(ALICE)
        world.acs.counts.clear()
        world.acs.script("issue_token", FailBefore(IdentityGone()), 2)
        with pytest.raises(MappedIdentityGone):
            await one.issue_token(ALICE)
        assert world.acs.counts["issue_token"] == 2

    async def test_it_gives_up_in_the_end_when_the_identity_is_replaced_each_time(self, world: World) -> None:
        service, other = world.process(), world.process()
        await service.get_or_create(ALICE)
        issue = world.acs.issue_token
        times = 0

        async def replaced_just_before(acs_user_id: str, request: object = None) -> object:
            nonlocal times
            times += 1
            await other.delete(ALICE)
            await other.get_or_create(ALICE)
            return await issue(acs_user_id)

        world.acs.issue_token = replaced_just_before  # type: ignore[method-assign,assignment]
        with pytest.raises(StoreUnavailable):
            await service.issue_token(ALICE)
        assert times == _ROUNDS

    async def test_acs_trouble_is_passed_on_and_the_mapping_stays_remembered(
        self, world: World, service: IdentityService
    ) -> None:
        await service.get_or_create(ALICE)
        await service.issue_token(ALICE)
        world.store.counts.clear()
        world.acs.script("issue_token", FailBefore(AcsUnavailable()))
        with pytest.raises(AcsUnavailable):
            await service.issue_token(ALICE)
        await service.issue_token(ALICE)
        assert world.store.counts["get"] == 0


class TestSettler:
    def test_the_pauses_double_up_to_the_longest_and_the_attempts_are_bounded(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def main() -> list[float]:
            tries: list[float] = []

            async def reconcile() -> int:
                tries.append(asyncio.get_running_loop().time())
                return 2

            reconciler = Reconciler(reconcile, ReconcilerOptions(first_pause=1, longest_pause=5, attempts=5))
            reconciler.wake()
            reconciler.wake()
            await asyncio.sleep(1000)
            return tries

        assert virtual_time.run(main()) == [1, 3, 7, 12, 17]
        assert caplog.records[-1].count == 2  # type: ignore[attr-defined]

    def test_it_rests_when_nothing_is_left_and_can_be_woken_again(self) -> None:
        async def main() -> list[float]:
            tries: list[float] = []

            async def reconcile() -> int:
                tries.append(asyncio.get_running_loop().time())
                return 0

            reconciler = Reconciler(reconcile, ReconcilerOptions())
            reconciler.wake()
            await asyncio.sleep(100)
            reconciler.wake()
            await asyncio.sleep(100)
            await reconciler.aclose()
            return tries

        assert virtual_time.run(main()) == [1, 101]

    def test_the_deadline_of_the_request_that_woke_it_does_not_stop_it(self) -> None:
        async def main() -> None:
            async with a_world() as world:
                service = world.process()
                with deadline(0.5):
                    world.store.script("create", FailBefore(StoreUnavailable()))
                    with pytest.raises(StoreUnavailable):
                        await service.get_or_create(ALICE)
                await asyncio.sleep(2)
                assert world.acs.live == {world.mapped()}

        virtual_time.run(main())

    async def test_what_a_request_settled_meanwhile_is_not_settled_once_more(self, world: World) -> None:
        service = world.process(reconciler=ReconcilerOptions(first_pause=3600))
        for user in (ALICE, BOB):
            world.store.script("create", FailBefore(StoreUnavailable()))
            with pytest.raises(StoreUnavailable):
                await service.get_or_create(user)
        world.store.script("get", gate := Gate())
        reconciling = asyncio.create_task(service.reconcile())
        await gate.reached.wait()
        await service.get_or_create(BOB)
        world.store.counts.clear()
        gate.opened.set()
        assert await reconciling == 0
        assert world.store.counts == {"create": 1}, "only the first user's mapping was still to be made"
        assert world.acs.live == {world.mapped(), world.mapped(BOB)}

    async def test_one_users_trouble_does_not_keep_the_others_from_being_settled(
        self, world: World, service: IdentityService
    ) -> None:
        world.store.script("create", FailBefore(StoreUnavailable()), 2)
        for user in (ALICE, BOB):
            with pytest.raises(StoreUnavailable):
                await service.get_or_create(user)
        world.store.script("get", FailBefore(RuntimeError("a fault of the program")))
        assert await service.reconcile() == 1
        assert world.mapped(ALICE) is None
        assert world.mapped(BOB) is not None
        with contextlib.suppress(StoreError):
            assert await service.reconcile() == 0


DAMAGED = UnreadableMapping(ALICE, "1", Unreadable.DAMAGED, "the mark of a deletion is not a truth value")
NOT_BY_A_MISSING_KEY = [reason for reason in Unreadable if reason is not Unreadable.SEAL_KEY_NOT_HELD]


class TestUnreadableMappings:
    async def test_it_is_never_taken_for_absence_and_nothing_is_minted(
        self, world: World, service: IdentityService, caplog: pytest.LogCaptureFixture
    ) -> None:
        world.stored.unreadable[ALICE] = DAMAGED
        for call in (service.find(ALICE), service.get_or_create(ALICE), service.issue_token(ALICE)):
            with pytest.raises(MappingUnreadable):
                await call
        assert world.acs.minted == []
        assert [record.message for record in caplog.records] == ["a stored mapping can't be read"] * 3

    async def test_a_creation_that_meets_one_deletes_the_fresh_identity(
        self, world: World, service: IdentityService
    ) -> None:
        world.store.script("create", gate := Gate())
        creation = asyncio.create_task(service.get_or_create(ALICE))
        await gate.reached.wait()
        world.stored.unreadable[ALICE] = DAMAGED
        gate.opened.set()
        with pytest.raises(MappingUnreadable):
            await creation
        assert len(world.acs.minted) == 1
        assert (world.acs.live, service.pending, service.orphans) == (set(), 0, 0)

    async def test_a_write_of_unknown_outcome_that_is_read_back_as_one_deletes_the_fresh_identity(
        self, world: World, service: IdentityService
    ) -> None:
        world.store.script("create", FailBefore(StoreUnavailable()))
        world.store.script("get", passing())
        world.store.script("get", gate := Gate())
        creation = asyncio.create_task(service.get_or_create(ALICE))
        await gate.reached.wait()
        world.stored.unreadable[ALICE] = DAMAGED
        gate.opened.set()
        with pytest.raises(MappingUnreadable):
            await creation
        assert (world.acs.live, service.pending) == (set(), 0)

    @pytest.mark.parametrize("reason", NOT_BY_A_MISSING_KEY)
    async def test_delete_removes_it_and_leaves_an_identity_behind_that_is_not_certain_and_says_so_once(
        self, world: World, service: IdentityService, caplog: pytest.LogCaptureFixture, reason: Unreadable
    ) -> None:
        world.stored.unreadable[ALICE] = dataclasses.replace(DAMAGED, reason=reason)
        await service.delete(ALICE)
        assert (world.stored.unreadable, service.orphans) == ({}, 1)
        assert sum("left behind" in record.message for record in caplog.records) == 1
        assert await service.reconcile() == 0, "There is nothing that could still be done."
        assert (await service.get_or_create(ALICE)).created

    async def test_delete_takes_the_identity_along_where_it_is_certain(
        self, world: World, service: IdentityService
    ) -> None:
        identity = (await service.get_or_create(ALICE)).acs_user_id
        world.stored.unreadable[ALICE] = dataclasses.replace(DAMAGED, acs_user_id=identity)
        world.store.script("remove", FailBefore(StoreUnavailable()))
        with pytest.raises(StoreUnavailable):
            await service.delete(ALICE)
        assert ALICE in world.stored.unreadable
        await service.delete(ALICE)
        assert (world.acs.live, world.stored.unreadable, service.orphans) == (set(), {}, 0)

    async def test_one_that_was_mended_meanwhile_is_deleted_as_what_it_is(
        self, world: World, service: IdentityService
    ) -> None:
        identity = (await service.get_or_create(ALICE)).acs_user_id
        world.stored.unreadable[ALICE] = dataclasses.replace(DAMAGED, version="stale")
        world.store.script("remove", gate := Gate())
        deletion = asyncio.create_task(service.delete(ALICE))
        await gate.reached.wait()
        del world.stored.unreadable[ALICE]
        gate.opened.set()
        await deletion
        assert identity not in world.acs.live
        assert world.mapped() is None

    async def test_one_sealed_by_a_key_that_is_not_held_is_counted_and_left_to_an_operator(
        self, world: World, service: IdentityService
    ) -> None:
        world.stored.unreadable[ALICE] = dataclasses.replace(DAMAGED, reason=Unreadable.SEAL_KEY_NOT_HELD)
        for _ in range(2):
            with pytest.raises(MappingUnreadable):
                await service.delete(ALICE)
        assert (service.without_seal_key, list(world.stored.unreadable)) == (1, [ALICE])
        await service.delete(ALICE, as_operator=True)
        assert world.stored.unreadable == {}
        with pytest.raises(IdentityNotFound):
            await service.find(ALICE)
        assert service.without_seal_key == 0

    @pytest.mark.parametrize("other", NOT_BY_A_MISSING_KEY)
    async def test_one_that_can_not_be_read_for_another_reason_is_not_counted_among_them(
        self, world: World, service: IdentityService, other: Unreadable
    ) -> None:
        for reason, count in ((Unreadable.SEAL_KEY_NOT_HELD, 1), (other, 0)):
            world.stored.unreadable[ALICE] = dataclasses.replace(DAMAGED, reason=reason)
            with pytest.raises(MappingUnreadable):
                await service.find(ALICE)
            assert service.without_seal_key == count

    async def test_so_many_are_counted_and_no_more(
        self, world: World, service: IdentityService, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("quart_app.identities.service._NOTED_AT_MOST", 2)
        for user in (ALICE, BOB, CAROL):
            world.stored.unreadable[user] = dataclasses.replace(DAMAGED, user=user, reason=Unreadable.SEAL_KEY_NOT_HELD)
            with pytest.raises(MappingUnreadable):
                await service.find(user)
        assert service.without_seal_key == 2

    @pytest.mark.parametrize("reason", [Unreadable.SEAL_KEY_NOT_HELD, DAMAGED.reason])
    async def test_one_that_names_no_user_is_reported_and_not_counted(
        self, world: World, service: IdentityService, reason: Unreadable
    ) -> None:
        world.stored.unreadable[ALICE] = dataclasses.replace(DAMAGED, user=None, reason=reason)
        with pytest.raises(MappingUnreadable):
            await service.find(ALICE)
        assert service.without_seal_key == 0

    async def test_deleting_gives_up_in_the_end_when_it_never_holds_still(
        self, world: World, service: IdentityService
    ) -> None:
        world.stored.unreadable[ALICE] = DAMAGED
        world.store.script("remove", FailBefore(MappingChanged()), None)
        with pytest.raises(StoreUnavailable):
            await service.delete(ALICE)
        assert world.store.counts["remove"] == _ROUNDS

    async def test_an_unsealed_mapping_that_was_replaced_meanwhile_is_not_removed(
        self, world: World, service: IdentityService
    ) -> None:
        bobs = (await service.get_or_create(BOB)).acs_user_id
        mapping = await world.stored.create(ALICE, bobs)
        unsealed = world.stored.stored[ALICE] = dataclasses.replace(mapping, unsealed=True, deleting=True)
        world.store.script("remove", gate := Gate())
        creation = asyncio.create_task(service.get_or_create(ALICE))
        await gate.reached.wait()
        world.stored.stored[ALICE] = dataclasses.replace(
            unsealed, acs_user_id=acs_id("own_9"), version="another", unsealed=False, deleting=False
        )
        gate.opened.set()
        assert await creation == Identity(acs_id("own_9"), created=False)
        assert (service.orphans, bobs in world.acs.live) == (0, True)

    @pytest.mark.parametrize("deleting", [False, True])
    async def test_no_identity_is_deleted_on_the_word_of_an_unsealed_mapping(
        self, world: World, service: IdentityService, deleting: bool
    ) -> None:
        bobs = (await service.get_or_create(BOB)).acs_user_id
        mapping = await world.stored.create(ALICE, bobs)
        world.stored.stored[ALICE] = dataclasses.replace(mapping, unsealed=True, deleting=deleting)
        if deleting:
            assert (await service.get_or_create(ALICE)).acs_user_id != bobs
        else:
            assert await service.find(ALICE) == bobs
            await service.delete(ALICE)
            assert world.mapped() is None
        assert bobs in world.acs.live
        assert service.orphans == 1
