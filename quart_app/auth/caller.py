"""Who calls: what a verified access token says about its bearer."""

from dataclasses import dataclass, field

from storage.mapping import UserKey


@dataclass(frozen=True, slots=True)
class Caller:
    """The bearer of a verified access token.

    `user` is the key of the caller's data. `access_token` is the token itself, which on-behalf-of needs; it never
    reaches a representation. `expires_at` is in seconds since the epoch. `client_id` is the app that got the token
    (`azp` or `appid`). `understands_claims_challenges` says that the client declared the capability `cp1`.
    """

    user: UserKey
    access_token: str = field(repr=False)
    expires_at: int
    client_id: str | None = None
    understands_claims_challenges: bool = False
