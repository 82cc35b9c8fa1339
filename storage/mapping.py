"""The identity mapping, the interface that every store fulfils, and the errors it may raise.

A user is `(tenant id, object id)` for Microsoft Entra ID and `(issuer, subject)` for another OpenID Connect issuer.
Absence is `None`; trouble is always an exception: a read that failed must never look like "no mapping".
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar, Protocol

from upstream.errors import Throttled, Unavailable, UpstreamError

STORE = "store"
"""The name of the mapping store in metrics and logs, whichever it is."""


@dataclass(frozen=True, slots=True)
class UserKey:
    """Who a mapping belongs to.

    `issuer` is the Entra tenant id (`tid`) or the URL of another OpenID Connect issuer; `subject` is the object id
    (`oid`) or that issuer's subject claim. Both are personal data: they never reach a log or a message, so the
    representation hides them.
    """

    issuer: str
    subject: str

    def __repr__(self) -> str:
        return "UserKey(…)"


@dataclass(frozen=True, slots=True)
class IdentityMapping:
    """One user's ACS identity as a store holds it.

    `deleting` marks a deletion that has begun and must be finished before the user can get a new identity.
    `version` is the store's own opaque change marker (an etag, a row version); it decides whether `mark_deleting` and
    `remove` still speak of the same mapping. `created_at` is in UTC.
    """

    user: UserKey
    acs_user_id: str
    created_at: datetime
    deleting: bool
    version: str

    def __repr__(self) -> str:
        return f"IdentityMapping(…, deleting={self.deleting})"


class StoreError(UpstreamError):
    """Something went wrong in a store. Messages never hold a user id, an ACS id or a secret."""

    upstream: ClassVar[str] = STORE


class MappingExists(StoreError):
    """`create` found a mapping for this user, perhaps the caller's own earlier write whose answer was lost."""

    outcome: ClassVar[str] = "refused"

    def __init__(self, existing: IdentityMapping) -> None:
        super().__init__("The user has a mapping already.")
        self.existing = existing


class MappingChanged(StoreError):
    """The mapping is no longer as it was read: someone else changed, removed or replaced it."""

    outcome: ClassVar[str] = "refused"

    def __init__(self) -> None:
        super().__init__("The mapping was changed by someone else since it was read.")


class StoreThrottled(Throttled, StoreError):
    """The store refused the call because of its rate limit; nothing was done. `retry_after` is in seconds."""

    def __init__(self, retry_after: float | None = None) -> None:
        super().__init__("The mapping store is throttling requests.", retry_after)


class StoreUnavailable(Unavailable, StoreError):
    """The store could not be reached or did not answer; a write may or may not have happened.

    `retry_after` is in seconds.
    """

    def __init__(self, retry_after: float | None = None) -> None:
        super().__init__("The mapping store is unavailable.", retry_after)


class StoreMisconfigured(StoreError):
    """The store can't work until an operator changes something; the message says what."""


class WritesRefused(StoreMisconfigured):
    """The store takes no write from anybody until an operator changes something; this one was not carried out."""


class StorageFull(WritesRefused):
    """There is no room for another write; this one was not carried out."""


class StoreAccessDenied(StoreError):
    """The store refused the access token of the user whose mapping it is, or wants more than the sign-in proves.

    `claims` is the claims challenge as JSON, if there is one: the client must sign in again with it
    (https://learn.microsoft.com/entra/identity-platform/claims-challenge).
    """

    outcome: ClassVar[str] = "refused"

    def __init__(self, claims: str | None = None) -> None:
        super().__init__("The mapping store refused the user's access token.")
        self.claims = claims


class ExtensionLimitReached(StoreError):
    """Microsoft Graph holds two open extensions of this app for the user already, which is its limit."""

    outcome: ClassVar[str] = "refused"

    def __init__(self) -> None:
        super().__init__("The user object can't hold another open extension of this application.")


class MappingStore(Protocol):
    """One user, at most one mapping. Every method may raise `StoreThrottled`, `StoreUnavailable`, `StoreMisconfigured`.

    Each call is atomic, and what it wrote is seen by every later read from any process.
    """

    async def get(self, user: UserKey) -> IdentityMapping | None:
        """Read the user's mapping, one in deletion included; `None` only when the store answered that there is none."""
        ...

    async def create(self, user: UserKey, acs_user_id: str) -> IdentityMapping:
        """Create the mapping if the user has none.

        Raises `MappingExists` with what is there (also one in deletion), `ExtensionLimitReached`. After
        `StoreUnavailable` the mapping may or may not exist; a repeated call with the same id is safe.
        """
        ...

    async def mark_deleting(self, mapping: IdentityMapping) -> IdentityMapping:
        """Begin a deletion; the result carries the new version.

        Marking a mapping whose stored form is unchanged but already `deleting` is a no-op. Raises `MappingChanged`
        when it is no longer as read or gone.
        """
        ...

    async def remove(self, mapping: IdentityMapping) -> None:
        """Remove the mapping; already gone is success. Raises `MappingChanged` when another version is there."""
        ...

    def mappings(self) -> AsyncIterator[IdentityMapping]:
        """All mappings, those in deletion included, read page by page. For operators, never on the request path.

        A step that raised `StoreThrottled` or `StoreUnavailable` may be repeated: the iteration goes on where it was
        and yields nothing twice (see `storage.paging`). A mapping that stays throughout is yielded exactly once; one
        that is created or removed meanwhile may be missing or present.
        """
        ...

    async def ping(self) -> None:
        """Check that the store would answer a read, without writing."""
        ...

    async def aclose(self) -> None:
        """Release connections. The store can't be used afterwards."""
        ...
