"""Seals and their keys."""

import base64

import pytest

from storage.mapping import UserKey
from storage.seal import MINIMUM_KEY_BYTES, SealKey, Seals, SealVerdict, parse_seal_keys
from tests.support.acs_ids import acs_id

ALICE, BOB = UserKey("tenant", "alice"), UserKey("tenant", "bob")
ONE, OTHER = SealKey(b"1" * MINIMUM_KEY_BYTES), SealKey(b"2" * MINIMUM_KEY_BYTES)


def written(*keys: SealKey) -> str:
    return ",".join(base64.b64encode(key.secret).decode() for key in keys)


def test_keys_are_read_in_their_order() -> None:
    assert parse_seal_keys(written(ONE)) == (ONE,)
    longer = SealKey(b"3" * 2 * MINIMUM_KEY_BYTES)
    assert parse_seal_keys(written(longer)) == (longer,)
    assert parse_seal_keys(written(OTHER, ONE).replace(",", " , ")) == (OTHER, ONE)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (written(ONE, ONE), "the same"),
        (written(ONE, OTHER, ONE), "the same"),
        ("", "at least"),
        (written(SealKey(b"1" * (MINIMUM_KEY_BYTES - 1))), "at least"),
        (f"{written(ONE)},", "at least"),
        ("not base64!", "base64"),
    ],
)
def test_keys_that_are_none_are_refused_and_not_told(text: str, fault: str) -> None:
    with pytest.raises(ValueError, match=fault) as caught:
        parse_seal_keys(text)
    assert not text or text not in str(caught.value)


def test_a_seal_is_good_for_its_user_and_identity_only_with_any_key_that_is_held() -> None:
    seal = Seals([ONE], "extension").seal(ALICE, acs_id("one"))
    for keys in ([ONE], [OTHER, ONE]):
        seals = Seals(keys, "extension")
        assert seals.verify(seal, ALICE, acs_id("one")) is SealVerdict.GOOD
        assert seals.verify(seal, BOB, acs_id("one")) is SealVerdict.FOREIGN
        assert seals.verify(seal, ALICE, acs_id("two")) is SealVerdict.FOREIGN
    assert Seals([ONE], "another extension").verify(seal, ALICE, acs_id("one")) is SealVerdict.FOREIGN
    assert Seals([OTHER], "extension").verify(seal, ALICE, acs_id("one")) is SealVerdict.KEY_NOT_HELD
