"""What every mapping store must do, in four groups. A store's own test module subclasses each and provides fixtures.

open_back_end  how to open a new, empty store; closing it is the caller's business
faults         (only `Faults`) how to make what is behind `store` fail; `FaultsAroundTheStore` has one for stores
               without a server

`conftest.py` makes the rest of them. `wrapper` runs every test once for each entry of `WRAPPERS`: a store passes the
suite bare and inside each decorator. `open_store` is `open_back_end` wrapped; `store` is one such store, closed after
the test; `repeats` says whether `store` itself repeats calls, so that a single fault is never seen.
"""

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, Protocol, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, multiple, rule, run_state_machine_as_test

from storage.guarded import GuardedStore
from storage.mapping import (
    IdentityMapping,
    MappingChanged,
    MappingExists,
    MappingStore,
    StoreThrottled,
    StoreUnavailable,
    UnreadableMapping,
    UserKey,
)
from tests.support.acs_ids import RESOURCE, acs_id
from tests.support.scripted import ScriptedFaults, ScriptedStore
from upstream.retrying import RetryPolicy

T = TypeVar("T")
OpenStore = Callable[[], Coroutine[Any, Any, MappingStore]]

NOON = datetime(2026, 11, 22, 12, 0, 0, 123456, tzinfo=UTC)
ALICE = UserKey("tenant", "alice")
BOB = UserKey("tenant", "bob")


async def no_wait(seconds: float) -> None:
    """Stands in for `asyncio.sleep` in retry policies."""
    await asyncio.sleep(0)


WRAPPERS: dict[str, Callable[[MappingStore], MappingStore]] = {
    "bare": lambda store: store,
    "guarded": lambda store: GuardedStore(store, RetryPolicy(sleep=no_wait)),
}


async def listed(store: MappingStore) -> list[IdentityMapping]:
    """Everything in the store, which is readable."""
    found = [stored async for stored in store.mappings()]
    mappings = [stored for stored in found if isinstance(stored, IdentityMapping)]
    assert mappings == found
    return mappings


async def unreadable_in(store: MappingStore) -> list[UnreadableMapping]:
    """What the store holds that is no mapping."""
    return [stored async for stored in store.mappings() if isinstance(stored, UnreadableMapping)]


async def create_or_existing(store: MappingStore, user: UserKey, acs_user_id: str) -> tuple[IdentityMapping, bool]:
    """The user's mapping and whether this call made it."""
    try:
        return await store.create(user, acs_user_id), True
    except MappingExists as conflict:
        return conflict.existing, False


NO_ACS_USER_IDS: dict[str, object] = {
    "nothing": None,
    "empty": "",
    "null as text": "null",
    "None as text": "None",
    "number": 8,
    "truth value": True,
    "list": [acs_id("one")],
    "object": {"id": acs_id("one")},
    "Teams user": "8:orgid:11112222-bbbb-3333-cccc-4444dddd5555",
    "phone": "4:+15551234567",
    "spool": f"8:spool:{RESOURCE}_one",
    "no own part": f"8:acs:{RESOURCE}_",
    "no resource": "8:acs:one",
    "without its 8": acs_id("one")[2:],
    "blank in it": acs_id("one") + " x",
    "blank before it": " " + acs_id("one"),
    "line feed behind it": acs_id("one") + "\n",
    "path": acs_id("one") + "/../" + acs_id("two"),
    "query": acs_id("one") + "?api-version=1",
    "fragment": acs_id("one") + "#",
    "percent": acs_id("one") + "%2F",
    "another action": acs_id("one") + "/:revokeAccessTokens",
    "two ids": f"{acs_id('one')},{acs_id('two')}",
    "other digits": acs_id("one").replace("0", "\u0660"),
    "too long": acs_id("o" * 200),
}
NO_DELETION_MARKS: dict[str, object] = {
    "text false": "false",
    "text true": "true",
    "empty text": "",
    "two": 2,
    "list": [],
    "object": {},
}
NO_SIGN_OUTS: dict[str, object] = {
    "text": "yesterday",
    "empty": "",
    "number": 1764072000,
    "without offset": "2026-11-22T12:00:00",
    "out of range": "9999-12-31T23:59:59-12:00",
    "truth value": True,
}
UNKNOWN_TIMES: dict[str, object] = {
    "nothing": None,
    "empty": "",
    "text": "yesterday",
    "without offset": "2026-11-22T12:00:00",
    "date": "2026-11-22",
    "after the calendar": "9999-12-31T23:59:59-12:00",
    "before the calendar": "0001-01-01T00:00:00+12:00",
    "no such day": "2026-02-30T00:00:00+00:00",
    "leap second": "2026-06-30T23:59:60+00:00",
}


class PlainUse:
    async def test_an_unknown_user_has_no_mapping(self, store: MappingStore) -> None:
        assert await store.get(ALICE) is None

    async def test_the_representation_of_a_mapping_tells_neither_the_user_nor_the_identity(
        self, store: MappingStore
    ) -> None:
        created = await store.create(ALICE, acs_id("one"))
        assert repr(created) == "IdentityMapping(…, deleting=False)"
        assert repr(await store.change(created, deleting=True)) == "IdentityMapping(…, deleting=True)"
        assert repr(created.user) == "UserKey(…)"

    async def test_a_created_mapping_is_read_back_equal(self, store: MappingStore) -> None:
        before = datetime.now(UTC)
        created = await store.create(ALICE, acs_id("one"))
        assert (created.user, created.acs_user_id, created.deleting) == (ALICE, acs_id("one"), False)
        assert await store.get(ALICE) == created
        assert created.created_at.utcoffset() == timedelta(0)
        # Stores whose clock is the server's may keep whole seconds.
        assert before - timedelta(seconds=2) <= created.created_at <= datetime.now(UTC) + timedelta(seconds=2)

    async def test_a_second_create_reports_what_is_there_and_changes_nothing(self, store: MappingStore) -> None:
        first = await store.create(ALICE, acs_id("one"))
        with pytest.raises(MappingExists) as conflict:
            await store.create(ALICE, acs_id("two"))
        assert conflict.value.existing == first
        assert await store.get(ALICE) == first

    async def test_a_repeated_create_with_the_same_id_reports_the_callers_own_write(self, store: MappingStore) -> None:
        first = await store.create(ALICE, acs_id("one"))
        with pytest.raises(MappingExists) as conflict:
            await store.create(ALICE, acs_id("one"))
        assert conflict.value.existing == first

    async def test_a_create_during_a_deletion_reports_the_mapping_in_deletion(self, store: MappingStore) -> None:
        marked = await store.change(await store.create(ALICE, acs_id("one")), deleting=True)
        with pytest.raises(MappingExists) as conflict:
            await store.create(ALICE, acs_id("two"))
        assert conflict.value.existing == marked

    async def test_users_are_kept_apart(self, store: MappingStore) -> None:
        alice, bob = await store.create(ALICE, acs_id("one")), await store.create(BOB, acs_id("two"))
        await store.remove(alice)
        assert await store.get(ALICE) is None
        assert await store.get(BOB) == bob

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            (UserKey("tenant", "sub"), UserKey("tenants", "ub")),
            (UserKey("tenant", "Sub"), UserKey("tenant", "sub")),
            (UserKey("https://issuer.example/a", "b/c"), UserKey("https://issuer.example/a/b", "c")),
            (UserKey("tenant", "auth0|1?#%2F\\'\"; DROP"), UserKey("tenant", "auth0|1?#/\\'\"; DROP")),
            (UserKey("tenant", "ä" * 120), UserKey("tenant", "ä" * 121)),
            (UserKey("tenant", "sub "), UserKey("tenant", "sub")),
        ],
        ids=["boundary", "case", "slashes", "special characters", "long", "trailing space"],
    )
    async def test_similar_keys_are_different_users(self, store: MappingStore, one: UserKey, other: UserKey) -> None:
        created = await store.create(one, acs_id("one"))
        assert await store.get(other) is None
        await store.create(other, acs_id("two"))
        assert await store.get(one) == created

    async def test_a_marked_mapping_is_still_read_and_has_a_new_version(self, store: MappingStore) -> None:
        created = await store.create(ALICE, acs_id("one"))
        marked = await store.change(created, deleting=True)
        assert marked.deleting
        assert marked.version != created.version
        assert (marked.user, marked.acs_user_id, marked.created_at) == (ALICE, acs_id("one"), created.created_at)
        assert await store.get(ALICE) == marked

    async def test_a_creation_may_be_given_its_time(self, store: MappingStore) -> None:
        then = datetime(2025, 3, 4, 5, 6, 7, 890, tzinfo=timezone(timedelta(hours=2)))
        created = await store.create(ALICE, acs_id("one"), then)
        assert (created.created_at, created.created_at.utcoffset()) == (then, timedelta(0))
        assert await store.get(ALICE) == created

    async def test_nobody_is_signed_out_at_first_and_a_sign_out_is_kept_over_a_deletion_mark(
        self, store: MappingStore
    ) -> None:
        created = await store.create(ALICE, acs_id("one"))
        assert created.signed_out_at is None
        signed_out = await store.change(created, signed_out_at=NOON)
        assert (signed_out.signed_out_at, signed_out.deleting) == (NOON, False)
        assert signed_out.version != created.version
        assert (signed_out.user, signed_out.acs_user_id, signed_out.created_at) == (
            ALICE,
            created.acs_user_id,
            created.created_at,
        )
        assert await store.get(ALICE) == signed_out
        marked = await store.change(signed_out, deleting=True)
        assert (marked.signed_out_at, marked.deleting) == (NOON, True)
        assert await store.get(ALICE) == marked
        assert await listed(store) == [marked]

    async def test_a_sign_out_in_another_zone_is_kept_in_utc(self, store: MappingStore) -> None:
        there = NOON.astimezone(timezone(timedelta(hours=9)))
        signed_out = await store.change(await store.create(ALICE, acs_id("one")), signed_out_at=there)
        assert signed_out.signed_out_at is not None
        assert signed_out.signed_out_at.utcoffset() == timedelta(0)
        assert (await store.get(ALICE), signed_out.signed_out_at) == (signed_out, NOON)

    async def test_deletion_mark_and_sign_out_can_be_written_at_once_and_a_mark_taken_back(
        self, store: MappingStore
    ) -> None:
        both = await store.change(await store.create(ALICE, acs_id("one")), deleting=True, signed_out_at=NOON)
        assert (both.deleting, both.signed_out_at) == (True, NOON)
        back = await store.change(both, deleting=False)
        assert (back.deleting, back.signed_out_at) == (False, NOON)
        assert await store.get(ALICE) == back

    async def test_a_change_of_nothing_keeps_the_version(self, store: MappingStore) -> None:
        signed_out = await store.change(await store.create(ALICE, acs_id("one")), signed_out_at=NOON)
        assert await store.change(signed_out) == signed_out
        assert await store.change(signed_out, signed_out_at=NOON, deleting=False) == signed_out
        assert await store.get(ALICE) == signed_out

    async def test_a_sign_out_of_a_mapping_that_was_changed_since_it_was_read_is_refused(
        self, store: MappingStore
    ) -> None:
        created = await store.create(ALICE, acs_id("one"))
        marked = await store.change(created, deleting=True)
        with pytest.raises(MappingChanged):
            await store.change(created, signed_out_at=NOON)
        assert await store.get(ALICE) == marked

    async def test_marking_a_marked_mapping_changes_nothing(self, store: MappingStore) -> None:
        marked = await store.change(await store.create(ALICE, acs_id("one")), deleting=True)
        assert await store.change(marked, deleting=True) == marked
        assert await store.get(ALICE) == marked

    async def test_a_mapping_that_was_changed_since_it_was_read_is_not_marked(self, store: MappingStore) -> None:
        created = await store.create(ALICE, acs_id("one"))
        marked = await store.change(created, deleting=True)
        with pytest.raises(MappingChanged):
            await store.change(created, deleting=True)
        assert await store.get(ALICE) == marked

    async def test_a_mapping_that_is_gone_is_not_marked(self, store: MappingStore) -> None:
        created = await store.create(ALICE, acs_id("one"))
        marked = await store.change(created, deleting=True)
        await store.remove(marked)
        for gone in (created, marked):
            with pytest.raises(MappingChanged):
                await store.change(gone, deleting=True)
        assert await store.get(ALICE) is None

    async def test_a_removed_mapping_makes_room_for_a_new_one(self, store: MappingStore) -> None:
        await store.remove(await store.change(await store.create(ALICE, acs_id("one")), deleting=True))
        assert await store.get(ALICE) is None
        created = await store.create(ALICE, acs_id("two"))
        assert await store.get(ALICE) == created

    async def test_a_mapping_can_be_removed_without_having_been_marked(self, store: MappingStore) -> None:
        await store.remove(await store.create(ALICE, acs_id("one")))
        assert await store.get(ALICE) is None

    async def test_removing_twice_is_success(self, store: MappingStore) -> None:
        created = await store.create(ALICE, acs_id("one"))
        await store.remove(created)
        await store.remove(created)

    async def test_a_mapping_that_was_changed_since_it_was_read_is_not_removed(self, store: MappingStore) -> None:
        created = await store.create(ALICE, acs_id("one"))
        marked = await store.change(created, deleting=True)
        with pytest.raises(MappingChanged):
            await store.remove(created)
        assert await store.get(ALICE) == marked

    @pytest.mark.parametrize("acs_user_id", [acs_id("one"), acs_id("two")], ids=["same id", "other id"])
    async def test_a_mapping_that_was_replaced_is_neither_marked_nor_removed(
        self, store: MappingStore, acs_user_id: str
    ) -> None:
        created = await store.create(ALICE, acs_id("one"))
        marked = await store.change(created, deleting=True)
        await store.remove(marked)
        replacement = await store.create(ALICE, acs_user_id)
        for stale in (created, marked):
            with pytest.raises(MappingChanged):
                await store.change(stale, deleting=True)
            with pytest.raises(MappingChanged):
                await store.remove(stale)
        assert await store.get(ALICE) == replacement

    async def test_all_mappings_are_listed_once_those_in_deletion_included(self, store: MappingStore) -> None:
        created = [await store.create(UserKey("tenant", f"user-{n}"), acs_id(f"{n}")) for n in range(12)]
        created[5] = await store.change(created[5], deleting=True)
        found = await listed(store)
        assert len(found) == len(created)
        assert {mapping.user: mapping for mapping in found} == {mapping.user: mapping for mapping in created}

    async def test_a_listing_goes_on_by_the_name_of_a_page(self, store: MappingStore) -> None:
        created = [await store.create(UserKey("tenant", f"user-{n}"), acs_id(f"{n}")) for n in range(12)]
        page = await store.page(None)
        found = [*page.stored]
        for _ in range(100):
            if page.following is None:
                break
            page = await store.page(page.following)
            found += page.stored
        assert sorted(each.version for each in found) == sorted(each.version for each in created)
        assert {each.user for each in found} == {each.user for each in created}

    async def test_an_empty_store_lists_nothing(self, store: MappingStore) -> None:
        assert await listed(store) == []

    async def test_a_listing_survives_the_removal_of_what_it_yields(self, store: MappingStore) -> None:
        created = [await store.create(UserKey("tenant", f"user-{n}"), acs_id(f"{n}")) for n in range(12)]
        removed = []
        async for mapping in store.mappings():
            await store.remove(mapping)
            assert mapping.user is not None
            removed.append(mapping.user)
        assert sorted(removed, key=lambda user: user.subject) == sorted(
            (mapping.user for mapping in created), key=lambda user: user.subject
        )
        assert await listed(store) == []

    async def test_a_ping_succeeds_and_writes_nothing(self, store: MappingStore) -> None:
        await store.ping()
        assert await listed(store) == []


class Concurrency:
    async def test_of_many_simultaneous_creates_one_wins_and_the_others_get_the_winner(
        self, store: MappingStore
    ) -> None:
        outcomes = await asyncio.gather(*(create_or_existing(store, ALICE, acs_id(f"{n}")) for n in range(50)))
        winner = await store.get(ALICE)
        assert winner is not None
        assert [mapping for mapping, made in outcomes if made] == [winner]
        assert [mapping for mapping, _ in outcomes] == [winner] * 50

    async def test_simultaneous_creates_for_different_users_all_succeed(self, store: MappingStore) -> None:
        users = [UserKey("tenant", f"user-{n}") for n in range(30)]
        created = await asyncio.gather(*(store.create(user, acs_id(f"{user.subject}")) for user in users))
        assert await asyncio.gather(*(store.get(user) for user in users)) == created

    async def test_of_simultaneous_markings_one_wins_and_the_others_see_a_change(self, store: MappingStore) -> None:
        created = await store.create(ALICE, acs_id("one"))
        outcomes = await asyncio.gather(
            *(store.change(created, deleting=True) for _ in range(10)), return_exceptions=True
        )
        marked = [outcome for outcome in outcomes if isinstance(outcome, IdentityMapping)]
        assert marked == [await store.get(ALICE)]
        assert sum(isinstance(outcome, MappingChanged) for outcome in outcomes) == 9

    async def test_simultaneous_removals_all_succeed(self, store: MappingStore) -> None:
        marked = await store.change(await store.create(ALICE, acs_id("one")), deleting=True)
        assert await asyncio.gather(*(store.remove(marked) for _ in range(10))) == [None] * 10
        assert await store.get(ALICE) is None

    async def test_a_create_that_races_a_removal_sees_the_old_mapping_or_makes_the_new_one(
        self, store: MappingStore
    ) -> None:
        for attempt in range(10):
            old = await store.change(await store.create(ALICE, acs_id(f"old-{attempt}")), deleting=True)
            (found, made), _ = await asyncio.gather(
                create_or_existing(store, ALICE, acs_id(f"new-{attempt}")), store.remove(old)
            )
            current = await store.get(ALICE)
            assert (found, current) == ((found, found) if made else (old, None))
            if current is not None:
                await store.remove(current)

    async def test_readers_see_each_mapping_whole_while_it_comes_and_goes(self, store: MappingStore) -> None:
        seen: list[IdentityMapping | None] = []
        true_forms: list[IdentityMapping | None] = [None]
        finished = False

        async def read() -> None:
            while not finished:
                seen.append(await store.get(ALICE))

        readers = [asyncio.create_task(read()) for _ in range(3)]
        for attempt in range(5):
            created = await store.create(ALICE, acs_id(f"{attempt}"))
            marked = await store.change(created, deleting=True)
            true_forms += [created, marked]
            await store.remove(marked)
        finished = True
        await asyncio.gather(*readers)
        assert seen
        assert all(form in true_forms for form in seen)

    async def test_a_cancelled_call_leaves_the_store_in_order(self, store: MappingStore) -> None:
        for attempt in range(20):
            create = asyncio.create_task(store.create(ALICE, acs_id(f"{attempt}")))
            for _ in range(attempt % 4):
                await asyncio.sleep(0)
            create.cancel()
            await asyncio.gather(create, return_exceptions=True)
            mapping, _ = await create_or_existing(store, ALICE, acs_id(f"{attempt}"))
            assert mapping.acs_user_id == acs_id(f"{attempt}")
            await store.remove(mapping)


class FaultScript(Protocol):
    """How a test makes what is behind the store fail. Operations are the method names of `MappingStore`."""

    def throttle(self, operation: str, *, retry_after: float, times: int | None = 1) -> None:
        """Refuse the next `times` calls (`None`: all) because of a rate limit; `retry_after` is in seconds."""
        ...

    def fail(self, operation: str, *, times: int | None = 1) -> None:
        """Don't carry out the next calls and don't answer them properly."""
        ...

    def lose_answer(self, operation: str, *, times: int | None = 1) -> None:
        """Carry out the next calls but lose their answers."""
        ...

    def clear(self) -> None:
        """Work again."""
        ...


WRITES = ("create", "change", "remove")
OPERATIONS = ("get", *WRITES, "mappings", "ping")
_REPETITIONS = 10


async def until_answered(call: Callable[[], Awaitable[T]]) -> T:
    """What a patient caller does: the same call again after each transient error."""
    for _ in range(_REPETITIONS):
        try:
            return await call()
        except (StoreThrottled, StoreUnavailable):
            continue
    raise AssertionError("The store did not recover.")


class Faults:
    @pytest.mark.parametrize("operation", OPERATIONS)
    async def test_an_outage_is_an_error_and_never_an_answer(
        self, store: MappingStore, faults: FaultScript, operation: str
    ) -> None:
        created = await store.create(ALICE, acs_id("one"))
        faults.fail(operation, times=None)
        with pytest.raises(StoreUnavailable):
            await call(store, operation, created)
        faults.clear()
        assert await store.get(ALICE) == created

    @pytest.mark.parametrize("operation", OPERATIONS)
    async def test_a_throttled_call_says_when_to_come_back_and_did_nothing(
        self, store: MappingStore, faults: FaultScript, operation: str
    ) -> None:
        created = await store.create(ALICE, acs_id("one"))
        faults.throttle(operation, retry_after=7, times=None)
        with pytest.raises(StoreThrottled) as refusal:
            await call(store, operation, created)
        assert refusal.value.retry_after == 7
        faults.clear()
        assert await listed(store) == [created]

    @pytest.mark.parametrize("operation", OPERATIONS)
    async def test_a_single_fault_is_hidden_only_by_stores_that_repeat_and_the_next_call_works(
        self, store: MappingStore, faults: FaultScript, repeats: bool, operation: str
    ) -> None:
        created = await store.create(ALICE, acs_id("one"))
        for script in (faults.fail, lambda name: faults.throttle(name, retry_after=0)):
            script(operation)
            # A create that may have happened is for the caller to settle, who knows what else may have.
            if repeats and not (operation == "create" and script == faults.fail):
                await call(store, operation, created)
            else:
                with pytest.raises((StoreUnavailable, StoreThrottled)):
                    await call(store, operation, created)
                await call(store, operation, created)
            created, _ = await create_or_existing(store, ALICE, acs_id("one"))

    async def test_a_create_whose_answer_was_lost_is_settled_by_repeating_it(
        self, store: MappingStore, faults: FaultScript
    ) -> None:
        faults.lose_answer("create")
        mapping, _ = await until_answered(lambda: create_or_existing(store, ALICE, acs_id("one")))
        assert mapping.acs_user_id == acs_id("one")
        assert await listed(store) == [mapping]

    async def test_a_create_whose_answer_was_lost_still_wins_over_a_later_one(
        self, store: MappingStore, faults: FaultScript
    ) -> None:
        faults.lose_answer("create")
        with pytest.raises((StoreUnavailable, MappingExists)):
            await store.create(ALICE, acs_id("one"))
        mapping, made = await create_or_existing(store, ALICE, acs_id("two"))
        assert (mapping.acs_user_id, made) == (acs_id("one"), False)

    async def test_a_marking_whose_answer_was_lost_is_settled_by_reading(
        self, store: MappingStore, faults: FaultScript
    ) -> None:
        created = await store.create(ALICE, acs_id("one"))
        faults.lose_answer("change")
        with pytest.raises((StoreUnavailable, MappingChanged)):
            await store.change(created, deleting=True)
        found = await store.get(ALICE)
        assert found is not None
        assert found.deleting
        assert await store.change(found, deleting=True) == found

    async def test_a_removal_whose_answer_was_lost_is_settled_by_repeating_it(
        self, store: MappingStore, faults: FaultScript
    ) -> None:
        created = await store.create(ALICE, acs_id("one"))
        faults.lose_answer("remove")
        await until_answered(lambda: store.remove(created))
        assert await store.get(ALICE) is None

    async def test_a_listing_goes_on_after_each_fault_without_gap_or_repetition(
        self, store: MappingStore, faults: FaultScript
    ) -> None:
        created = {await store.create(UserKey("tenant", f"user-{n}"), acs_id(f"{n}")) for n in range(8)}
        pages = store.mappings()
        found: list[IdentityMapping] = []
        for fault in (faults.fail, faults.lose_answer) * _REPETITIONS:
            fault("mappings")
            step = await until_answered(lambda: anext(pages, None))
            if step is None:
                break
            assert isinstance(step, IdentityMapping)
            found.append(step)
        assert len(found) == len(created)
        assert set(found) == created


class FaultsAroundTheStore(Faults):
    """The group for stores without a server: their faults are scripted between them and their decorators."""

    @pytest.fixture
    async def scripted(self, open_back_end: OpenStore) -> AsyncIterator[ScriptedStore]:
        scripted = ScriptedStore(await open_back_end())
        yield scripted
        await scripted.aclose()

    @pytest.fixture
    def store(self, scripted: ScriptedStore, wrapper: str) -> MappingStore:
        return WRAPPERS[wrapper](scripted)

    @pytest.fixture
    def faults(self, scripted: ScriptedStore) -> FaultScript:
        return ScriptedFaults(scripted)


async def call(store: MappingStore, operation: str, mapping: IdentityMapping) -> None:
    calls: dict[str, Callable[[], Awaitable[object]]] = {
        "get": lambda: store.get(mapping.user),
        "create": lambda: create_or_existing(store, mapping.user, mapping.acs_user_id),
        "change": lambda: store.change(mapping, deleting=True),
        "remove": lambda: store.remove(mapping),
        "mappings": lambda: listed(store),
        "ping": store.ping,
    }
    await calls[operation]()


class StateMachine:
    def test_any_sequence_of_calls_does_what_the_model_does(self, open_store: OpenStore) -> None:
        run_state_machine_as_test(
            lambda: StoreMachine(open_store),  # type: ignore[arg-type]  # Anything that makes a machine will do.
            settings=settings(
                max_examples=15,
                stateful_step_count=25,
                derandomize=True,
                deadline=None,
                suppress_health_check=[HealthCheck.too_slow],
            ),
        )


_users = st.sampled_from([ALICE, BOB, UserKey("https://issuer.example", "sub|1"), UserKey("tenanta", "lice")])
_ids = st.sampled_from([acs_id("one"), acs_id("two"), acs_id("three")])


class StoreMachine(RuleBasedStateMachine):
    """The store beside a dictionary. Mappings ever read go into a bundle, so stale ones are tried again and again."""

    read: Bundle[IdentityMapping] = Bundle("read")

    def __init__(self, open_store: OpenStore) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.store = self.run(open_store())
        self.model: dict[UserKey, IdentityMapping] = {}
        self.versions: set[str] = set()
        self.minutes = 0

    def run(self, call: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(call)

    def teardown(self) -> None:
        self.run(self.store.aclose())
        self.runner.close()

    @rule(target=read, user=_users, acs_user_id=_ids)
    def create(self, user: UserKey, acs_user_id: str) -> IdentityMapping:
        mapping, made = self.run(create_or_existing(self.store, user, acs_user_id))
        assert made == (user not in self.model)
        if made:
            assert (mapping.user, mapping.acs_user_id, mapping.deleting) == (user, acs_user_id, False)
            self._remember(mapping)
        assert mapping == self.model[user]
        return mapping

    @rule(target=read, user=_users, ids=st.lists(_ids, min_size=2, max_size=4))
    def create_at_once(self, user: UserKey, ids: list[str]) -> IdentityMapping:
        async def all_at_once() -> list[tuple[IdentityMapping, bool]]:
            return await asyncio.gather(*(create_or_existing(self.store, user, acs_user_id) for acs_user_id in ids))

        outcomes = self.run(all_at_once())
        made = [mapping for mapping, made in outcomes if made]
        assert len(made) == (user not in self.model)
        for mapping in made:
            self._remember(mapping)
        assert all(mapping == self.model[user] for mapping, _ in outcomes)
        return self.model[user]

    @rule(target=read, user=_users)
    def get(self, user: UserKey) -> Any:
        mapping = self.run(self.store.get(user))
        assert mapping == self.model.get(user)
        return multiple() if mapping is None else mapping

    @rule(target=read, mapping=read)
    def sign_out(self, mapping: IdentityMapping) -> Any:
        self.minutes += 1
        moment = NOON + timedelta(minutes=self.minutes)
        if self.model.get(mapping.user) != mapping:
            with pytest.raises(MappingChanged):
                self.run(self.store.change(mapping, signed_out_at=moment))
            return multiple()
        changed = self.run(self.store.change(mapping, signed_out_at=moment))
        assert changed == dataclasses.replace(mapping, signed_out_at=moment, version=changed.version)
        self._remember(changed)
        return changed

    @rule(target=read, mapping=read)
    def mark_deleting(self, mapping: IdentityMapping) -> Any:
        if self.model.get(mapping.user) != mapping:
            with pytest.raises(MappingChanged):
                self.run(self.store.change(mapping, deleting=True))
            return multiple()
        marked = self.run(self.store.change(mapping, deleting=True))
        assert marked.deleting
        assert (marked.user, marked.acs_user_id) == (mapping.user, mapping.acs_user_id)
        if mapping.deleting:
            assert marked == mapping
        else:
            self._remember(marked)
        return marked

    @rule(mapping=read)
    def remove(self, mapping: IdentityMapping) -> None:
        if self.model.get(mapping.user, mapping) != mapping:
            with pytest.raises(MappingChanged):
                self.run(self.store.remove(mapping))
            return
        self.run(self.store.remove(mapping))
        self.model.pop(mapping.user, None)

    @invariant()
    def lists_what_the_model_holds(self) -> None:
        found = self.run(listed(self.store))
        assert len(found) == len(self.model)
        assert {mapping.user: mapping for mapping in found} == self.model

    def _remember(self, mapping: IdentityMapping) -> None:
        assert mapping.version not in self.versions, "A version must never come back."
        self.versions.add(mapping.version)
        self.model[mapping.user] = mapping
