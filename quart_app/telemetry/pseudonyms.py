"""Names that stand in for users in logs."""

import hmac
import secrets

from quart_app.auth.caller import Caller
from quart_app.telemetry.served_request import current_request
from storage.mapping import UserKey


class Pseudonyms:
    """Stands in for users in logs: the same user always gets the same name, and the name does not tell who it is.

    It is a keyed hash (HMAC-SHA256, 64 bits of it): object ids can be listed, so a hash without a key could be reversed
    by trying. `key` makes names comparable between processes and restarts; without one each process draws its own.
    """

    def __init__(self, key: str | None = None) -> None:
        self._key = key.encode() if key else secrets.token_bytes(32)

    def of(self, user: UserKey) -> str:
        """The user's name: 16 hexadecimal digits."""
        return hmac.digest(self._key, f"{user.issuer}\n{user.subject}".encode(), "sha256").hex()[:16]

    def note(self, caller: Caller) -> None:
        """Name the caller in every further log line of the request that is being served."""
        served = current_request()
        if served is not None:
            served.user = self.of(caller.user)
