"""The one retry policy, for every upstream. No SDK below it retries, so attempts never multiply."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt
from tenacity.stop import stop_base
from tenacity.wait import wait_base, wait_random_exponential

from upstream.deadline import remaining

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and after which waits a failed call is repeated.

    attempts   the most calls altogether, the first one included
    back_off   the wait where the error names none. By default anything between zero and a bound that doubles with each
               attempt ("full jitter"), so that callers that failed together don't come back together:
               https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
    sleep      waits for so many seconds
    on_retry   called before each wait: the error, which attempt failed (from 1), the seconds to wait

    An error that says how long to wait (`retry_after`, in seconds) is obeyed exactly.
    """

    attempts: int = 4
    back_off: wait_base = field(default_factory=lambda: wait_random_exponential(multiplier=0.1, max=2.0))
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    on_retry: Callable[[Exception, int, float], None] | None = None

    async def call(self, operation: Callable[[], Awaitable[T]], retry_on: Callable[[BaseException], bool]) -> T:
        """Do `operation`; repeat it after an error for which `retry_on` is true.

        Ends with the last error itself, so that its `retry_after` reaches the caller, at the attempt limit or as soon
        as the next wait would reach the deadline (`upstream.deadline`), whichever is first: nobody waits for an attempt
        that can't be made. Cancellation is never retried.
        """

        try:
            return await operation()
        except Exception as error:
            if not retry_on(error):
                raise
            failed = [error]

        # Nearly every call succeeds at once: tenacity, which takes longer than all else here, comes in afterwards.
        async def attempt() -> T:  # it awaits only what is visibly a coroutine function
            if failed:
                raise failed.pop()
            return await operation()

        return await AsyncRetrying(
            sleep=self.sleep,
            stop=stop_after_attempt(self.attempts) | _stop_before_deadline(),
            wait=self._wait,
            retry=retry_if_exception(lambda error: isinstance(error, Exception) and retry_on(error)),
            before_sleep=self._report,
            reraise=True,
        )(attempt)

    def _wait(self, state: RetryCallState) -> float:
        retry_after: float | None = getattr(_error(state), "retry_after", None)
        return self.back_off(state) if retry_after is None else max(0.0, retry_after)

    def _report(self, state: RetryCallState) -> None:
        error = _error(state)
        if self.on_retry is not None and isinstance(error, Exception):
            self.on_retry(error, state.attempt_number, state.upcoming_sleep)


class _stop_before_deadline(stop_base):  # noqa: N801 (named as tenacity's own are)
    """Stop when the next attempt would come too late."""

    def __call__(self, retry_state: RetryCallState) -> bool:
        seconds_left = remaining()
        return seconds_left is not None and retry_state.upcoming_sleep >= seconds_left


def _error(state: RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome is not None else None
