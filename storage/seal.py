"""The seal of a mapping that its user could write: who sealed it, and that it is this user's and this identity.

Users may write their own extension in Microsoft Graph, and ACS ids are known to everyone in a chat. A seal is the id of
a key, a dot, and the HMAC-SHA-256 (RFC 2104, in base64url without padding) over a format version, the extension's
name, the tenant id, the object id and the ACS id, each with its length in four bytes before it, so that no two lists
of values are the same message. Only who holds the key can make one.
"""

import base64
import hashlib
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

from storage.mapping import UserKey

MINIMUM_KEY_BYTES = 32
"""As long as the hash: https://www.rfc-editor.org/rfc/rfc2104#section-3."""


@dataclass(frozen=True, slots=True)
class SealKey:
    """A secret key; its `id`, which is not secret, is the first eight hexadecimal digits of its SHA-256."""

    secret: bytes = field(repr=False)

    @property
    def id(self) -> str:
        """What a seal names the key by."""
        return hashlib.sha256(self.secret).hexdigest()[:8]


def parse_seal_keys(text: str) -> tuple[SealKey, ...]:
    """The keys of a list in base64, separated by commas; the first seals, all verify.

    Raises `ValueError` with what is wrong, which never holds a key.
    """
    keys = []
    for part in text.split(","):
        try:
            secret = base64.b64decode(part.strip(), validate=True)
        except ValueError:
            raise ValueError("each key must be base64; keys are separated by commas") from None
        if len(secret) < MINIMUM_KEY_BYTES:
            raise ValueError(f"each key must have at least {MINIMUM_KEY_BYTES} bytes: openssl rand -base64 32")
        keys.append(SealKey(secret))
    if len({key.id for key in keys}) < len(keys):
        raise ValueError("two of the keys are the same, or have the same id")
    return tuple(keys)


class SealVerdict(Enum):
    """What a seal says. `KEY_NOT_HELD`: it names a key that is not here, so it says nothing."""

    GOOD = "good"
    FOREIGN = "foreign"
    KEY_NOT_HELD = "key_not_held"


class Seals:
    """Makes and verifies the seals of one extension's mappings. `keys` has at least one."""

    def __init__(self, keys: Sequence[SealKey], extension_name: str) -> None:
        self._keys = {key.id: key for key in keys}
        self._first = keys[0]
        self._extension_name = extension_name

    @property
    def key_id(self) -> str:
        """The id of the key that seals."""
        return self._first.id

    def seal(self, user: UserKey, acs_user_id: str) -> str:
        """The seal that says that this identity is this user's."""
        return self._sealed(self._first, user, acs_user_id)

    def verify(self, seal: object, user: UserKey, acs_user_id: str) -> SealVerdict:
        """Whether the seal was made for this user and this identity, by a key that is held."""
        named = key_id_of(seal)
        if named is None or not isinstance(seal, str):
            return SealVerdict.FOREIGN
        key = self._keys.get(named)
        if key is None:
            return SealVerdict.KEY_NOT_HELD
        # Text is compared, not bytes: base64 has several spellings of the same bytes.
        expected = self._sealed(key, user, acs_user_id)
        return SealVerdict.GOOD if hmac.compare_digest(expected.encode(), seal.encode()) else SealVerdict.FOREIGN

    def _sealed(self, key: SealKey, user: UserKey, acs_user_id: str) -> str:
        values = (_FORMAT, self._extension_name, user.issuer.lower(), user.subject.lower(), acs_user_id)
        parts = [value.encode("utf-8", "surrogatepass") for value in values]
        message = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
        digest = hmac.new(key.secret, message, hashlib.sha256).digest()
        return f"{key.id}.{base64.urlsafe_b64encode(digest).rstrip(b'=').decode()}"


def key_id_of(seal: object) -> str | None:
    """The id of the key that a seal names; `None` where it is no seal."""
    found = _SEAL.fullmatch(seal) if isinstance(seal, str) else None
    return None if found is None else found[1]


_FORMAT = "1"
_SEAL = re.compile(r"([0-9a-f]{8})\.[A-Za-z0-9_-]{43}")
