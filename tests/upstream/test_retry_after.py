"""When an upstream says that the next attempt should be made: read once, bounded, and never a crash."""

from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from upstream.retry_after import LONGEST_SECONDS, retry_after

NOW = 1_800_000_000.0


def read(**headers: str) -> float | None:
    return retry_after(CIMultiDict({name.replace("_", "-"): value for name, value in headers.items()}), lambda: NOW)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry_After": "7"}, 7),
        ({"retry_after": " 7 "}, 7),
        ({"Retry_After": "0"}, 0),
        ({"x_ms_retry_after_ms": "250"}, 0.25),
        ({"x_ms_retry_after_ms": "8.5"}, 0.0085),
        ({"x_ms_retry_after_ms": "250", "Retry_After": "7"}, 0.25),
        ({"x_ms_retry_after_ms": "soon", "Retry_After": "7"}, 7),
        ({"Retry_After": formatdate(NOW + 30, usegmt=True)}, 30),
        ({"Retry_After": formatdate(NOW - 30, usegmt=True)}, 0),
        ({"Retry_After": "soon"}, None),
        ({"Retry_After": "-5"}, None),
        ({"Retry_After": "1e3"}, None),
        ({"Retry_After": "٣"}, None),
        ({"Retry_After": ""}, None),
    ],
)
def test_seconds_milliseconds_and_dates_are_read(headers: dict[str, str], seconds: float | None) -> None:
    assert read(**headers) == seconds


@pytest.mark.parametrize(
    "headers",
    [
        {"Retry_After": "999999999"},
        {"Retry_After": "9" * 400},
        {"x_ms_retry_after_ms": "9" * 400},
        {"Retry_After": "Fri, 31 Dec 9999 23:59:59 GMT"},
    ],
)
def test_what_is_asked_for_is_cut_at_an_hour(headers: dict[str, str]) -> None:
    assert read(**headers) == LONGEST_SECONDS


@given(text=st.text(), milliseconds=st.text())
def test_no_text_makes_it_fail_or_leave_the_bounds(text: str, milliseconds: str) -> None:
    seconds = retry_after({"Retry-After": text, "x-ms-retry-after-ms": milliseconds}, lambda: NOW)
    assert seconds is None or 0 <= seconds <= LONGEST_SECONDS
