"""What is wrong with a token, rule by rule: for explaining it."""

import json
from collections.abc import Sequence
from typing import Any

import jwt
import pytest
import time_machine
from cryptography.hazmat.primitives.asymmetric import rsa

from local_azure.entra.directory import USERS
from local_azure.environment import LocalAzure
from quart_app.auth.entra_tokens import EntraTokens
from quart_app.auth.key_sets import SigningKey
from quart_app.auth.oidc_tokens import OidcTokens
from quart_app.auth.refusals import Reason
from quart_app.auth.registered_claims import LEEWAY_SECONDS, fault_of, signature_holds
from quart_app.auth.rules import Content, Rule, invalid
from quart_app.auth.token_explanation import _LONGEST, NOT_THERE, ClaimVerdict, Explanation, _by_rule, explain
from quart_app.settings import Settings
from tests.support.attack_corpus import TOKENS, Forger, reason
from upstream.http_session import new_http_session

NOW = 1_790_000_000
HUGE = 10**400  # more than any clock can hold
TEXT = "1790000000"
ENTRA, ISSUER = "https://login.microsoftonline.com", "https://issuer.example"


@pytest.mark.parametrize(
    ("claim", "value", "fault"),
    [
        ("exp", NOW, None),
        ("exp", NOW - LEEWAY_SECONDS - 1, Reason.EXPIRED),
        ("exp", TEXT, Reason.MALFORMED),
        ("exp", None, Reason.MALFORMED),
        ("exp", HUGE, Reason.MALFORMED),
        ("exp", float("inf"), Reason.MALFORMED),
        ("nbf", NOW, None),
        ("nbf", None, None),
        ("nbf", NOW + LEEWAY_SECONDS + 1, Reason.NOT_YET_VALID),
        ("nbf", -1, Reason.MALFORMED),
        ("nbf", float("inf"), Reason.MALFORMED),
        ("iat", NOW, None),
        ("iat", True, Reason.MALFORMED),
        ("iat", None, Reason.MALFORMED),
        ("aud", "mine", None),
        ("aud", ["other", "mine"], None),
        ("aud", "other", Reason.AUDIENCE),
        ("aud", None, Reason.AUDIENCE),
        ("aud", 7, Reason.AUDIENCE),
    ],
)
def test_a_claim_is_judged_by_itself(claim: str, value: Any, fault: Reason | None) -> None:
    claims = {"exp": 0, "nbf": HUGE, "iat": "?", "aud": [], claim: value}
    token = jwt.encode({name: value for name, value in claims.items() if value is not None}, "x" * 32)
    with time_machine.travel(NOW, tick=False):
        assert fault_of(token, claim, ["mine"]) is fault


@pytest.fixture
def forger(local_azure: LocalAzure, signing_keys: list[rsa.RSAPrivateKey]) -> Forger:
    acs_token = jwt.encode({"skypeid": "acs:x", "exp": 1}, signing_keys[-1], "RS256", {"kid": "acs"})
    return Forger(local_azure, signing_keys[-1], "https://localhost:1", acs_token)


async def explained(settings: Settings, token: str) -> Explanation:
    async with new_http_session() as session:
        return await explain(settings, token, session)


async def test_every_hostile_token_is_explained_by_the_rule_that_the_service_refuses_it_for(
    settings: Settings, forger: Forger
) -> None:
    """The service's own reason stands among the rules that are broken; what is found holds no token and no user."""
    wrong = {}
    for name, make in TOKENS.items():
        token = make(forger)
        explanation = await explained(settings, token)
        broken = {each.reason for each in explanation.judged if each.verdict is ClaimVerdict.REFUSED}
        if (explanation.accepted, explanation.reason) != (False, reason(name)) or explanation.reason not in broken:
            wrong[name] = (explanation.reason, broken)
        assert all(each.remedy for each in explanation.judged if each.verdict is not ClaimVerdict.OK)
        told = json.dumps([str(each) for each in explanation.judged])
        parts = [part for part in token.split(".") if len(part) > 20]
        assert not [part for part in parts if part in told], name
        assert USERS["alex"].object_id not in told
    assert wrong == {}


async def test_every_rule_is_told_of_a_good_token(settings: Settings, local_azure: LocalAzure) -> None:
    explanation = await explained(settings, local_azure.entra.access_token("alex"))
    assert explanation.accepted
    assert {each.verdict for each in explanation.judged} == {ClaimVerdict.OK}
    assert {"form", "signature", "exp", "aud", "tid", "iss", "oid", "scp"} <= {
        each.member for each in explanation.judged
    }


def test_what_a_claim_says_is_quoted_unless_it_says_who_the_user_is() -> None:
    content = Content({}, {"who": "alex"})
    rule = Rule(("who",), "anybody", "Sign in.", lambda _: True, invalid(Reason.SUBJECT))
    assert "alex" in _by_rule(rule, content).found
    hidden = Rule(("who",), "anybody", "Sign in.", lambda _: True, invalid(Reason.SUBJECT), quoted=False)
    assert "alex" not in _by_rule(hidden, content).found


@pytest.mark.parametrize(
    ("claims", "found"),
    [({"a": 1}, "a 1"), ({"b": "x"}, 'b "x"'), ({"a": 1, "b": "x"}, 'a 1, b "x"'), ({"c": 2}, NOT_THERE)],
)
def test_of_a_rule_about_several_claims_each_is_named(claims: dict[str, Any], found: str) -> None:
    rule = Rule(("a", "b"), "anything", "Sign in.", lambda _: True, invalid(Reason.SCOPE))
    assert _by_rule(rule, Content({}, claims)).found == found


@pytest.mark.parametrize(("length", "is_cut"), [(0, False), (1, False), (_LONGEST - 2, False), (_LONGEST - 1, True)])
def test_what_is_too_long_to_read_is_cut(length: int, is_cut: bool) -> None:
    rule = Rule(("a",), "anything", "Sign in.", lambda _: True, invalid(Reason.SCOPE))
    found = _by_rule(rule, Content({}, {"a": "x" * length})).found
    written = f'"{"x" * length}"'  # as JSON has it
    assert found == (f"{written[:_LONGEST]}…" if is_cut else written)


@pytest.mark.parametrize(
    ("rules", "claim"), [(EntraTokens([], ENTRA).rules, "oid"), (OidcTokens(ISSUER, "uid").rules, "uid")]
)
def test_who_the_user_is_is_described_and_not_quoted(rules: Sequence[Rule], claim: str) -> None:
    (rule,) = [rule for rule in rules if rule.members == (claim,)]
    for subject in ("alex@contoso.com", ["alex@contoso.com"]):
        assert "alex" not in _by_rule(rule, Content({}, {claim: subject})).found


def test_whether_a_key_signed_a_token_is_told_whatever_its_claims_say(signing_keys: list[rsa.RSAPrivateKey]) -> None:
    mine, other = (SigningKey(None, key.public_key(), ISSUER, None) for key in signing_keys[:2])
    token = jwt.encode({"exp": 1}, signing_keys[0], "RS256")
    by_secret = jwt.encode({"exp": 1}, "x" * 32, "HS256")
    assert [signature_holds(each, mine) for each in (token, f"{token[:-8]}AAAAAAAA", by_secret, "?")] == [
        True,
        False,
        False,
        False,
    ]
    assert not signature_holds(token, other)


@pytest.mark.parametrize("other", ["https://a.example", "https://z.example"])
def test_a_key_counts_for_its_own_issuer_only(signing_keys: list[rsa.RSAPrivateKey], other: str) -> None:
    tokens = OidcTokens(ISSUER)
    for issuer, counts in ((ISSUER, True), (other, False)):
        key = SigningKey(None, signing_keys[0].public_key(), issuer, None)
        assert tokens.issuer_matches_key({"iss": ISSUER}, key) is counts
