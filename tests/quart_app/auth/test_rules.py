"""What the rules are made of."""

from typing import Any

import pytest

from quart_app.auth.oidc_tokens import OidcTokens
from quart_app.auth.refusals import InvalidAccessToken, Reason
from quart_app.auth.registered_claims import is_time
from quart_app.auth.rules import Content, Rule, invalid, judge

LAST_SECOND_OF_9999 = 253_402_300_799
CONTENT = Content({}, {"a": 1})


def rule(reason: Reason, *, holds: bool) -> Rule:
    return Rule(("a",), "there", "Sign in.", lambda content: holds and content is CONTENT, invalid(reason))


def test_the_first_rule_that_is_broken_is_told() -> None:
    good, first, second = (
        rule(Reason.SCOPE, holds=True),
        rule(Reason.GUEST, holds=False),
        rule(Reason.ROLE, holds=False),
    )
    judge(CONTENT, [good])
    with pytest.raises(InvalidAccessToken) as refused:
        judge(CONTENT, [good, first, second])
    assert refused.value.reason is first.reason is Reason.GUEST


@pytest.mark.parametrize(
    ("value", "is_one"),
    [
        (0, True),
        (0.5, True),
        (LAST_SECOND_OF_9999, True),
        (LAST_SECOND_OF_9999 + 1, False),
        (-1, False),
        (True, False),
        ("0", False),
        (None, False),
        (float("inf"), False),
        (float("nan"), False),
    ],
)
def test_a_time_is_a_number_of_seconds_within_the_calendar(value: Any, is_one: bool) -> None:
    assert is_time(value) is is_one


@pytest.mark.parametrize(("length", "is_user"), [(0, False), (1, True), (255, True), (256, False)])
def test_a_subject_may_be_as_long_as_openid_connect_allows(length: int, is_user: bool) -> None:
    (subject, _) = OidcTokens("https://issuer.example").rules
    assert subject.holds(Content({}, {"sub": "s" * length})) is is_user
