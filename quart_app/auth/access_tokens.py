"""Access tokens in: a bearer token in, a `Caller` out, and no decision on an unverified claim."""

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from cachetools import LRUCache

from quart_app.auth.caller import Caller
from quart_app.auth.doors import OpenDoor, chosen_door
from quart_app.auth.key_sets import SigningKey
from quart_app.auth.rules import judge
from quart_app.settings import DoorName

REMEMBERED_TOKENS = 10_000


class AccessTokenValidator:
    """Accepts users' access tokens. Each is judged only by the door whose issuer it names.

    `clock` gives seconds since the epoch. `on_lookup` is called each time with whether the token was verified before,
    `on_door` with the door it came by, even if it is refused.
    """

    def __init__(
        self,
        doors: Sequence[OpenDoor],
        clock: Callable[[], float] = time.time,
        *,
        on_lookup: Callable[[bool], None] = lambda hit: None,
        on_door: Callable[[DoorName], None] = lambda door: None,
    ) -> None:
        self._doors = doors
        self._clock = clock
        self._on_lookup = on_lookup
        self._on_door = on_door
        # By the token's hash; the token itself is not kept.
        self._remembered: LRUCache[bytes, tuple[Caller, OpenDoor, SigningKey]] = LRUCache(maxsize=REMEMBERED_TOKENS)

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
            known, door, key = remembered
            if door.tokens.still_verifies(known.expires_at, key, self._clock()):
                self._on_lookup(True)
                self._on_door(known.door)
                return replace(known, access_token=token)
            del self._remembered[digest]
        self._on_lookup(False)
        door = chosen_door(token, self._doors)
        self._on_door(door.door.name)
        verified = await door.tokens.verify(token, door.door.audiences)
        judge(verified.content, door.door.admission)
        caller = Caller(
            user=verified.user,
            access_token=token,
            expires_at=verified.expires_at,
            door=door.door.name,
            client_id=verified.client_id,
            understands_claims_challenges="cp1" in {name.lower() for name in verified.capabilities},
            scopes=verified.scopes or frozenset(),
        )
        self._remembered[digest] = (replace(caller, access_token=""), door, verified.key)
        return caller


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "replace")).digest()
