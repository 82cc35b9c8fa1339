"""Finds ACS identities that a store names for two users, which the service never does."""

import hashlib

from storage.mapping import IdentityMapping, UnreadableMapping, UserKey


class IdentityOwners:
    """Who has each identity, by what a store lists. Holds digests, so that millions of mappings fit into memory."""

    def __init__(self) -> None:
        self._owners: dict[bytes, bytes] = {}
        self._shared: set[bytes] = set()

    def add(self, stored: IdentityMapping | UnreadableMapping) -> None:
        """Note what was listed; what can't be read counts as far as its identity is certain."""
        if stored.acs_user_id is None or stored.user is None:
            return
        self.add_identity(stored.acs_user_id, stored.user)

    def add_identity(self, acs_user_id: str, user: UserKey) -> None:
        """Note that this user has this identity."""
        identity, owner = _digest_of_id(acs_user_id), _digest_of_user(user)
        if self._owners.setdefault(identity, owner) != owner:
            self._shared.add(identity)

    def is_shared(self, acs_user_id: str) -> bool:
        """Whether two users were noted with this identity."""
        return _digest_of_id(acs_user_id) in self._shared


def _digest_of_id(acs_user_id: str) -> bytes:
    # Ids are hexadecimal: another spelling may be the same identity to ACS.
    return hashlib.sha256(acs_user_id.lower().encode()).digest()[:16]


def _digest_of_user(user: UserKey) -> bytes:
    parts = (part.encode(errors="surrogatepass") for part in (user.issuer, user.subject))
    return hashlib.sha256(b"".join(len(part).to_bytes(4, "big") + part for part in parts)).digest()[:16]
