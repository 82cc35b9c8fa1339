"""The upstream call: measured outside, bounded by the deadline inside that, repeated innermost."""

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

from upstream.deadline import bounded
from upstream.errors import Cause, UpstreamError, is_transient
from upstream.measuring import Measure, unmeasured
from upstream.retrying import RetryPolicy

T = TypeVar("T")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class UpstreamCalls:
    """How the calls of one upstream are made: metrics(deadline(retry(operation))).

    A call that ends refused, its repetitions included, writes one warning: what the upstream said (`Cause`).

    upstream  its name, as its errors say it (`UpstreamError.upstream`)
    too_late  makes what is raised at the deadline; its argument says whether the call had begun, so that a write may
              have happened
    retry     repeats what may be repeated
    measure   one call is one measurement, its repetitions and the waits between them included

    The deadline is outside of the retries because it also ends an attempt that hangs and a wait between attempts.
    """

    upstream: str
    too_late: Callable[[bool], UpstreamError]
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
            return await self.call_unmeasured(name, operation, repeat_on=repeat_on)

    async def call_unmeasured(
        self,
        name: str,
        operation: Callable[[], Awaitable[T]],
        *,
        repeat_on: Callable[[BaseException], bool] = is_transient,
    ) -> T:
        """The same without a measurement: for the many steps of an operator's listing."""

        def is_ours(error: BaseException) -> bool:
            return isinstance(error, UpstreamError) and error.upstream == self.upstream and repeat_on(error)

        try:
            return await bounded(lambda: self.retry.call(operation, is_ours), self._too_late)
        except UpstreamError as error:
            # An error of another upstream was reported by that upstream's call, which was made within this call.
            if error.upstream == self.upstream and error.cause is not None:
                _tell(self.upstream, name, error.cause)
            raise

    def _too_late(self, begun: bool) -> UpstreamError:
        return self.too_late(begun).because(Cause(code="deadline" if begun else "deadline_before_the_call"))


def _tell(upstream: str, operation: str, cause: Cause) -> None:
    described = {
        "upstream": upstream,
        "operation": operation,
        "status": cause.status,
        "upstream_code": cause.code,
        "correlation_id": cause.correlation_id,
        "advice": cause.advice,
    }
    given = {name: value for name, value in described.items() if value is not None}
    logger.warning("an upstream call was refused", extra=given)
