"""Access tokens in: a bearer token in, a `Caller` out, and no decision on a claim that is not verified."""

import hashlib
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from cachetools import LRUCache

from quart_app.auth.caller import Caller
from quart_app.auth.key_sets import SigningKey
from quart_app.auth.rules import Rule, judge
from quart_app.auth.signed_tokens import SignedTokens

REMEMBERED_TOKENS = 10_000


class AccessTokenValidator:
    """Takes the access tokens of users: verified, for one of `audiences`, keeping the rules of `admission`.

    `clock` gives seconds since the epoch. `on_lookup` is told each time whether the token was verified before.
    """

    def __init__(
        self,
        signed_tokens: SignedTokens,
        audiences: Collection[str],
        admission: Sequence[Rule],
        clock: Callable[[], float] = time.time,
        *,
        on_lookup: Callable[[bool], None] = lambda hit: None,
    ) -> None:
        self._signed_tokens = signed_tokens
        self._audiences = audiences
        self._admission = admission
        self._clock = clock
        self._on_lookup = on_lookup
        # By the token's hash; of the token itself nothing is kept.
        self._remembered: LRUCache[bytes, tuple[Caller, SigningKey]] = LRUCache(maxsize=REMEMBERED_TOKENS)

    def remembers(self, token: str) -> bool:
        """Whether `token` was verified before and is remembered. That says who may wait, not who is let in."""
        return _digest(token) in self._remembered

    async def validate(self, token: str) -> Caller:
        """Verify `token` and return its bearer.

        A verified token is remembered by its hash until it expires or its signing key is withdrawn.

        Raises `TokenRefused`: `InvalidAccessToken`, `InsufficientScope` or `InsufficientRole`; or
        `SigningKeysUnavailable` when no statement is possible.
        """
        digest = _digest(token)
        remembered = self._remembered.get(digest)
        if remembered is not None:
            known, key = remembered
            if self._signed_tokens.still_verifies(known.expires_at, key, self._clock()):
                self._on_lookup(True)
                return replace(known, access_token=token)
            del self._remembered[digest]
        self._on_lookup(False)
        verified = await self._signed_tokens.verify(token, self._audiences)
        judge(verified.content, self._admission)
        caller = Caller(
            user=verified.user,
            access_token=token,
            expires_at=verified.expires_at,
            client_id=verified.client_id,
            understands_claims_challenges="cp1" in {name.lower() for name in verified.capabilities},
            scopes=verified.scopes or frozenset(),
        )
        self._remembered[digest] = (replace(caller, access_token=""), verified.key)
        return caller


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "replace")).digest()
