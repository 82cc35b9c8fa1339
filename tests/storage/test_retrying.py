"""The one retry policy: how often, how long, and when not."""

import asyncio
import random
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage.deadline import deadline
from storage.mapping import (
    ExtensionLimitReached,
    MappingChanged,
    MappingStore,
    StoreError,
    StoreMisconfigured,
    StoreThrottled,
    StoreUnavailable,
)
from storage.retrying import RetryingStore, RetryPolicy
from tests.storage import virtual_time
from tests.storage.contract import ALICE, no_wait
from tests.storage.memory import MemoryMappingStore
from tests.storage.scripted import FailAfter, FailBefore, Hang, ScriptedStore

# The same examples every time, however slow the machine is.
deterministic = settings(derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])


class Transient(Exception):
    def __init__(self, retry_after: float | None = None) -> None:
        super().__init__()
        self.retry_after = retry_after


def is_transient(error: Exception) -> bool:
    return isinstance(error, Transient)


@dataclass
class Outcome:
    """What a policy made of an operation that fails with `errors`, then succeeds. Times are in virtual seconds."""

    errors: list[Exception]
    attempts: int = 0
    waits: list[float] = field(default_factory=list)
    told: list[tuple[Exception, int, float]] = field(default_factory=list)
    raised: BaseException | None = None
    ended_at: float = 0


def play(
    errors: list[Exception],
    *,
    attempts: int = 4,
    initial: float = 0.1,
    maximum: float = 2.0,
    seconds: float | None = None,
    attempt_takes: float = 0,
    seed: int = 0,
) -> Outcome:
    """Run it; `seconds` is the deadline, `attempt_takes` the duration of each attempt in seconds."""
    outcome = Outcome(errors)

    async def operation() -> None:
        outcome.attempts += 1
        await asyncio.sleep(attempt_takes)
        if outcome.attempts <= len(errors):
            raise errors[outcome.attempts - 1]

    async def sleep(wait: float) -> None:
        outcome.waits.append(wait)
        await asyncio.sleep(wait)

    policy = RetryPolicy(
        attempts=attempts,
        initial=initial,
        maximum=maximum,
        sleep=sleep,
        random=random.Random(seed).random,
        on_retry=lambda error, attempt, wait: outcome.told.append((error, attempt, wait)),
    )

    async def main() -> None:
        with deadline(1e9 if seconds is None else seconds):
            try:
                await policy.call(operation, is_transient)
            except Exception as error:
                outcome.raised = error
        outcome.ended_at = asyncio.get_running_loop().time()

    virtual_time.run(main())
    return outcome


hints = st.none() | st.floats(0, 30)
transients = st.lists(st.builds(Transient, hints), max_size=12)
limits = st.integers(1, 8)


class TestThePolicy:
    @deterministic
    @given(errors=transients, attempts=limits)
    def test_attempts_end_at_the_limit_with_the_last_error_itself(self, errors: list[Exception], attempts: int) -> None:
        outcome = play(errors, attempts=attempts)
        assert outcome.attempts == min(len(errors) + 1, attempts)
        assert outcome.raised is (errors[attempts - 1] if len(errors) >= attempts else None)

    @deterministic
    @given(
        errors=transients,
        seconds=st.floats(0.01, 60),
        attempt_takes=st.just(0.0) | st.floats(0, 10),
        seed=st.integers(),
    )
    def test_no_wait_reaches_the_deadline(
        self, errors: list[Exception], seconds: float, attempt_takes: float, seed: int
    ) -> None:
        outcome = play(errors, attempts=20, seconds=seconds, attempt_takes=attempt_takes, seed=seed)
        assert sum(outcome.waits) <= seconds
        assert outcome.ended_at <= seconds + attempt_takes
        if outcome.raised is not None:
            assert outcome.raised is errors[outcome.attempts - 1]

    @deterministic
    @given(hint=st.floats(0, 30), seconds=st.floats(0.01, 60))
    def test_a_hint_that_fits_is_obeyed_and_one_that_does_not_ends_the_call_at_once(
        self, hint: float, seconds: float
    ) -> None:
        outcome = play([Transient(hint)], seconds=seconds)
        if hint < seconds:
            assert (outcome.waits, outcome.raised) == ([hint], None)
        else:
            assert (outcome.waits, outcome.raised, outcome.ended_at) == ([], outcome.errors[0], 0)

    @deterministic
    @given(errors=transients, seed=st.integers())
    def test_waits_are_the_hint_or_jitter_within_the_doubling_bound(self, errors: list[Exception], seed: int) -> None:
        outcome = play(errors, attempts=20, initial=0.1, maximum=2.0, seed=seed)
        jitter = random.Random(seed)
        for n, (error, wait) in enumerate(zip(errors, outcome.waits, strict=True)):
            assert isinstance(error, Transient)
            if error.retry_after is not None:
                assert wait == error.retry_after
            else:
                bound = min(2.0, 0.1 * 2**n)
                assert 0 <= wait <= bound
                assert wait == pytest.approx(jitter.random() * bound)

    def test_jitter_is_full_and_grows_to_the_maximum(self) -> None:
        bounds = []
        for number in (0.0, 0.999):
            waits: list[float] = []

            async def sleep(wait: float, waits: list[float] = waits) -> None:
                waits.append(wait)

            async def fail() -> None:
                raise Transient

            policy = RetryPolicy(attempts=7, sleep=sleep, random=lambda number=number: number)  # type: ignore[misc]
            with pytest.raises(Transient):
                asyncio.run(policy.call(fail, is_transient))
            bounds.append(waits)
        assert bounds[0] == [0] * 6
        assert bounds[1] == pytest.approx([0.0999, 0.1998, 0.3996, 0.7992, 1.5984, 1.998])

    @deterministic
    @given(before=st.integers(0, 2))
    def test_other_errors_are_not_retried(self, before: int) -> None:
        final = ValueError("not transient")
        outcome = play([Transient() for _ in range(before)] + [final, Transient()])
        assert outcome.attempts == before + 1
        assert outcome.raised is final

    @deterministic
    @given(errors=transients)
    def test_the_hook_is_told_of_every_wait_before_it(self, errors: list[Exception]) -> None:
        outcome = play(errors)
        assert outcome.told == [(errors[n], n + 1, wait) for n, wait in enumerate(outcome.waits)]

    def test_a_negative_hint_is_no_wait(self) -> None:
        assert play([Transient(-5)]).waits == [0]

    def test_many_attempts_do_not_overflow(self) -> None:
        assert play([Transient()] * 2000, attempts=3000).attempts == 2001

    async def test_the_result_of_the_attempt_that_succeeds_is_returned(self) -> None:
        async def operation() -> str:
            return "done"

        assert await RetryPolicy().call(operation, is_transient) == "done"

    async def test_cancellation_is_not_retried(self) -> None:
        scripted = ScriptedStore(MemoryMappingStore())
        scripted.script("ping", Hang())
        policy = RetryPolicy(sleep=no_wait)
        call = asyncio.create_task(policy.call(scripted.ping, lambda _: True))
        await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert scripted.counts["ping"] == 1

    async def test_concurrent_calls_of_one_policy_do_not_share_their_count(self) -> None:
        attempts = [0] * 10

        async def fail(n: int) -> None:
            attempts[n] += 1
            await asyncio.sleep(0)
            raise Transient

        policy = RetryPolicy(attempts=3, sleep=no_wait)
        outcomes = await asyncio.gather(
            *(policy.call(lambda n=n: fail(n), is_transient) for n in range(10)),  # type: ignore[misc]
            return_exceptions=True,
        )
        assert all(isinstance(outcome, Transient) for outcome in outcomes)
        assert attempts == [3] * 10


class TestTheStore:
    """What `RetryingStore` adds to the contract that it passes: which errors, and how often the store is called."""

    @pytest.fixture
    def scripted(self) -> ScriptedStore:
        return ScriptedStore(MemoryMappingStore())

    @pytest.fixture
    def store(self, scripted: ScriptedStore) -> MappingStore:
        return RetryingStore(scripted, RetryPolicy(attempts=3, sleep=no_wait))

    @pytest.mark.parametrize("error", [StoreThrottled(1), StoreUnavailable()], ids=["throttled", "unavailable"])
    async def test_transient_errors_are_retried_up_to_the_limit(
        self, scripted: ScriptedStore, store: MappingStore, error: StoreError
    ) -> None:
        scripted.script("get", FailBefore(error), times=None)
        with pytest.raises(StoreError) as last:
            await store.get(ALICE)
        assert last.value is error
        assert scripted.counts["get"] == 3

    @pytest.mark.parametrize(
        "error",
        [StoreMisconfigured("Fix it."), MappingChanged(), ExtensionLimitReached(), RuntimeError("a bug")],
        ids=lambda error: type(error).__name__,
    )
    async def test_other_errors_are_not(self, scripted: ScriptedStore, store: MappingStore, error: Exception) -> None:
        scripted.script("create", FailBefore(error), times=None)
        with pytest.raises(type(error)):
            await store.create(ALICE, "8:acs:one")
        assert scripted.counts["create"] == 1

    async def test_a_listing_repeats_only_the_step_that_failed(
        self, scripted: ScriptedStore, store: MappingStore
    ) -> None:
        created = await store.create(ALICE, "8:acs:one")
        pages = store.mappings()
        scripted.script("mappings", FailAfter(StoreUnavailable()), times=2)
        assert await anext(pages) == created
        assert scripted.counts["mappings"] == 3
        assert await anext(pages, None) is None
        assert scripted.counts["mappings"] == 4
