"""Who calls: what a verified access token says about its bearer."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from quart_app.settings import DoorName
from storage.mapping import UserKey


@dataclass(frozen=True, slots=True)
class Caller:
    """The bearer of a verified access token.

    `user` is the key of the caller's data. `access_token` is the token itself, which on-behalf-of needs; it never
    appears in a representation. `expires_at` is in seconds since the epoch. `door` is the one the caller came in by.
    `client_id` is the app that got the token (`azp` or `appid`). `understands_claims_challenges` says that the client
    declared the capability `cp1`. `scopes` are those of the token, for routes that need one in addition to the scope
    that every caller's token carries.
    """

    user: UserKey
    access_token: str = field(repr=False)
    expires_at: int
    door: DoorName = DoorName.ENTRA
    client_id: str | None = None
    understands_claims_challenges: bool = False
    scopes: frozenset[str] = frozenset()


def current_caller() -> Caller | None:
    """The caller whose request is being served, even in tasks that the request started; `None` outside a request."""
    return _current.get()


@contextmanager
def acting_for(caller: Caller) -> Iterator[None]:
    """Everything inside is done for this caller."""
    reset = _current.set(caller)
    try:
        yield
    finally:
        _current.reset(reset)


_current: ContextVar[Caller | None] = ContextVar("caller", default=None)
