"""The upstream call: what is repeated, and that it is measured outside, bounded inside that, repeated innermost."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

import pytest

from tests.support import virtual_time
from upstream.calls import UpstreamCalls
from upstream.deadline import deadline
from upstream.errors import Throttled, Unavailable, UpstreamError, is_transient
from upstream.measuring import outcome_of
from upstream.retrying import RetryPolicy


class OursThrottled(Throttled):
    upstream: ClassVar[str] = "ours"


class TheirsThrottled(Throttled):
    upstream: ClassVar[str] = "theirs"


class TooLate(Unavailable):
    upstream: ClassVar[str] = "ours"

    def __init__(self, begun: bool) -> None:
        super().__init__("too late")
        self.begun = begun


class Upstream:
    """Fails with `errors` one after the other, then answers; `measured` notes each call with its seconds."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)
        self.attempts = 0
        self.measured: list[tuple[str, float]] = []
        self.calls = UpstreamCalls("ours", TooLate, RetryPolicy(attempts=3), self._measure)

    async def answer(self) -> str:
        self.attempts += 1
        if self.errors:
            raise self.errors.pop(0)
        return "answer"

    @contextmanager
    def _measure(self, name: str) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        started = loop.time()
        try:
            yield
        finally:
            self.measured.append((name, loop.time() - started))


def test_one_logical_call_is_measured_once_with_its_repetitions_and_waits_inside() -> None:
    upstream = Upstream(OursThrottled("busy", 2), OursThrottled("busy", 3))
    assert virtual_time.run(upstream.calls.call("read", upstream.answer)) == "answer"
    assert (upstream.attempts, upstream.measured) == (3, [("read", 5)])


def test_an_error_of_another_upstream_was_repeated_there_and_is_not_here() -> None:
    upstream = Upstream(TheirsThrottled("busy"))
    with pytest.raises(TheirsThrottled):
        virtual_time.run(upstream.calls.call("read", upstream.answer))
    assert upstream.attempts == 1


def test_what_may_be_repeated_can_be_narrowed() -> None:
    upstream = Upstream(TooLate(True))
    with pytest.raises(TooLate):
        virtual_time.run(
            upstream.calls.call("write", upstream.answer, repeat_on=lambda error: isinstance(error, Throttled))
        )
    assert upstream.attempts == 1


@pytest.mark.parametrize(("seconds", "begun", "attempts"), [(0, False, 0), (1, True, 1)])
def test_at_the_deadline_the_call_ends_and_says_whether_it_had_begun(seconds: int, begun: bool, attempts: int) -> None:
    upstream = Upstream()

    async def hang() -> str:
        await upstream.answer()
        await asyncio.Event().wait()
        return ""

    async def main() -> None:
        with deadline(seconds):
            await upstream.calls.call("read", hang)

    with pytest.raises(TooLate) as late:
        virtual_time.run(main())
    assert (late.value.begun, upstream.attempts, upstream.measured) == (begun, attempts, [("read", seconds)])


def test_transient_is_what_is_throttled_or_unavailable() -> None:
    assert is_transient(OursThrottled("busy"))
    assert is_transient(TooLate(True))
    assert not is_transient(UpstreamError())
    assert not is_transient(TimeoutError())


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (OursThrottled("busy"), "throttled"),
        (TooLate(True), "unavailable"),
        (UpstreamError(), "error"),
        (TimeoutError(), "unavailable"),
        (ValueError(), "error"),
        (asyncio.CancelledError(), "cancelled"),
    ],
)
def test_how_a_call_ended_is_said_by_its_error(error: BaseException, outcome: str) -> None:
    assert outcome_of(error) == outcome
