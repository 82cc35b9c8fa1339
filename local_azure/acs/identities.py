"""What the ACS resource remembers: its id and keys, its identities, and the access tokens that are still good."""

import base64
import hashlib
import secrets
import uuid
from enum import StrEnum

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from local_azure.acs import errors
from local_azure.acs.deleted import DeletedIdentities
from local_azure.clock import Clock
from local_azure.keys import KeyFactory
from local_azure.state import State

_TABLES = """
CREATE TABLE IF NOT EXISTS acs_resource (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS acs_identities (id TEXT PRIMARY KEY, deleted INTEGER NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS acs_tokens (digest BLOB PRIMARY KEY, identity TEXT NOT NULL, expires_at INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS acs_tokens_by_identity ON acs_tokens (identity);
CREATE TABLE IF NOT EXISTS acs_revoked_tokens (
    digest BLOB PRIMARY KEY, identity TEXT NOT NULL, expires_at INTEGER NOT NULL
);
"""

# Ids recorded by the Azure SDKs count milliseconds from here in their first three groups: the one minted at
# 2022-02-01T23:10:21Z is …_0000000f-576f-4c90-….
_EPOCH_SECONDS = 1_577_865_600  # 2020-01-01T08:00:00Z


_REMEMBERED_SECONDS = 24 * 60 * 60
"""How long expired tokens are known as such."""


class TokenStatus(StrEnum):
    """What happened to an access token. `UNKNOWN` was not issued here, or expired long ago."""

    GOOD = "good"
    REVOKED = "revoked"
    EXPIRED = "expired"
    UNKNOWN = "unknown"


class Identities:
    """The resource's data in the shared state; a restart finds it again.

    `deleted` says what is answered for a deleted identity. `id_prefix` is that of the cloud: `8:dod-acs:` and
    `8:gcch-acs:` in those of the US government (azure-communication-identity: `ACS_USER_DOD_CLOUD_PREFIX`,
    `ACS_USER_GCCH_CLOUD_PREFIX`).
    """

    def __init__(self, state: State, clock: Clock, new_key: KeyFactory, deleted: DeletedIdentities) -> None:
        self._deleted = deleted
        self.id_prefix = "8:acs:"
        self._database = state.database
        self._clock = clock
        self._database.executescript(_TABLES)
        self.resource_id = self._remembered("resource_id") or self._remember("resource_id", str(uuid.uuid4()))
        self.access_key = self._remembered("access_key") or self._remember("access_key", _new_access_key())
        self.signing_key = _from_pem(
            self._remembered("signing_key") or self._remember("signing_key", _to_pem(new_key()))
        )

    def rotate_access_key(self) -> None:
        """Replace the access key; the old one is refused from now on."""
        self.access_key = self._remember("access_key", _new_access_key())

    def create(self) -> str:
        """Mint an identity and return its id."""
        identity = _new_id(self.id_prefix, self.resource_id, self._clock())
        self._database.execute("INSERT INTO acs_identities (id) VALUES (?)", (identity,))
        return identity

    def require(self, identity: str) -> None:
        """Raise `ServiceError` unless this is a live identity of this resource."""
        if not identity.startswith(f"{self.id_prefix}{self.resource_id}_"):
            raise errors.not_owned()
        row = self._database.execute("SELECT deleted FROM acs_identities WHERE id = ?", (identity,)).fetchone()
        if row is None or row["deleted"]:
            raise self._deleted.answer.error()

    def revoke_tokens(self, identity: str) -> None:
        """No token issued for the identity until now is good any more."""
        self._database.execute(
            "INSERT OR REPLACE INTO acs_revoked_tokens SELECT * FROM acs_tokens WHERE identity = ?", (identity,)
        )
        self._database.execute("DELETE FROM acs_tokens WHERE identity = ?", (identity,))

    def delete(self, identity: str) -> None:
        """Delete the identity; its tokens are revoked."""
        self.revoke_tokens(identity)
        self._database.execute("UPDATE acs_identities SET deleted = 1 WHERE id = ?", (identity,))

    def forget(self, identity: str) -> None:
        """Lose every trace of the identity, as if it had never been minted."""
        self.revoke_tokens(identity)
        self._database.execute("DELETE FROM acs_identities WHERE id = ?", (identity,))

    def all(self) -> list[str]:
        """Every identity ever minted and not forgotten, oldest first."""
        return [row["id"] for row in self._database.execute("SELECT id FROM acs_identities ORDER BY rowid")]

    def live(self) -> list[str]:
        """The identities that were not deleted, oldest first."""
        rows = self._database.execute("SELECT id FROM acs_identities WHERE NOT deleted ORDER BY rowid")
        return [row["id"] for row in rows]

    def foreign(self) -> str:
        """The id of an identity that another resource minted."""
        return _new_id(self.id_prefix, str(uuid.uuid4()), self._clock())

    def remember_token(self, token: str, identity: str, expires_at: int) -> None:
        """The token is good until it expires (seconds since the epoch) or is revoked."""
        forgotten = (int(self._clock()) - _REMEMBERED_SECONDS,)
        self._database.execute("DELETE FROM acs_tokens WHERE expires_at <= ?", forgotten)
        self._database.execute("DELETE FROM acs_revoked_tokens WHERE expires_at <= ?", forgotten)
        self._database.execute(
            "INSERT OR IGNORE INTO acs_tokens VALUES (?, ?, ?)", (_digest(token), identity, expires_at)
        )

    def token_status(self, token: str) -> TokenStatus:
        """What happened to a token."""
        digest = (_digest(token),)
        row = self._database.execute("SELECT expires_at FROM acs_revoked_tokens WHERE digest = ?", digest).fetchone()
        if row is not None:
            return TokenStatus.REVOKED
        row = self._database.execute("SELECT expires_at FROM acs_tokens WHERE digest = ?", digest).fetchone()
        if row is None:
            return TokenStatus.UNKNOWN
        return TokenStatus.GOOD if row["expires_at"] > int(self._clock()) else TokenStatus.EXPIRED

    def _remembered(self, name: str) -> str | None:
        row = self._database.execute("SELECT value FROM acs_resource WHERE name = ?", (name,)).fetchone()
        return None if row is None else str(row["value"])

    def _remember(self, name: str, value: str) -> str:
        self._database.execute("INSERT OR REPLACE INTO acs_resource VALUES (?, ?)", (name, value))
        return value


def _new_id(prefix: str, resource_id: str, now: float) -> str:
    time = f"{int((now - _EPOCH_SECONDS) * 1000):016x}"
    rest = secrets.token_hex(8)
    return f"{prefix}{resource_id}_{time[:8]}-{time[8:12]}-{time[12:]}-{rest[:4]}-{rest[4:]}"


def _new_access_key() -> str:
    return base64.b64encode(secrets.token_bytes(64)).decode()


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _to_pem(key: rsa.RSAPrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def _from_pem(pem: str) -> rsa.RSAPrivateKey:
    # Checking the key costs as much time as making it; this process wrote it itself.
    key = serialization.load_pem_private_key(pem.encode(), password=None, unsafe_skip_rsa_key_validation=True)
    if not isinstance(key, rsa.RSAPrivateKey):
        raise TypeError("The ACS stand-in's signing key is not an RSA key.")
    return key
