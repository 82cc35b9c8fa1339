"""The one retry policy: how often, how long, and when not."""

import asyncio
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tenacity import wait_fixed

from tests.support import virtual_time
from tests.support.memory_store import MemoryMappingStore
from tests.support.scripted import Hang, ScriptedStore
from tests.support.store_contract import no_wait
from upstream.deadline import deadline
from upstream.retrying import RetryPolicy

# The same examples every time, however slow the machine is.
deterministic = settings(derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])


class Transient(Exception):
    def __init__(self, retry_after: float | None = None) -> None:
        super().__init__()
        self.retry_after = retry_after


def is_transient(error: BaseException) -> bool:
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
    seconds: float | None = None,
    attempt_takes: float = 0,
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
        sleep=sleep,
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
    )
    def test_no_wait_reaches_the_deadline(self, errors: list[Exception], seconds: float, attempt_takes: float) -> None:
        outcome = play(errors, attempts=20, seconds=seconds, attempt_takes=attempt_takes)
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
    @given(errors=transients)
    def test_waits_are_the_hint_or_jitter_within_the_doubling_bound(self, errors: list[Exception]) -> None:
        outcome = play(errors, attempts=20)
        for n, (error, wait) in enumerate(zip(errors, outcome.waits, strict=True)):
            assert isinstance(error, Transient)
            if error.retry_after is not None:
                assert wait == error.retry_after
            else:
                bound = min(2.0, 0.1 * 2**n)
                assert 0 <= wait <= bound

    def test_jitter_is_full_and_grows_to_the_maximum(self) -> None:
        waits = [play([Transient()] * 6, attempts=7).waits for _ in range(200)]
        for bound, of_all in zip((0.1, 0.2, 0.4, 0.8, 1.6, 2.0), zip(*waits, strict=True), strict=True):
            assert min(of_all) < 0.1 * bound
            assert 0.9 * bound < max(of_all) <= bound

    def test_another_back_off_can_be_given(self) -> None:
        waits: list[float] = []

        async def sleep(wait: float) -> None:
            waits.append(wait)

        async def fail() -> None:
            raise Transient

        policy = RetryPolicy(attempts=3, back_off=wait_fixed(7), sleep=sleep)
        with pytest.raises(Transient):
            asyncio.run(policy.call(fail, is_transient))
        assert waits == [7, 7]

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
