"""The upstream call: measured outside, bounded by the deadline inside that, repeated innermost."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

from upstream.deadline import bounded
from upstream.errors import UpstreamError, is_transient
from upstream.measuring import Measure, unmeasured
from upstream.retrying import RetryPolicy

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class UpstreamCalls:
    """How the calls of one upstream are made: metrics(deadline(retry(operation))).

    upstream  its name, as its errors say it (`UpstreamError.upstream`)
    too_late  what is raised at the deadline; its argument says whether the call had begun, so that a write may have
              happened
    retry     repeats what may be repeated
    measure   one call is one measurement, its repetitions and the waits between them included

    The deadline is outside of the retries because it also ends an attempt that hangs and a wait between attempts.
    """

    upstream: str
    too_late: Callable[[bool], Exception]
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    measure: Measure = unmeasured

    async def call(
        self,
        name: str,
        operation: Callable[[], Awaitable[T]],
        *,
        repeat_on: Callable[[BaseException], bool] = is_transient,
    ) -> T:
        """Do `operation`, called `name` in metrics; repeat it after errors of this upstream for which `repeat_on`.

        Raises the last error, or `too_late`. An error of another upstream, which `operation` needed, was repeated
        there already.
        """
        with self.measure(name):
            return await self.call_unmeasured(operation, repeat_on=repeat_on)

    async def call_unmeasured(
        self, operation: Callable[[], Awaitable[T]], *, repeat_on: Callable[[BaseException], bool] = is_transient
    ) -> T:
        """The same without a measurement: for the many steps of an operator's listing."""

        def is_ours(error: BaseException) -> bool:
            return isinstance(error, UpstreamError) and error.upstream == self.upstream and repeat_on(error)

        return await bounded(lambda: self.retry.call(operation, is_ours), self.too_late)
