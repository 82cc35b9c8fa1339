"""ACS access tokens that were issued a short while ago and may be answered again."""

import time
from collections.abc import Callable

from cachetools import TTLCache

from quart_app.acs.interface import AcsToken


class TokenCache:
    """Each token for `seconds` after it was issued, by identity and scopes; the oldest give way beyond `size`.

    A token says nothing about whether its identity still belongs to anybody: that is for the mapping store to say, each
    time. `timer` is in seconds.
    """

    def __init__(
        self,
        seconds: float,
        scopes: tuple[str, ...],
        *,
        size: int = 10_000,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self._scopes = scopes
        self._tokens: TTLCache[tuple[str, tuple[str, ...]], AcsToken] = TTLCache(size, seconds, timer)

    def find(self, acs_user_id: str) -> AcsToken | None:
        """The identity's token, if one is still fresh."""
        return self._tokens.get((acs_user_id, self._scopes))

    def keep(self, acs_user_id: str, token: AcsToken) -> None:
        """Remember a token that was issued just now."""
        self._tokens[acs_user_id, self._scopes] = token

    def drop(self, acs_user_id: str) -> None:
        """Forget the identity's token."""
        self._tokens.pop((acs_user_id, self._scopes), None)
