"""The client's rules: when to renew, how long to wait, what a challenge asks for, when a token ends."""

import base64
import json
import re
from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from acs_auth_client.rules import claims_of_challenge, expiry, renewal_time, retry_after

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC).timestamp()
MINUTE = 60.0
DRAWN = st.floats(0, 1, exclude_max=True)
JSON_OBJECTS = st.dictionaries(st.text(max_size=8), st.text(max_size=8), max_size=4)


@given(st.floats(32 * MINUTE, 1440 * MINUTE), DRAWN)
def test_a_token_is_renewed_11_to_16_minutes_before_its_end(lifetime: float, drawn: float) -> None:
    ahead = NOW + lifetime - renewal_time(NOW, NOW + lifetime, drawn)
    assert 11 * MINUTE - 0.001 <= ahead <= 16 * MINUTE + 0.001


@given(st.floats(1, 48 * 60 * MINUTE), DRAWN)
def test_whatever_is_left_a_token_is_neither_renewed_at_once_nor_too_late(left: float, drawn: float) -> None:
    after = renewal_time(NOW, NOW + left, drawn) - NOW
    assert left / 4 - 0.001 <= after <= left - min(11 * MINUTE, left / 2) + 0.001


@given(st.integers(0, 999_999_999))
def test_retry_after_may_be_seconds(seconds: int) -> None:
    assert retry_after(f" {seconds} ", NOW) == seconds


@given(st.integers(-86_400, 86_400))
def test_retry_after_may_be_a_date(seconds: int) -> None:
    date = format_datetime(datetime.fromtimestamp(NOW + seconds, UTC), usegmt=True)
    assert retry_after(date, NOW) == max(0, seconds)


@pytest.mark.parametrize("header", [None, "", "-5", "1.5", "99999999999", "soon", "٣"])
def test_a_retry_after_that_cannot_be_read_is_none(header: str | None) -> None:
    assert retry_after(header, NOW) is None


@given(JSON_OBJECTS, st.permutations(["error", "claims", "realm"]))
def test_the_claims_of_a_challenge_come_back_as_they_were(claims: dict[str, str], order: list[str]) -> None:
    text = json.dumps(claims, ensure_ascii=False)
    values = {"error": "insufficient_claims", "claims": base64.b64encode(text.encode()).decode(), "realm": "t"}
    header = "Bearer " + ", ".join(f'{name}="{values[name]}"' for name in order)
    assert claims_of_challenge(header) == text


@pytest.mark.parametrize(
    "header",
    [
        None,
        "Bearer",
        'Bearer error="invalid_token", claims="e30="',
        'Bearer error="insufficient_claims"',
        'Bearer error="insufficient_claims", claims="%%"',
        'Bearer error="insufficient_claims", claims="eHg="',
        'Bearer error="insufficient_claims", other_claims="e30="',
    ],
)
def test_anything_else_is_no_challenge(header: str | None) -> None:
    assert claims_of_challenge(header) is None


def test_the_end_of_a_token_may_have_seven_digits() -> None:
    assert expiry("2026-11-26T12:00:01.1234567+00:00") == pytest.approx(NOW + 1.123456)
    assert expiry("2026-11-26T13:00:00+01:00") == NOW


@given(st.one_of(st.none(), st.integers(), st.text(), st.from_regex(re.compile(r"[0-9T:.Z+-]{1,30}", re.ASCII))))
def test_what_is_no_end_of_a_token_is_none_or_a_time(text: object) -> None:
    ended = expiry(text)
    assert ended is None or isinstance(ended, float)
