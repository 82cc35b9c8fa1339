"""Authorization codes, refresh tokens and device codes: opaque secrets that stand for a user's sign-in."""

import dataclasses
import hashlib
import json
import secrets
from dataclasses import dataclass

from local_azure.clock import Clock
from local_azure.entra.errors import EntraError
from local_azure.state import State

CODE = "code"
REFRESH_TOKEN = "refresh_token"  # noqa: S105  # a kind of grant, not a secret

_LIFETIMES = {CODE: 10 * 60, REFRESH_TOKEN: 24 * 60 * 60}
"""Seconds; a single-page application's refresh token lives 24 hours (Entra docs, "Refresh tokens")."""


@dataclass(frozen=True, slots=True)
class Grant:
    """One user's sign-in for one client. The empty string stands for a parameter that the request did not have."""

    client_id: str
    tenant_id: str
    object_id: str
    scope: str
    redirect_uri: str = ""
    code_challenge: str = ""
    nonce: str = ""
    claims_challenges: bool = False
    multi_factor: bool = False


class Grants:
    """Remembers grants by the hash of their secret."""

    def __init__(self, state: State, clock: Clock) -> None:
        self._database = state.database
        self._clock = clock
        self._database.execute(
            "CREATE TABLE IF NOT EXISTS entra_grants (digest TEXT PRIMARY KEY, kind TEXT NOT NULL,"
            " expires_at REAL NOT NULL, redeemed INTEGER NOT NULL DEFAULT 0, content TEXT NOT NULL)"
        )

    def issue(self, kind: str, grant: Grant) -> str:
        """Remember a grant and return its secret."""
        self._database.execute("DELETE FROM entra_grants WHERE expires_at < ?", (self._clock() - _LIFETIMES[kind],))
        secret = f"1.A{secrets.token_urlsafe(96)}"
        self._database.execute(
            "INSERT INTO entra_grants (digest, kind, expires_at, content) VALUES (?, ?, ?, ?)",
            (_digest(secret), kind, self._clock() + _LIFETIMES[kind], json.dumps(dataclasses.asdict(grant))),
        )
        return secret

    def read(self, kind: str, secret: str, client_id: str) -> Grant:
        """The grant of a secret that is known, unexpired, not redeemed and this client's. Raises `EntraError`."""
        row = self._database.execute(
            "SELECT * FROM entra_grants WHERE digest = ? AND kind = ?", (_digest(secret), kind)
        ).fetchone()
        grant = Grant(**json.loads(row["content"])) if row else None
        if grant is None or grant.client_id != client_id:
            raise EntraError(70000, "invalid_grant", "The provided grant is invalid or malformed.")
        if row["redeemed"]:
            raise EntraError(
                54005,
                "invalid_grant",
                "OAuth2 Authorization code was already redeemed, please retry with a new valid code or use an "
                "existing refresh token.",
            )
        if row["expires_at"] <= self._clock():
            raise EntraError(
                70008,
                "invalid_grant",
                "The provided authorization code or refresh token has expired due to inactivity. Send a new "
                "interactive authorization request for this user and resource.",
            )
        return grant

    def redeem(self, secret: str) -> None:
        """Use a code up."""
        self._database.execute("UPDATE entra_grants SET redeemed = 1 WHERE digest = ?", (_digest(secret),))


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
