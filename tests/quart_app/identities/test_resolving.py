"""Whose identities one question tells: exactly those of one issuer that are there, or an error for all."""

import asyncio
import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quart_app.identities import IdentityService
from quart_app.web.bodies import parsed
from quart_app.web.routes.users import USERS_TO_RESOLVE, WHAT_TO_SEND, distinct
from storage.guarded import GuardedStore
from storage.mapping import (
    IdentityMapping,
    StoreThrottled,
    StoreUnavailable,
    StoreUnexpectedAnswer,
    Unreadable,
    UnreadableMapping,
    UserKey,
)
from tests.support.acs_ids import acs_id
from tests.support.memory_acs import MemoryAcsClient
from tests.support.memory_store import MemoryMappingStore
from tests.support.scripted import FailBefore, Gate, Hang, ScriptedStore
from upstream.deadline import deadline
from upstream.retrying import RetryPolicy

OURS, OTHERS = "11111111-1111-1111-1111-111111111111", "22222222-2222-2222-2222-222222222222"
PEOPLE = [f"abcdef00-0000-4000-8000-{number:012d}" for number in range(6)]
ABSENT, MAPPED, MARKED = "absent", "mapped", "marked"

states = st.dictionaries(
    st.tuples(st.sampled_from([OURS, OTHERS]), st.sampled_from(PEOPLE)), st.sampled_from([ABSENT, MAPPED, MARKED])
)
spelled = st.lists(
    st.tuples(st.sampled_from(PEOPLE), st.sampled_from([str.lower, str.upper, str.title])).map(
        lambda drawn: drawn[1](drawn[0])
    ),
    max_size=20,
)


def mapping(user: UserKey, state: str) -> IdentityMapping:
    identity = acs_id(f"of_{user.issuer[0]}_{user.subject[-1]}")
    return IdentityMapping(user, identity, datetime(2026, 1, 1, tzinfo=UTC), deleting=state == MARKED, version="1")


class World:
    """One process over a store that suffers what a test scripts."""

    def __init__(self, stored: dict[tuple[str, str], str]) -> None:
        self.memory = MemoryMappingStore()
        for (issuer, subject), state in stored.items():
            if state != ABSENT:
                user = UserKey(issuer, subject)
                self.memory.stored[user] = mapping(user, state)
        self.store = ScriptedStore(self.memory)
        self.acs = MemoryAcsClient()
        self.service = IdentityService(GuardedStore(self.store, RetryPolicy(attempts=1)), self.acs)


@given(stored=states, asked=spelled)
def test_exactly_those_of_the_callers_tenant_who_have_an_identity_are_told_once_each(
    stored: dict[tuple[str, str], str], asked: list[str]
) -> None:
    async def main() -> None:
        world = World(stored)
        body = json.dumps({"userIds": asked}).encode()
        found = await world.service.resolve(OURS, distinct(parsed(body, USERS_TO_RESOLVE, WHAT_TO_SEND)))
        expected = [
            person for person in dict.fromkeys(each.lower() for each in asked) if stored.get((OURS, person)) == MAPPED
        ]
        assert list(found) == expected
        assert found == {person: mapping(UserKey(OURS, person), MAPPED).acs_user_id for person in expected}
        assert world.store.counts["get"] == len({each.lower() for each in asked})
        await world.service.aclose()

    asyncio.run(main())


async def test_at_most_ten_are_read_at_the_same_time() -> None:
    world = World({})
    gate = Gate()
    world.store.script("get", gate, None)
    people = [f"abcdef00-0000-4000-8000-{number:012d}" for number in range(100)]
    asking = asyncio.create_task(world.service.resolve(OURS, people))
    await gate.reached.wait()
    for _ in range(100):
        await asyncio.sleep(0)
    assert world.store.counts["get"] == 10
    gate.opened.set()
    assert await asking == {}
    assert world.store.counts["get"] == 100


@pytest.mark.parametrize("error", [StoreUnavailable(7.0), StoreThrottled(), RuntimeError("a defect")])
async def test_the_first_read_that_fails_is_told_as_it_is_and_ends_the_others(error: Exception) -> None:
    world = World({(OURS, person): MAPPED for person in PEOPLE})
    world.store.script("get", Hang(), 5)
    world.store.script("get", FailBefore(error))
    with pytest.raises(type(error)) as told:
        await world.service.resolve(OURS, PEOPLE)
    assert told.value is error
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []


async def test_a_store_that_does_not_answer_is_no_absence_at_the_deadline() -> None:
    world = World({(OURS, person): MAPPED for person in PEOPLE})
    world.store.script("get", Hang(), None)
    with deadline(0.01), pytest.raises(StoreUnavailable):
        await world.service.resolve(OURS, PEOPLE)


async def test_who_asks_and_goes_away_leaves_no_read_behind() -> None:
    world = World({})
    world.store.script("get", gate := Gate(), None)
    asking = asyncio.create_task(world.service.resolve(OURS, PEOPLE))
    await gate.reached.wait()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []


async def test_a_mapping_that_cannot_be_read_is_the_stores_trouble() -> None:
    world = World({(OURS, PEOPLE[0]): MAPPED})
    damaged = UserKey(OURS, PEOPLE[1])
    world.memory.unreadable[damaged] = UnreadableMapping(damaged, "1", Unreadable.DAMAGED)
    with pytest.raises(StoreUnexpectedAnswer):
        await world.service.resolve(OURS, PEOPLE[:2])
    assert list(await world.service.resolve(OURS, PEOPLE[:1])) == PEOPLE[:1]


async def test_a_deletion_that_a_question_meets_ends_what_the_process_remembered() -> None:
    world = World({})
    user = UserKey(OURS, PEOPLE[0])
    identity = await world.service.get_or_create(user)
    assert await world.service.resolve(OURS, PEOPLE) == {PEOPLE[0]: identity.acs_user_id}
    marked = await world.store.change(world.memory.stored[user], deleting=True)
    assert marked.deleting
    assert await world.service.resolve(OURS, PEOPLE) == {}
    reads = world.store.counts["get"]
    with pytest.raises(Exception, match="no ACS identity"):
        await world.service.issue_token(user)
    assert world.store.counts["get"] == reads + 1
    await world.service.aclose()


async def test_a_question_is_no_reason_to_trust_a_mapping_from_memory() -> None:
    user = UserKey(OURS, PEOPLE[0])
    world = World({(OURS, PEOPLE[0]): MAPPED})
    await world.service.resolve(OURS, PEOPLE)
    reads = world.store.counts["get"]
    with pytest.raises(Exception, match="another ACS resource"):
        await world.service.issue_token(user)
    assert world.store.counts["get"] > reads
