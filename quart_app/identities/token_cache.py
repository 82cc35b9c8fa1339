"""ACS access tokens that were issued a short while ago and may be returned again."""

import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from cachetools import TTLCache

from quart_app.acs.interface import AcsToken, TokenRequest

VARIANTS = 16
"""How many different tokens are kept for one identity: the newest."""


@dataclass(frozen=True, slots=True)
class _Kept:
    token: AcsToken = field(repr=False)
    until: float


class TokenCache:
    """Each token for `seconds` after it was issued, by identity, request and version of the mapping.

    One that was asked for with a shorter life is dropped a minute before it ends.

    Beyond `size`, the identities with the oldest tokens are dropped. A token says nothing about whether its identity
    still belongs to anybody: the mapping store says that, each time. A mapping whose version has changed, because its
    user signed out everywhere, has none of the tokens that were kept before. `timer` is in seconds.
    """

    def __init__(self, seconds: float, *, size: int = 10_000, timer: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._timer = timer
        self._tokens: TTLCache[str, OrderedDict[tuple[TokenRequest | None, str], _Kept]] = TTLCache(
            size, seconds, timer
        )

    def find(self, acs_user_id: str, request: TokenRequest | None, version: str) -> AcsToken | None:
        """The token that was issued for this very request, if it is still fresh."""
        variants = self._tokens.get(acs_user_id)
        kept = variants.get((request, version)) if variants is not None else None
        return kept.token if kept is not None and self._timer() < kept.until else None

    def keep(self, acs_user_id: str, request: TokenRequest | None, version: str, token: AcsToken) -> None:
        """Remember a token that was issued just now, after this version of the mapping was read."""
        variants = self._tokens.get(acs_user_id) or OrderedDict()
        seconds = self._seconds if request is None else min(self._seconds, (request.minutes - 1) * 60)
        variants[request, version] = _Kept(token, self._timer() + seconds)
        variants.move_to_end((request, version))
        while len(variants) > VARIANTS:
            variants.popitem(last=False)
        self._tokens[acs_user_id] = variants

    def drop(self, acs_user_id: str) -> None:
        """Forget the identity's tokens."""
        self._tokens.pop(acs_user_id, None)
