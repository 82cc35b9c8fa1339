"""The 1:1 rule under any mix of faults: several processes, lost and late answers, hangs, cancellations, crashes.

Time is virtual and every call takes a drawn time before and after its work, so Hypothesis chooses the interleaving.
"""

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TypeVar

from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from quart_app.acs.interface import AcsError, AcsThrottled, AcsToken, AcsUnavailable, TokenRequest
from quart_app.identities import IdentityError, IdentityService
from storage.guarded import GuardedStore
from storage.mapping import (
    ExtensionLimitReached,
    IdentityMapping,
    MappingStore,
    StoreError,
    StoreThrottled,
    StoreUnavailable,
    UnreadableMapping,
    UserKey,
)
from tests.support import virtual_time
from tests.support.memory_acs import MemoryAcsClient
from tests.support.memory_store import MemoryMappingStore
from upstream.deadline import deadline, remaining
from upstream.retrying import RetryPolicy

T = TypeVar("T")

PROCESSES = 3
USERS = [UserKey("tenant", name) for name in ("alice", "bob")]
REQUEST_SECONDS = 20.0


class Outcome(StrEnum):
    """What becomes of one call."""

    DONE = "done"
    REFUSED = "refused before anything was done"
    LOST = "done, but the answer was lost"
    LATE = "the answer was lost, and it is done only later"
    HANGS = "no answer, nothing done"
    HANGS_DONE = "no answer, but done"


@dataclass(frozen=True)
class CallPlan:
    outcome: Outcome
    before: int
    after: int


@dataclass(frozen=True)
class Step:
    """One request: who sends what to which process, after how long, and when its client goes away, if it does."""

    action: str
    process: int
    user: int
    pause: int
    cancel_after: int | None = None


plans = st.lists(
    st.builds(
        CallPlan,
        outcome=st.sampled_from([Outcome.DONE] * 5 + list(Outcome)),
        before=st.integers(0, 3),
        after=st.integers(0, 2),
    ),
    min_size=1,
    max_size=30,
)
"""What becomes of one call after another, over and over again."""
steps = st.lists(
    st.builds(
        Step,
        action=st.sampled_from(["get_or_create"] * 4 + ["delete"] * 2 + ["issue_token", "sign_out", "find", "crash"]),
        process=st.integers(0, PROCESSES - 1),
        user=st.sampled_from([0, 0, 0, 1]),
        pause=st.sampled_from([0, 0, 0, 1, 2, 5]),
        cancel_after=st.sampled_from([None, None, None, 0, 1, 3]),
    ),
    min_size=2,
    max_size=12,
)

current_user: ContextVar[UserKey] = ContextVar("current_user")


class Weather:
    """Decides what becomes of each call; when `calm`, all goes well at once."""

    def __init__(self, plans: list[CallPlan]) -> None:
        self._plans = itertools.cycle(plans)
        self.calm = False
        self.late: set[asyncio.Task[None]] = set()

    async def call(
        self, work: Callable[[], Awaitable[T]], trouble: Exception, refusal: Exception, still_counts: Callable[[], bool]
    ) -> T:
        if self.calm:
            return await work()
        plan = next(self._plans)
        await asyncio.sleep(plan.before)
        match plan.outcome:
            case Outcome.REFUSED:
                raise refusal
            case Outcome.LOST:
                with suppress(StoreError, AcsError):
                    await work()
                raise trouble
            case Outcome.LATE:
                task = asyncio.create_task(self._later(work, 1 + 3 * plan.after, still_counts))
                self.late.add(task)
                raise trouble
            case Outcome.HANGS | Outcome.HANGS_DONE:
                if plan.outcome is Outcome.HANGS_DONE:
                    with suppress(StoreError, AcsError):
                        await work()
                await asyncio.sleep(min(remaining() or REQUEST_SECONDS, REQUEST_SECONDS))
                raise trouble
        result = await work()
        await asyncio.sleep(plan.after)
        return result

    async def _later(self, work: Callable[[], Awaitable[T]], seconds: float, still_counts: Callable[[], bool]) -> None:
        await asyncio.sleep(seconds)
        if still_counts():
            with suppress(StoreError, AcsError):
                await work()


class StormyStore:
    """One process's way to the shared store."""

    def __init__(self, inner: MemoryMappingStore, weather: Weather, removals: Counter[UserKey]) -> None:
        self._inner = inner
        self._weather = weather
        self._removals = removals

    async def get(self, user: UserKey) -> IdentityMapping | None:
        return await self._call(user, lambda: self._inner.get(user))

    async def create(self, user: UserKey, acs_user_id: str, created_at: datetime | None = None) -> IdentityMapping:
        return await self._call(
            user, lambda: self._inner.create(user, acs_user_id, created_at), ExtensionLimitReached()
        )

    async def change(
        self, mapping: IdentityMapping, *, deleting: bool | None = None, signed_out_at: datetime | None = None
    ) -> IdentityMapping:
        return await self._call(
            mapping.user, lambda: self._inner.change(mapping, deleting=deleting, signed_out_at=signed_out_at)
        )

    async def remove(self, stored: IdentityMapping | UnreadableMapping) -> None:
        user = stored.user
        assert user is not None

        async def remove() -> None:
            await self._inner.remove(stored)
            self._removals[user] += 1

        await self._call(user, remove)

    def mappings(self) -> AsyncIterator[IdentityMapping | UnreadableMapping]:
        return self._inner.mappings()

    async def ping(self) -> None:
        await self._inner.ping()

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def _call(self, user: UserKey, work: Callable[[], Awaitable[T]], refusal: Exception | None = None) -> T:
        # No store without fencing tokens can refuse a write that comes after a whole deletion: the service's docstring
        # excludes it, and so does this model.
        removals = self._removals[user]
        return await self._weather.call(
            work, StoreUnavailable(), refusal or StoreThrottled(), lambda: self._removals[user] == removals
        )


class StormyCommunication:
    """One process's way to ACS. Knows for whom each identity was minted, and which ids no process ever learnt."""

    def __init__(self, inner: MemoryAcsClient, weather: Weather, owners: dict[str, UserKey], known: set[str]) -> None:
        self._inner = inner
        self._weather = weather
        self._owners = owners
        self._known = known

    async def create_identity(self) -> str:
        user = current_user.get()

        async def mint() -> str:
            acs_user_id = await self._inner.create_identity()
            self._owners[acs_user_id] = user
            return acs_user_id

        acs_user_id = await self._call(mint)
        self._known.add(acs_user_id)
        return acs_user_id

    async def delete_identity(self, acs_user_id: str) -> None:
        await self._call(lambda: self._inner.delete_identity(acs_user_id))

    async def issue_token(self, acs_user_id: str, request: TokenRequest | None = None) -> AcsToken:
        return await self._call(lambda: self._inner.issue_token(acs_user_id, request))

    async def revoke_tokens(self, acs_user_id: str) -> None:
        await self._call(lambda: self._inner.revoke_tokens(acs_user_id))

    async def exchange_teams_token(self, teams_token: str, client_id: str, user_object_id: str) -> AcsToken:
        return await self._inner.exchange_teams_token(teams_token, client_id, user_object_id)

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def _call(self, work: Callable[[], Awaitable[T]]) -> T:
        return await self._weather.call(work, AcsUnavailable(), AcsThrottled(), lambda: True)


class Deployment:
    """Several processes of the service over one store and one ACS resource."""

    def __init__(self, plans: list[CallPlan]) -> None:
        self.weather = Weather(plans)
        self.stored = MemoryMappingStore()
        self.acs = MemoryAcsClient()
        self.owners: dict[str, UserKey] = {}
        self.known: set[str] = set()
        self.lost_in_crashes: set[str] = set()
        self.removals: Counter[UserKey] = Counter()
        self.processes = [self._start() for _ in range(PROCESSES)]
        self.requests: set[asyncio.Task[None]] = set()
        self.answers: list[tuple[UserKey, str, bool]] = []

    def _start(self) -> IdentityService:
        store: MappingStore = StormyStore(self.stored, self.weather, self.removals)
        communication = StormyCommunication(self.acs, self.weather, self.owners, self.known)
        return IdentityService(
            GuardedStore(store, RetryPolicy(attempts=1)), communication, reconcile_seconds=REQUEST_SECONDS
        )

    async def crash(self, number: int) -> None:
        """Stop a process where it stands and start another: what only it knew is lost."""
        service = self.processes[number]
        lost = {minted.acs_user_id for minted in service._pending.values()} | service._orphans
        await service._flights.aclose()
        await service._sign_outs.aclose()
        await service._reconciler.aclose()  # a cancelled flight wakes it
        self.lost_in_crashes |= lost
        self.processes[number] = self._start()

    async def carry_out(self, step: Step) -> None:
        await asyncio.sleep(step.pause)
        if step.action == "crash":
            await self.crash(step.process)
            return
        request = asyncio.create_task(self._request(self.processes[step.process], step.action, USERS[step.user]))
        self.requests.add(request)
        if step.cancel_after is not None:
            asyncio.get_running_loop().call_later(step.cancel_after, request.cancel)

    async def _request(self, service: IdentityService, action: str, user: UserKey) -> None:
        current_user.set(user)
        with deadline(REQUEST_SECONDS), suppress(StoreError, AcsError, IdentityError):
            if action == "get_or_create":
                identity = await service.get_or_create(user)
                self.answers.append((user, identity.acs_user_id, identity.created))
            elif action == "delete":
                await service.delete(user)
            elif action == "issue_token":
                await service.issue_token(user)
            elif action == "sign_out":
                await service.sign_out(user)
            else:
                await service.find(user)

    def live(self, user: UserKey) -> set[str]:
        """The user's live identities, without those that no running process can know of."""
        return {
            acs_user_id
            for acs_user_id in self.acs.live & self.known - self.lost_in_crashes
            if self.owners[acs_user_id] == user
        }

    def mapping(self, user: UserKey) -> IdentityMapping | None:
        return self.stored.stored.get(user)


async def play(script: list[Step], plans: list[CallPlan]) -> Deployment:
    """Carry the script out in bad weather, then let the weather calm down and the background work come to rest."""
    deployment = Deployment(plans)
    for step in script:
        await deployment.carry_out(step)
    if deployment.requests:
        await asyncio.wait(deployment.requests)
    await asyncio.sleep(REQUEST_SECONDS)
    deployment.weather.calm = True
    await asyncio.sleep(1000)
    assert all(task.done() for task in deployment.weather.late)
    return deployment


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(script=steps, plans=plans)
def test_after_any_storm_every_user_has_at_most_one_live_identity_which_is_the_mapped_one(
    script: list[Step], plans: list[CallPlan]
) -> None:
    async def main() -> None:
        deployment = await play(script, plans)
        event(f"minted {min(len(deployment.acs.minted), 5)}")

        # Without a further request.
        for user in USERS:
            mapping = deployment.mapping(user)
            if mapping is not None and not mapping.deleting:
                assert mapping.acs_user_id in deployment.acs.live
            assert deployment.live(user) <= ({mapping.acs_user_id} if mapping else set())
        for service in deployment.processes:
            assert await service.reconcile() == 0

        # With one request from each user.
        for number, user in enumerate(USERS):
            current_user.set(user)
            identity = await deployment.processes[number].get_or_create(user)
            for service in deployment.processes:
                assert await service.find(user) == identity.acs_user_id
                assert (await service.issue_token(user)).acs_user_id == identity.acs_user_id
                again = await service.get_or_create(user)
                assert (again.acs_user_id, again.created) == (identity.acs_user_id, False)
            assert deployment.live(user) | {identity.acs_user_id} == {identity.acs_user_id}
            assert identity.acs_user_id in deployment.acs.live

        # And gone when they all want to be gone.
        for user in USERS:
            await deployment.processes[-1].delete(user)
            assert deployment.live(user) == set()
            assert deployment.mapping(user) is None
        for service in deployment.processes:
            await service.aclose()

    virtual_time.run(main())


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(script=steps.map(lambda all_: [step for step in all_ if step.action != "delete"]), plans=plans)
def test_a_user_who_never_leaves_is_only_ever_told_one_identity(script: list[Step], plans: list[CallPlan]) -> None:
    async def main() -> None:
        deployment = await play(script, plans)
        for user in USERS:
            told = {acs_user_id for who, acs_user_id, _ in deployment.answers if who == user}
            mapping = deployment.mapping(user)
            assert told <= ({mapping.acs_user_id} if mapping else set())
            assert sum(created for who, _, created in deployment.answers if who == user) <= 1
        for service in deployment.processes:
            await service.aclose()

    virtual_time.run(main())
