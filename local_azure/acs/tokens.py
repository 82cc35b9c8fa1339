"""ACS access tokens: RS256, with the header and the claims that real ones carry.

The claims are those of a token shown in public by a Microsoft demo; they are no documented contract, and clients read
only `exp` of them.
"""

import base64
import hashlib
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

_VOIP_AND_CHAT = 1792
_TEAMS_USER = 780


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """A token as ACS hands it out; `expires_on` is ISO 8601 with seven fractional digits, `expires_at` is in seconds
    since the epoch.
    """

    token: str = field(repr=False)
    expires_on: str
    expires_at: int


class TokenIssuer:
    """Signs ACS access tokens for one resource."""

    def __init__(self, key: rsa.RSAPrivateKey, resource_id: str) -> None:
        self._key = key
        self._resource_id = resource_id
        public_key = key.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        thumbprint = hashlib.sha1(public_key, usedforsecurity=False).digest()
        self._header = {
            "kid": thumbprint.hex().upper(),
            "x5t": base64.urlsafe_b64encode(thumbprint).rstrip(b"=").decode(),
            "typ": "JWT",
        }

    def for_identity(self, identity: str, scopes: list[str], now: float, minutes: int) -> IssuedToken:
        """A token for an ACS identity, valid for `minutes` from `now` (seconds since the epoch)."""
        claims = {
            "skypeid": identity.removeprefix("8:"),
            # Real tokens with the scopes chat and voip hold this number; no other combination has been published.
            "scp": _VOIP_AND_CHAT,
            "acsScope": ",".join(scopes),
        }
        return self._issue(claims, now, now + minutes * 60)

    def for_teams_user(self, object_id: str, tenant_id: str, now: float, expires_at: float) -> IssuedToken:
        """A token for a Teams user, good until `expires_at`: as long as the Entra token it was exchanged for.

        Inferred: nobody published one; these are the claims of a Teams client's own token.
        """
        claims = {"skypeid": f"orgid:{object_id}", "scp": _TEAMS_USER, "tid": tenant_id, "acsScope": "chat,voip"}
        return self._issue(claims, now, expires_at)

    def verify(self, token: str) -> dict[str, Any]:
        """The claims of a token that this resource signed, expired or not. Raises `jwt.InvalidTokenError`."""
        claims: dict[str, Any] = jwt.decode(
            token, self._key.public_key(), algorithms=["RS256"], options={"verify_exp": False, "verify_iat": False}
        )
        return claims

    def _issue(self, claims: dict[str, Any], now: float, expires_at: float) -> IssuedToken:
        issued_at = int(now)
        payload = claims | {
            "csi": str(issued_at),
            "exp": int(expires_at),
            "rgn": "amer",
            "resourceId": self._resource_id,
            "resourceLocation": "unitedstates",
            "iat": issued_at,
        }
        token = jwt.encode(payload, self._key, algorithm="RS256", headers=self._header)
        return IssuedToken(token, _iso(expires_at), int(expires_at))


def _iso(seconds: float) -> str:
    whole = int(seconds)
    ticks = int((seconds - whole) * 10_000_000)  # .NET counts in units of 100 ns, hence seven digits
    return f"{datetime.fromtimestamp(whole, UTC):%Y-%m-%dT%H:%M:%S}.{ticks:07d}+00:00"
