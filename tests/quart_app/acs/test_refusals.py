"""Whom a refusal of ACS blames, where its table has no row of its own."""

import pytest

from quart_app.acs.refusals import NOT_ITS_OWN, row_for
from upstream.refusals import Blame


@pytest.mark.parametrize(
    ("status", "is_its_own"),
    [*((status, False) for status in (400, 403, 407, 409, 428, 430, 499)), (408, True), (429, True), (500, True)],
)
def test_an_answer_without_a_code_is_passing_trouble_and_not_of_acs_itself_unless_its_status_says_all(
    status: int, is_its_own: bool
) -> None:
    row = row_for(status, None, "")
    assert row is not None
    assert row.blame is Blame.PASSING
    assert (row is not NOT_ITS_OWN) is is_its_own
