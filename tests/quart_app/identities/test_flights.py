"""Nothing half done: creations and deletions that outlive their callers, and what is left when a process ends."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

import pytest
from tenacity import wait_none

from quart_app.acs.interface import AcsUnavailable, IdentityGone
from quart_app.identities import IdentityNotFound, IdentityService, MappedIdentityGone
from storage.mapping import StoreMisconfigured, StoreThrottled, StoreUnavailable, UserKey
from tests.quart_app.identities.test_service import ALICE, BOB, World, a_world, passing
from tests.support import virtual_time
from tests.support.scripted import FailAfter, FailBefore, Gate, Hang
from upstream.deadline import deadline
from upstream.retrying import RetryPolicy

TWO_ATTEMPTS = RetryPolicy(attempts=2, back_off=wait_none())


@pytest.fixture
async def world() -> World:
    return World()


class TestDeletion:
    async def test_it_goes_on_when_its_caller_has_left(self, world: World) -> None:
        service = world.process()
        await service.get_or_create(ALICE)
        world.acs.script("delete_identity", gate := Gate())
        caller = asyncio.create_task(service.delete(ALICE))
        await gate.reached.wait()
        caller.cancel()
        gate.opened.set()
        await service.delete(ALICE)
        assert (world.mapped(), world.acs.live, service.unfinished_deletions) == (None, set(), 0)
        assert world.acs.counts["delete_identity"] == 1
        await world.aclose()

    def test_it_goes_on_when_the_deadline_of_its_caller_has_passed(self) -> None:
        async def main() -> None:
            async with a_world() as world:
                service = world.process()
                await service.get_or_create(ALICE)
                world.acs.script("delete_identity", gate := Gate())
                with deadline(5), pytest.raises(StoreUnavailable):
                    await service.delete(ALICE)
                gate.opened.set()
                await asyncio.sleep(1)
                assert (world.mapped(), world.acs.live) == (None, set())

        virtual_time.run(main())

    async def test_simultaneous_deletions_share_the_work(self, world: World) -> None:
        service = world.process()
        await service.get_or_create(ALICE)
        await asyncio.gather(*(service.delete(ALICE) for _ in range(5)))
        assert world.acs.counts["delete_identity"] == 1
        await world.aclose()

    def test_begun_while_acs_is_down_it_is_finished_in_the_background(self) -> None:
        async def main() -> None:
            async with a_world() as world:
                service, replica = world.process(), world.process()
                await service.get_or_create(ALICE)
                world.acs.script("delete_identity", FailBefore(AcsUnavailable()), 3)
                with pytest.raises(AcsUnavailable):
                    await service.delete(ALICE)
                assert service.unfinished_deletions == 1
                with pytest.raises(IdentityNotFound):
                    await replica.issue_token(ALICE)
                await asyncio.sleep(60)
                assert (world.mapped(), world.acs.live, service.unfinished_deletions) == (None, set(), 0)

        virtual_time.run(main())

    def test_a_mark_of_unknown_outcome_is_followed_up(self) -> None:
        async def main() -> None:
            async with a_world() as world:
                service = world.process()
                await service.get_or_create(ALICE)
                world.store.script("change", FailAfter(StoreUnavailable()))
                with pytest.raises(StoreUnavailable):
                    await service.delete(ALICE)
                await asyncio.sleep(60)
                assert (world.mapped(), world.acs.live, service.unfinished_deletions) == (None, set(), 0)

        virtual_time.run(main())

    def test_a_mark_that_was_not_written_deletes_nothing_later(self) -> None:
        async def main() -> None:
            async with a_world() as world:
                service = world.process()
                identity = await service.get_or_create(ALICE)
                world.store.script("change", FailBefore(StoreUnavailable()))
                with pytest.raises(StoreUnavailable):
                    await service.delete(ALICE)
                await asyncio.sleep(60)
                assert world.mapped() == identity.acs_user_id
                assert service.unfinished_deletions == 0

        virtual_time.run(main())

    def test_replicas_stop_issuing_tokens_within_ten_seconds(self) -> None:
        async def main() -> None:
            async with a_world() as world:
                loop = asyncio.get_running_loop()
                service, replica = world.process(), world.process(timer=loop.time)
                await service.get_or_create(ALICE)
                await replica.issue_token(ALICE)
                world.acs.script("delete_identity", FailBefore(AcsUnavailable()), None)
                with pytest.raises(AcsUnavailable):
                    await service.delete(ALICE)
                await asyncio.sleep(10.5)
                with pytest.raises(IdentityNotFound):
                    await replica.issue_token(ALICE)

        virtual_time.run(main())

    def test_one_that_waits_for_another_request_ends_at_the_bound_of_its_flight(self) -> None:
        async def main() -> float:
            async with a_world() as world:
                service = world.process(flight_seconds=40)
                world.store.script("get", Gate())
                creation = asyncio.create_task(service.get_or_create(ALICE))
                await asyncio.sleep(0)
                with pytest.raises(StoreUnavailable):
                    await service.delete(ALICE)
                ended = asyncio.get_running_loop().time()
                await asyncio.gather(creation, return_exceptions=True)
                assert world.store.counts["get"] == 1, "the deletion never had its turn"
                return ended

        assert virtual_time.run(main()) == 40


class TestCreation:
    def test_a_mint_that_takes_longer_than_the_deadline_is_kept_and_the_repeat_finds_it(self) -> None:
        async def main() -> None:
            async with a_world() as world:
                service = world.process()
                for attempt in range(3):
                    if attempt == 0:
                        world.acs.script("create_identity", gate := Gate())
                    with deadline(10), pytest.raises(StoreUnavailable):
                        await service.get_or_create(ALICE)
                gate.opened.set()
                identity = await service.get_or_create(ALICE)
                assert world.acs.minted == [identity.acs_user_id] == [world.mapped()]

        virtual_time.run(main())

    def test_a_mint_that_never_answers_ends_at_the_bound_of_its_flight(self) -> None:
        async def main() -> float:
            async with a_world() as world:
                service = world.process(flight_seconds=40)
                world.store.script("get", Hang())
                with deadline(1), pytest.raises(StoreUnavailable):
                    await service.get_or_create(ALICE)
                with pytest.raises(StoreUnavailable):
                    await service.get_or_create(ALICE)
                return asyncio.get_running_loop().time()

        assert virtual_time.run(main()) == 40


class TestClosing:
    async def test_what_is_certainly_unmapped_is_deleted(self, world: World) -> None:
        service = world.process()
        world.store.script("create", FailBefore(StoreMisconfigured("The table is gone.")), None)
        for user in (ALICE, BOB):
            with pytest.raises(StoreMisconfigured):
                await service.get_or_create(user)
        assert service.pending == len(world.acs.live) == 2
        await service.aclose()
        assert (world.acs.live, service.pending) == (set(), 0)

    async def test_what_may_be_mapped_stays_and_is_reported(
        self, world: World, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        service = world.process(close_seconds=0.01)
        world.store.script("create", FailBefore(StoreUnavailable()), None)
        with pytest.raises(StoreUnavailable):
            await service.get_or_create(ALICE)
        await service.aclose()
        assert len(world.acs.live) == 1
        (closed,) = [record for record in caplog.records if record.message == "closed"]
        assert (closed.levelno, closed.pending) == (logging.ERROR, 1)  # type: ignore[attr-defined]

    @pytest.mark.parametrize(
        ("work", "hangs"),
        [
            (IdentityService.get_or_create, "create_identity"),
            (IdentityService.delete, "delete_identity"),
            (IdentityService.sign_out, "revoke_tokens"),
        ],
    )
    async def test_work_that_is_cut_is_counted_and_its_caller_told_to_come_back(
        self,
        world: World,
        caplog: pytest.LogCaptureFixture,
        work: Callable[[IdentityService, UserKey], Awaitable[object]],
        hangs: str,
    ) -> None:
        await world.process().get_or_create(BOB)
        service = world.process(close_seconds=0.01)
        world.acs.script(hangs, gate := Gate())
        caller = asyncio.ensure_future(work(service, ALICE if hangs == "create_identity" else BOB))
        await gate.reached.wait()
        await service.aclose()
        with pytest.raises(StoreUnavailable):
            await caller
        (closed,) = [record for record in caplog.records if record.message == "closed"]
        assert (closed.levelno, closed.cut) == (logging.ERROR, 1)  # type: ignore[attr-defined]
        await world.aclose()


class TestGone:
    async def test_it_is_reported_only_if_the_store_still_names_the_refused_identity(self, world: World) -> None:
        service, other = world.process(), world.process()
        await service.get_or_create(ALICE)
        await service.issue_token(ALICE)  # remembered

        async def replace_identity() -> None:
            await other.delete(ALICE)
            await other.get_or_create(ALICE)

        await replace_identity()
        # The second identity is replaced, too, between the look into the store and the call of ACS.
        issue = world.acs.issue_token
        calls = 0

        async def issue_token(acs_user_id: str, request: object = None) -> object:
            nonlocal calls
            calls += 1
            if calls == 2:
                await replace_identity()
            return await issue(acs_user_id)

        world.acs.issue_token = issue_token  # type: ignore[method-assign,assignment]
        issued = await service.issue_token(ALICE)
        assert issued.acs_user_id == world.mapped()
        await world.aclose()

    async def test_an_identity_that_is_named_and_gone_is_reported(self, world: World) -> None:
        service = world.process()
        await service.get_or_create(ALICE)
        world.acs.script("issue_token", FailBefore(IdentityGone()))
        with pytest.raises(MappedIdentityGone):
            await service.issue_token(ALICE)
        await world.aclose()


class TestDoubt:
    async def test_a_refused_repetition_does_not_end_the_doubt_about_the_first_write(self, world: World) -> None:
        service, other = world.process(retry=TWO_ATTEMPTS), world.process()
        world.store.script("create", FailAfter(StoreUnavailable()))
        world.store.script("create", FailBefore(StoreThrottled()))
        world.store.script("get", passing())
        world.store.script("get", FailBefore(StoreUnavailable()))
        with pytest.raises(StoreThrottled):
            await service.get_or_create(ALICE)
        await other.delete(ALICE)
        identity = await service.get_or_create(ALICE)
        assert world.acs.live == {identity.acs_user_id}
        await world.aclose()

    async def test_an_identity_that_was_found_deleted_is_not_mapped_once_more(self, world: World) -> None:
        service, other = world.process(retry=TWO_ATTEMPTS), world.process()
        world.store.script("create", FailBefore(StoreUnavailable()))
        world.acs.script("issue_token", gate := Gate())
        creation = asyncio.create_task(service.get_or_create(ALICE))
        await gate.reached.wait()
        await other.delete(ALICE)
        gate.opened.set()
        identity = await creation
        assert world.acs.live == {identity.acs_user_id}
        assert world.store.counts["create"] == 3  # the one that failed, the repetition, and the new identity's
        await world.aclose()
