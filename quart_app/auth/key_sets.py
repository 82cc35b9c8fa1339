"""Reads a JSON Web Key Set: the keys that can verify a token, and why each of the others can't."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

MINIMUM_RSA_BITS = 2048  # RFC 7518, section 3.3


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A public key that an issuer publishes.

    `key_id` is `None` for the only key of a set, if it has no id. `issuer` is the issuer that the discovery document
    names. `key_issuer` is the key's own `issuer` member, which Entra ID adds in its v2 key sets. Both may hold the
    template `{tenantid}`.
    """

    key_id: str | None
    key: RSAPublicKey
    issuer: str
    key_issuer: str | None


@dataclass(frozen=True, slots=True)
class DroppedKey:
    """A key of a set that is not used, and why. `key_id` is as the set writes it."""

    key_id: str | None
    why: str


@dataclass(frozen=True, slots=True)
class KeySet:
    """What a key set holds: keys that can verify a token, and others."""

    keys: tuple[SigningKey, ...]
    dropped: tuple[DroppedKey, ...]


def read_key_set(entries: list[Any], issuer: str) -> KeySet:
    """The keys of a set, which is `issuer`'s.

    What a key says about its use is binding: `use`, `key_ops`, `alg` (RFC 7517, sections 4.2 to 4.4; RFC 8725, section
    3.1). Any other optional member that can't be read counts as left out. A key without an id is usable if it is the
    only one (OpenID Connect Core 1.0, section 10.1).
    """
    keys, dropped = [], []
    for entry in entries:
        read = _read(entry, issuer)
        if isinstance(read, SigningKey):
            keys.append(read)
        else:
            dropped.append(DroppedKey(_text(entry, "kid"), read))
    if len(keys) > 1:
        named = [key for key in keys if key.key_id is not None]
        dropped += [DroppedKey(None, "it has no id, and the set has several keys")] * (len(keys) - len(named))
        keys = named
    return KeySet(tuple(keys), tuple(dropped))


def _read(entry: Any, issuer: str) -> SigningKey | str:
    """The key, or why it can't be used."""
    if not isinstance(entry, dict):
        return "it is not an object"
    why = _unfit(entry)
    if why is not None:
        return why
    try:
        # Of a modulus and an exponent alone nothing but a public key can be made.
        key: RSAPublicKey = jwt.PyJWK({name: entry.get(name) for name in ("kty", "n", "e")}, algorithm="RS256").key
    except (jwt.PyJWTError, ValueError, TypeError):
        return "its modulus or exponent can't be read"
    if key.key_size < MINIMUM_RSA_BITS:
        return f"it has {key.key_size} bits, fewer than {MINIMUM_RSA_BITS}"
    return SigningKey(_text(entry, "kid"), key, issuer, _text(entry, "issuer"))


def _unfit(entry: Mapping[str, Any]) -> str | None:
    """What the key says about itself that makes it unfit for RS256 signatures."""
    use, operations, algorithm = entry.get("use"), entry.get("key_ops"), entry.get("alg")
    if entry.get("kty") != "RSA":
        return "it is not an RSA key (kty)"
    if "d" in entry:
        return "its private part is published (d)"
    if use is not None and use != "sig":
        return "it is not for signatures (use)"
    if operations is not None and not (isinstance(operations, list) and "verify" in operations):
        return "it is not for verifying (key_ops)"
    if algorithm is not None and algorithm != "RS256":
        return "it is for an algorithm other than RS256 (alg)"
    return None


def _text(entry: Any, name: str) -> str | None:
    value = entry.get(name) if isinstance(entry, dict) else None
    return value if isinstance(value, str) else None
