"""What ACS answers is taken as it is, in its own form, or not at all."""

from contextlib import suppress
from datetime import datetime
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from quart_app.acs.answers import acs_token, acs_user_id

GUID = st.from_regex(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", fullmatch=True)
ANYTHING = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.text()) | st.binary()


@given(st.sampled_from(["8:acs:", "8:dod-acs:", "8:gcch-acs:"]), GUID, GUID)
def test_ids_of_minted_identities_are_taken_as_they_are(prefix: str, resource: str, identity: str) -> None:
    assert acs_user_id(f"{prefix}{resource}_{identity}") == f"{prefix}{resource}_{identity}"


@given(GUID, st.text(min_size=1, max_size=5), st.integers(0, 80))
def test_an_id_with_anything_more_in_it_is_none(guid: str, more: str, place: int) -> None:
    good = f"8:acs:{guid}_{guid}"
    place = min(place, len(good))
    with pytest.raises(ValueError, match="id"):
        acs_user_id(good[:place] + more + good[place:])


@given(ANYTHING, ANYTHING)
@example("a.b.c", "0001-01-01T00:00:00-23:59")
@example("a.b.c", "9999-12-31T23:59:59.9999999+00:00")
@example("a.b.c", "2026-W48-4T05:45:00Z")
def test_nothing_but_a_value_error_comes_of_odd_answers(token: Any, expires_on: Any) -> None:
    with suppress(ValueError):
        acs_user_id(token)
    with suppress(ValueError):
        taken = acs_token(token, expires_on)
        assert (taken.token, taken.expires_on) == (token, expires_on)
        assert datetime.fromisoformat(taken.expires_on).tzinfo is not None
