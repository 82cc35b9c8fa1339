"""What is known of one issuer's key set after each fetch: which keys count now. It fetches nothing and has no clock.

A set that was fetched is a statement. One with a usable key counts at once: keys that it no longer lists are dead. One
without may be an accident at the issuer or in a cache on the way: it counts once it was fetched
`EMPTY_SETS_THAT_COUNT` times in a row.
"""

from quart_app.auth.key_sets import SigningKey

EMPTY_SETS_THAT_COUNT = 3
EMPTY_SETS_APART = 10.0
"""How many seconds must lie between two empty sets for them to count as two."""

MAXIMUM_AGE = 24 * 3600.0
"""How many seconds a key lives after the last good fetch, whatever fails: Entra ID advises a day
(https://learn.microsoft.com/entra/identity-platform/signing-key-rollover)."""


class PublishedKeys:
    """The keys of one issuer's set. Every `now` is in seconds on one monotonic clock; `since` is when it began."""

    def __init__(self, since: float) -> None:
        self._keys: tuple[SigningKey, ...] = ()
        self._good_at = since
        self._empty_at: float | None = None
        self._empties = 0
        self._in_doubt = True

    def fetched(self, keys: tuple[SigningKey, ...], now: float) -> None:
        """A key set was fetched that holds these usable keys."""
        self._in_doubt = not keys
        if keys:
            self._keys, self._good_at, self._empties, self._empty_at = keys, now, 0, None
            return
        if self._empty_at is None or now - self._empty_at >= EMPTY_SETS_APART:
            self._empty_at = now
            self._empties += 1
        if self._empties >= EMPTY_SETS_THAT_COUNT:
            self._keys = ()

    def failed(self) -> None:
        """No key set could be fetched, which says nothing about the keys."""
        self._in_doubt = True

    @property
    def in_doubt(self) -> bool:
        """Whether the newest fetch returned no key, so that the next one must come soon."""
        return self._in_doubt

    @property
    def ends_at(self) -> float:
        """When the keys die unless a fetch returns them again."""
        return self._good_at + MAXIMUM_AGE

    def keys(self, now: float) -> tuple[SigningKey, ...]:
        """The keys that count now."""
        return self._keys if now < self.ends_at else ()

    def age(self, now: float) -> float:
        """Seconds since a fetch returned usable keys; since the beginning if none did."""
        return now - self._good_at
