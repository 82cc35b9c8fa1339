"""What a request's own client is told of its upstream calls."""

import pytest

from quart_app.telemetry.instruments import Telemetry
from quart_app.telemetry.served_request import ServedRequest
from upstream.errors import UpstreamError
from upstream.retrying import RetryPolicy


async def no_sleep(seconds: float) -> None:
    """Wait for nothing."""


async def test_each_call_is_noted_with_its_outcome_and_how_often_it_was_repeated() -> None:
    telemetry = Telemetry()
    policy = RetryPolicy(attempts=3, sleep=no_sleep, on_retry=telemetry.retried)
    failures = [UpstreamError(), UpstreamError()]

    async def second_call() -> str:
        if failures:
            raise failures.pop()
        return "done"

    request = ServedRequest("GET", calls=[])
    with telemetry.serving(request, []):
        with telemetry.upstream("store")("get"):
            pass
        with telemetry.upstream("acs")("issue_token"):
            assert await policy.call(second_call, lambda error: True) == "done"
        with pytest.raises(UpstreamError), telemetry.upstream("acs")("mint"):
            raise UpstreamError
    assert request.calls is not None
    assert [(call.upstream, call.operation, call.outcome, call.retries) for call in request.calls] == [
        ("store", "get", "ok", 0),
        ("acs", "issue_token", "ok", 2),
        ("acs", "mint", "error", 0),
    ]
    assert (request.upstream_calls, request.retries) == (3, 2)
    assert all(call.seconds is not None and call.seconds >= 0 for call in request.calls)


async def test_calls_of_others_are_only_counted() -> None:
    request, telemetry = ServedRequest("GET"), Telemetry()
    with telemetry.serving(request, []), telemetry.upstream("store")("get"):
        pass
    assert (request.calls, request.upstream_calls) == (None, 1)
