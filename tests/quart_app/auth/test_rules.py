"""What the rules are made of."""

from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from quart_app.auth.key_sets import SigningKey
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


@pytest.mark.parametrize(
    ("claims", "client"),
    [
        ({}, None),
        ({"cid": "c"}, "c"),
        ({"cid": "c", "appid": "b"}, "b"),
        ({"cid": "c", "appid": "b", "client_id": "a"}, "a"),
        (
            {"cid": "c", "azp": "the party the token was issued to", "client_id": "a"},
            "the party the token was issued to",
        ),
    ],
)
def test_of_several_claims_that_name_a_client_the_standard_one_counts(
    signing_keys: list[rsa.RSAPrivateKey], claims: dict[str, str], client: str | None
) -> None:
    key = SigningKey(None, signing_keys[0].public_key(), "https://issuer.example", None)
    content = Content({}, {"sub": "alex", "exp": 1, **claims})
    assert OidcTokens("https://issuer.example").read(content, key).client_id == client
