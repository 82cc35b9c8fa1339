"""The upstream call: what is repeated, and that it is measured outside, bounded inside that, repeated innermost."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

import pytest

from tests.support import virtual_time
from upstream.calls import UpstreamCalls
from upstream.deadline import deadline
from upstream.errors import Cause, Throttled, Unavailable, UpstreamError, is_transient, plain, told
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
def test_at_the_deadline_the_call_ends_and_says_whether_it_had_begun(
    seconds: int, begun: bool, attempts: int, caplog: pytest.LogCaptureFixture
) -> None:
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
    (line,) = lines(caplog)
    assert line == {
        "upstream": "ours",
        "operation": "read",
        "upstream_code": "deadline" + "_before_the_call" * (not begun),
    }


REFUSED = Cause(400, "Code", "id-1", "Do this.")


def lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, object]]:
    """What each warning about a refused call says beside its text."""
    names = ("upstream", "operation", "status", "upstream_code", "correlation_id", "advice")
    records = [vars(record) for record in caplog.records if record.msg == "an upstream call was refused"]
    return [{name: record[name] for name in names if name in record} for record in records]


def test_a_call_that_ends_refused_is_told_once_with_what_the_upstream_said(caplog: pytest.LogCaptureFixture) -> None:
    upstream = Upstream(*(OursThrottled("busy", 1).because(Cause(429, f"Code{n}")) for n in range(3)))
    with pytest.raises(OursThrottled):
        virtual_time.run(upstream.calls.call("read", upstream.answer))
    assert lines(caplog) == [{"upstream": "ours", "operation": "read", "status": 429, "upstream_code": "Code2"}]


@pytest.mark.parametrize(
    "error",
    [TheirsThrottled("busy").because(REFUSED), UpstreamError("refused"), ValueError("a bug")],
    ids=["another upstream's, told there", "without a cause", "no upstream's"],
)
def test_nothing_else_is_told(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    upstream = Upstream(error)
    with pytest.raises(type(error)):
        virtual_time.run(upstream.calls.call("read", upstream.answer))
    assert lines(caplog) == []


def test_a_repetition_that_succeeds_is_not_told(caplog: pytest.LogCaptureFixture) -> None:
    upstream = Upstream(OursThrottled("busy", 1).because(REFUSED))
    virtual_time.run(upstream.calls.call("read", upstream.answer))
    assert lines(caplog) == []


def test_an_error_is_told_with_its_notes_and_its_advice_once() -> None:
    error = UpstreamError("It was refused.").because(REFUSED)
    assert told(error) == "It was refused. Do this."
    error.add_note("It said 400.")
    assert told(error) == "It was refused. It said 400. Do this."
    assert told(UpstreamError("Refused. Do this.").because(REFUSED)) == "Refused. Do this."
    assert told(UpstreamError()) == "UpstreamError."
    assert told(ValueError("what a library wrote")) == "ValueError."


@pytest.mark.parametrize("word", ["Directory_ConcurrencyViolation", "403/5301", "a-1", "x" * 100])
def test_a_short_plain_word_may_be_logged(word: str) -> None:
    assert plain(word) == word


@pytest.mark.parametrize("word", ["", "a b", "a\r\nb", "<b>", "ü", "x" * 101, "a\n", None, 7, ["a"]])
def test_anything_else_may_not(word: object) -> None:
    assert plain(word) is None


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
