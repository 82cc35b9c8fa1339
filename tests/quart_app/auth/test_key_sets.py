"""Which keys of a key set are used: the members of real sets, and of those that try to be taken for one."""

import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from quart_app.auth.key_sets import KeySet, read_key_set


@pytest.fixture(scope="module")
def entry(signing_keys: list[rsa.RSAPrivateKey]) -> dict[str, Any]:
    return {**json.loads(RSAAlgorithm.to_jwk(signing_keys[0].public_key())), "kid": "x", "use": "sig"} | {
        "key_ops": None
    }


def read(*entries: Any) -> KeySet:
    return read_key_set(list(entries), "https://issuer.example")


def without(entry: dict[str, Any], **changed: Any) -> dict[str, Any]:
    """The entry with other members; one given as `...` is left out."""
    return {name: value for name, value in {**entry, **changed}.items() if value is not ...}


USED: dict[str, dict[str, Any]] = {
    "as it is": {},
    "alg": {"alg": "RS256"},
    "alg of null": {"alg": None},
    "no use": {"use": ...},
    "use of null": {"use": None},
    "key_ops": {"key_ops": ["verify"]},
    "several key_ops": {"key_ops": ["sign", "verify"]},
    "an issuer": {"issuer": "https://other.example"},
    "an issuer that is a number": {"issuer": 5},
    "an issuer that is a list": {"issuer": ["x"]},
    "a certificate that is none": {"x5c": 7, "x5t": [], "x5u": {}},
    "times that are none": {"nbf": "never", "exp": []},
    "a key id that is a number": {"kid": 5},
    "no key id": {"kid": ...},
    "members that nobody knows": {"name": {"x": 1}, "ext": True, "status": "?"},
}


@pytest.mark.parametrize("case", USED)
def test_an_optional_member_that_cannot_be_read_does_not_cost_the_key(entry: dict[str, Any], case: str) -> None:
    found = read(without(entry, **USED[case]))
    assert (len(found.keys), found.dropped) == (1, ())


DROPPED: dict[str, tuple[dict[str, Any], str]] = {
    "PS256 (PayPal)": ({"alg": "PS256"}, "an algorithm other than RS256"),
    "RS512": ({"alg": "RS512"}, "an algorithm other than RS256"),
    "for encryption by its algorithm": ({"alg": "RSA-OAEP"}, "an algorithm other than RS256"),
    "an algorithm that is a list": ({"alg": ["RS256"]}, "an algorithm other than RS256"),
    "for encryption": ({"use": "enc"}, "not for signatures"),
    "a use that is a list": ({"use": ["sig"]}, "not for signatures"),
    "for signing only": ({"key_ops": ["sign"]}, "not for verifying"),
    "for wrapping": ({"key_ops": ["wrapKey", "encrypt"]}, "not for verifying"),
    "for nothing": ({"key_ops": []}, "not for verifying"),
    "operations as text": ({"key_ops": "verify"}, "not for verifying"),
    "no modulus": ({"n": ...}, "can't be read"),
    "a modulus that is a number": ({"n": 7}, "can't be read"),
    "an exponent of one": ({"e": "AQ"}, "can't be read"),
    "no type": ({"kty": ...}, "not an RSA key"),
    "a private key": ({"d": "AQAB"}, "private part"),
}


@pytest.mark.parametrize("case", DROPPED)
def test_what_a_key_says_of_itself_binds(entry: dict[str, Any], case: str) -> None:
    changed, why = DROPPED[case]
    found = read(without(entry, **changed))
    assert found.keys == ()
    assert [(each.key_id, why in each.why) for each in found.dropped] == [("x", True)]


def test_of_a_mixed_set_every_key_that_is_not_used_is_named_with_its_cause(entry: dict[str, Any]) -> None:
    """As Yahoo's: elliptic curves beside RSA of 1024 bits."""
    small = json.loads(RSAAlgorithm.to_jwk(rsa.generate_private_key(65537, 1024).public_key()))
    curve = json.loads(ECAlgorithm.to_jwk(ec.generate_private_key(ec.SECP256R1()).public_key()))
    found = read(entry, {**small, "kid": "small"}, {**curve, "kid": "curve"}, {"kty": "oct", "k": "x"}, "text", None)
    assert [key.key_id for key in found.keys] == ["x"]
    assert [(each.key_id, each.why) for each in found.dropped] == [
        ("small", "it has 1024 bits, fewer than 2048"),
        ("curve", "it is not an RSA key (kty)"),
        (None, "it is not an RSA key (kty)"),
        (None, "it is not an object"),
        (None, "it is not an object"),
    ]


def test_a_key_without_an_id_is_used_only_where_it_is_the_only_one(
    entry: dict[str, Any], signing_keys: list[rsa.RSAPrivateKey]
) -> None:
    second = {**json.loads(RSAAlgorithm.to_jwk(signing_keys[1].public_key())), "kid": ...}
    nameless = without(entry, kid=...)
    assert [key.key_id for key in read(nameless).keys] == [None]
    assert [key.key_id for key in read(nameless, {"kty": "EC"}).keys] == [None]
    mixed = read(entry, without(second))
    assert [key.key_id for key in mixed.keys] == ["x"]
    assert "several keys" in mixed.dropped[0].why
    assert read(nameless, without(second)).keys == ()
