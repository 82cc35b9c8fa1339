"""What values of the store tell when they are written into a log or a report."""

import pytest

from storage.mapping import MappingPage, Unreadable, UnreadableMapping, UserKey
from tests.support.acs_ids import acs_id

ALICE = UserKey("tenant", "alice")


@pytest.mark.parametrize("reason", Unreadable)
def test_what_can_not_be_read_is_told_by_its_reason_and_its_detail_if_there_is_one(reason: Unreadable) -> None:
    assert str(UnreadableMapping(ALICE, "1", reason)) == reason.value
    assert str(UnreadableMapping(ALICE, "1", reason, "the id is missing")) == f"{reason.value}: the id is missing"


def test_no_representation_tells_who_it_is_about() -> None:
    unreadable = UnreadableMapping(ALICE, "1", Unreadable.DAMAGED, key="alice", acs_user_id=acs_id("alice"))
    page = MappingPage((unreadable,), "tenant/alice")
    for value in (unreadable, page):
        assert "alice" not in repr(value)
