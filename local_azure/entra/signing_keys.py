"""Entra's signing keys: several valid at any time, rolled over and retired on demand, kept over restarts."""

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID
from jwt.algorithms import RSAAlgorithm

from local_azure.clock import Clock
from local_azure.keys import KeyFactory
from local_azure.state import State

ORGANIZATIONS = "{tenantid}"
PERSONAL_ACCOUNTS_TENANT_ID = "9188040d-6c67-4c5b-b112-36a304b66dad"

_INITIAL = 2


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A private key with its certificate (DER). `kid` is the certificate's SHA-1 thumbprint, as Entra does it.

    `tenant` says whose tokens it signs: the template `{tenantid}` (any organization) or one tenant id.
    """

    kid: str
    tenant: str
    private_key: rsa.RSAPrivateKey
    certificate: bytes

    def public(self) -> dict[str, Any]:
        """Its entry in a JSON Web Key Set, without an issuer."""
        numbers = json.loads(RSAAlgorithm.to_jwk(self.private_key.public_key()))
        return {
            "kty": "RSA",
            "use": "sig",
            "kid": self.kid,
            "x5t": self.kid,
            "n": numbers["n"],
            "e": numbers["e"],
            "x5c": [base64.b64encode(self.certificate).decode()],
        }


class SigningKeys:
    """The published keys. The newest key of the organizations signs, unless an application has its own key."""

    def __init__(self, state: State, clock: Clock, new_key: KeyFactory) -> None:
        self._database = state.database
        self._clock = clock
        self._new_key = new_key
        self._database.execute(
            "CREATE TABLE IF NOT EXISTS entra_keys (id INTEGER PRIMARY KEY AUTOINCREMENT, tenant TEXT NOT NULL,"
            " private_key BLOB NOT NULL, certificate BLOB NOT NULL)"
        )
        self._database.execute(
            "CREATE TABLE IF NOT EXISTS entra_application_keys (client_id TEXT PRIMARY KEY,"
            " private_key BLOB NOT NULL, certificate BLOB NOT NULL)"
        )
        rows = self._database.execute("SELECT * FROM entra_application_keys").fetchall()
        self._own = {row["client_id"]: _load(row, ORGANIZATIONS) for row in rows}
        rows = self._database.execute("SELECT * FROM entra_keys ORDER BY id").fetchall()
        self._keys = [_load(row, row["tenant"]) for row in rows]
        if not self._keys:
            for tenant in (PERSONAL_ACCOUNTS_TENANT_ID, *[ORGANIZATIONS] * _INITIAL):
                self._add(tenant)

    @property
    def published(self) -> tuple[SigningKey, ...]:
        """The keys of the organizations, oldest first."""
        return tuple(key for key in self._keys if key.tenant == ORGANIZATIONS)

    @property
    def current(self) -> SigningKey:
        """The key that signs."""
        return self.published[-1]

    @property
    def personal(self) -> tuple[SigningKey, ...]:
        """The keys of personal Microsoft accounts, which the `common` endpoint publishes besides the others."""
        return tuple(key for key in self._keys if key.tenant == PERSONAL_ACCOUNTS_TENANT_ID)

    def rotate(self) -> SigningKey:
        """Start to sign with a new key; the others stay published."""
        return self._add(ORGANIZATIONS)

    def retire(self) -> None:
        """Stop publishing every key of the organizations but the newest: their tokens are no longer valid."""
        newest = self.current
        self._keys = [*self.personal, newest]
        self._database.execute(
            "DELETE FROM entra_keys WHERE tenant = ? AND id < (SELECT max(id) FROM entra_keys WHERE tenant = ?)",
            (ORGANIZATIONS, ORGANIZATIONS),
        )

    def own(self, client_id: str) -> SigningKey | None:
        """The key that signs only the tokens for this application, if it has one."""
        return self._own.get(client_id)

    def give_own(self, client_id: str) -> SigningKey:
        """Sign the tokens for this application with a new key that only it has.

        Applications with claims mapping have one (Entra docs, "Customize claims with the claims mapping policy"). It
        is published to those only who ask for the metadata or the keys with `?appid=<client id>`.
        """
        key = _certified(self._new_key(), ORGANIZATIONS, self._clock())
        self._database.execute(
            "INSERT OR REPLACE INTO entra_application_keys VALUES (?, ?, ?)", (client_id, _der(key), key.certificate)
        )
        self._own[client_id] = key
        return key

    def take_own(self, client_id: str) -> None:
        """Sign the tokens for this application with the tenants' key again, and forget its own."""
        self._database.execute("DELETE FROM entra_application_keys WHERE client_id = ?", (client_id,))
        self._own.pop(client_id, None)

    def sign(
        self,
        claims: Mapping[str, Any],
        headers: Mapping[str, Any] | None = None,
        key: rsa.RSAPrivateKey | None = None,
        *,
        own: SigningKey | None = None,
    ) -> str:
        """A JSON Web Token (RS256) with the `kid` of the current key or of `own`, and its `x5t` too in v1.0 tokens.

        `headers` replace header fields, `None` removes one; `key` signs instead of the one that is named.
        """
        named = own or self.current
        kid = named.kid
        thumbprints = {"x5t": kid} if claims.get("ver") == "1.0" else {}
        header = {**thumbprints, "kid": kid, **(headers or {})}
        kept = {name: value for name, value in header.items() if value is not None}
        return jwt.encode(dict(claims), key or named.private_key, algorithm="RS256", headers=kept)

    def verify(self, token: str) -> dict[str, Any] | None:
        """The claims of a token that a published key signed, expired or not; otherwise `None`."""
        try:
            kid = jwt.get_unverified_header(token).get("kid")
            key = next((key for key in (*self._keys, *self._own.values()) if key.kid == kid), None)
            if key is None:
                return None
            checks = {f"verify_{claim}": False for claim in ("exp", "nbf", "iat", "aud", "iss", "sub", "jti")}
            claims: dict[str, Any] = jwt.decode(
                token,
                key.private_key.public_key(),
                algorithms=["RS256"],
                options=checks,  # type: ignore[arg-type]
            )
        except jwt.PyJWTError:
            return None
        return claims

    def _add(self, tenant: str) -> SigningKey:
        key = _certified(self._new_key(), tenant, self._clock())
        self._database.execute(
            "INSERT INTO entra_keys (tenant, private_key, certificate) VALUES (?, ?, ?)",
            (tenant, _der(key), key.certificate),
        )
        self._keys.append(key)
        return key


def thumbprint(certificate: bytes) -> str:
    """The base64url SHA-1 thumbprint of a certificate in DER (`x5t`, RFC 7515, section 4.1.7)."""
    digest = hashlib.sha1(certificate, usedforsecurity=False).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def _certified(private_key: rsa.RSAPrivateKey, tenant: str, now: float) -> SigningKey:
    start = datetime.fromtimestamp(now, UTC) - timedelta(days=1)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "local stand-in signing key")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(private_key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=5 * 365))
        .sign(private_key, hashes.SHA256())
        .public_bytes(serialization.Encoding.DER)
    )
    return SigningKey(thumbprint(certificate), tenant, private_key, certificate)


def _der(key: SigningKey) -> bytes:
    return key.private_key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _load(row: Any, tenant: str) -> SigningKey:
    # The key is our own: checking it again would take longer than all the rest of a start.
    private_key = serialization.load_der_private_key(
        row["private_key"], password=None, unsafe_skip_rsa_key_validation=True
    )
    if not isinstance(private_key, rsa.RSAPrivateKey):
        raise TypeError("The state directory holds a signing key that is not RSA.")
    return SigningKey(thumbprint(row["certificate"]), tenant, private_key, row["certificate"])
