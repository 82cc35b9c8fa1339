"""The one retry policy, for stores and for ACS. No SDK below it retries, so attempts never multiply."""

import asyncio
import random as _random
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from tenacity import AsyncRetrying, RetryCallState

from storage.deadline import remaining
from storage.mapping import IdentityMapping, MappingStore, StoreThrottled, StoreUnavailable, UserKey

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often and after which waits a failed call is repeated.

    attempts   the most calls altogether, the first one included
    initial    upper bound in seconds of the first wait; it doubles with every further one
    maximum    upper bound in seconds of any such wait
    sleep      waits for so many seconds
    random     a number in [0, 1)
    on_retry   told before each wait: the error, which attempt failed (from 1), the seconds to wait

    An error that says how long to wait (`retry_after`, in seconds) is obeyed exactly. Otherwise the wait is anything
    between zero and the bound ("full jitter"), so that callers that failed together don't come back together:
    https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
    """

    attempts: int = 4
    initial: float = 0.1
    maximum: float = 2.0
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    random: Callable[[], float] = _random.random
    on_retry: Callable[[Exception, int, float], None] | None = None

    async def call(self, operation: Callable[[], Awaitable[T]], retry_on: Callable[[Exception], bool]) -> T:
        """Do `operation`; repeat it after an error for which `retry_on` is true.

        Ends with the last error itself, so that its `retry_after` reaches the caller, at the attempt limit or as soon
        as the next wait would reach the deadline (`storage.deadline`), whichever is first: nobody waits for an attempt
        that can't be made. Cancellation is never retried.
        """

        failed: Exception | None = None
        try:
            return await operation()
        except Exception as error:
            if not retry_on(error):
                raise
            failed = error

        # Only now tenacity, which takes half as long as an HTTP call: the first failure is its first attempt's.
        async def attempt() -> T:
            nonlocal failed
            if failed is not None:
                first, failed = failed, None
                raise first
            return await operation()

        def worth_repeating(state: RetryCallState) -> bool:
            error = _error(state)
            return isinstance(error, Exception) and retry_on(error)

        def tell(state: RetryCallState) -> None:
            error = _error(state)
            if self.on_retry is not None and isinstance(error, Exception):
                self.on_retry(error, state.attempt_number, state.upcoming_sleep)

        return await AsyncRetrying(
            sleep=self.sleep,
            stop=self._stop,
            wait=self._wait,
            retry=worth_repeating,
            before_sleep=tell,
            reraise=True,
        )(attempt)

    def _wait(self, state: RetryCallState) -> float:
        retry_after: float | None = getattr(_error(state), "retry_after", None)
        if retry_after is not None:
            return max(0.0, retry_after)
        # The exponent is capped because 2.0 ** 1024 overflows.
        doublings = min(state.attempt_number - 1, 64)
        return self.random() * min(self.maximum, self.initial * 2.0**doublings)

    def _stop(self, state: RetryCallState) -> bool:
        seconds_left = remaining()
        return state.attempt_number >= self.attempts or (
            seconds_left is not None and state.upcoming_sleep >= seconds_left
        )


class RetryingStore:
    """`MappingStore` that repeats throttled and unanswered calls by `policy`.

    Every method is safe to repeat, also when a lost answer hides that the first attempt was carried out:

    get, ping      change nothing.
    create         repeats only what was throttled. After an unknown outcome somebody may have seen the mapping, and
                   deleted it with the identity; written once more it would point to a deleted identity. Whoever
                   creates must look first, and does (`IdentityService`).
    mark_deleting  is bound to the version that was read. After a lost answer it ends with `MappingChanged`; the caller
                   reads again, as after any other change, and finds the mapping marked.
    remove         is bound to the version too, and already gone is success. A mapping that someone created in between
                   has another version and is not touched.
    mappings       each step is repeated by itself: a store's iteration goes on after a transient error, where it
                   stopped. What was yielded is never yielded again.
    """

    def __init__(self, store: MappingStore, policy: RetryPolicy) -> None:
        self._store = store
        self._policy = policy

    async def get(self, user: UserKey) -> IdentityMapping | None:
        """See `MappingStore.get`."""
        return await self._retry(lambda: self._store.get(user))

    async def create(self, user: UserKey, acs_user_id: str) -> IdentityMapping:
        """See `MappingStore.create`."""
        return await self._policy.call(lambda: self._store.create(user, acs_user_id), _is_throttled)

    async def mark_deleting(self, mapping: IdentityMapping) -> IdentityMapping:
        """See `MappingStore.mark_deleting`."""
        return await self._retry(lambda: self._store.mark_deleting(mapping))

    async def remove(self, mapping: IdentityMapping) -> None:
        """See `MappingStore.remove`."""
        await self._retry(lambda: self._store.remove(mapping))

    def mappings(self) -> AsyncIterator[IdentityMapping]:
        """See `MappingStore.mappings`."""
        return _RetryingIterator(self._store.mappings(), self._policy)

    async def ping(self) -> None:
        """See `MappingStore.ping`."""
        await self._retry(self._store.ping)

    async def aclose(self) -> None:
        """See `MappingStore.aclose`."""
        await self._store.aclose()

    async def _retry(self, operation: Callable[[], Awaitable[T]]) -> T:
        return await self._policy.call(operation, _is_transient)


class _RetryingIterator(AsyncIterator[IdentityMapping]):
    def __init__(self, mappings: AsyncIterator[IdentityMapping], policy: RetryPolicy) -> None:
        self._mappings = mappings
        self._policy = policy

    async def __anext__(self) -> IdentityMapping:
        return await self._policy.call(lambda: anext(self._mappings), _is_transient)


def _is_transient(error: Exception) -> bool:
    return isinstance(error, StoreThrottled | StoreUnavailable)


def _is_throttled(error: Exception) -> bool:
    return isinstance(error, StoreThrottled)


def _error(state: RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome is not None else None
