"""Which of the event loop's reports reach the log."""

import asyncio
import logging

import pytest

from quart_app.serving.loop_errors import report


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (asyncio.CancelledError(), 0),
        (RuntimeError("unable to perform operation on <TCPTransport closed=True>; the handler is closed"), 0),
        (RuntimeError("something else"), 1),
        (ValueError("the handler is closed"), 1),
        (None, 1),
    ],
)
async def test_a_connection_that_ended_is_no_error_and_anything_else_is(
    error: BaseException | None, told: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    report(asyncio.get_running_loop(), {"message": "Fatal error on SSL protocol", "exception": error})
    assert len(caplog.records) == told
