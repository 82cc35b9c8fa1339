"""A store that refuses writes stops minting, because each identity that can't be mapped is an orphan."""

import time
from collections.abc import Callable

from storage.mapping import StoreError, WritesRefused

_FORGOTTEN_AFTER = 30.0


class RefusedWrites:
    """Remembers for 30 seconds that the store refused anybody's write; then the next request tries again.

    `timer` is in seconds.
    """

    def __init__(self, timer: Callable[[], float] = time.monotonic) -> None:
        self._timer = timer
        self._refusal: WritesRefused | None = None
        self._until = 0.0

    def learn(self, error: StoreError) -> None:
        """A write ended with this error."""
        if isinstance(error, WritesRefused):
            self._refusal, self._until = error, self._timer() + _FORGOTTEN_AFTER

    def forget(self) -> None:
        """A write succeeded."""
        self._refusal = None

    def stop_minting(self) -> None:
        """Raise the store's refusal while it is remembered."""
        if self._refusal is not None and self._timer() < self._until:
            raise type(self._refusal)(*self._refusal.args)
