"""The identity mapping, the interface that every store fulfils, and the errors it may raise.

A user is `(tenant id, object id)` for Microsoft Entra ID and `(issuer, subject)` for another OpenID Connect issuer.
Absence is `None`; trouble is always an exception: a read that failed must never look like "no mapping".
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
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


UNKNOWN_CREATION = datetime.fromtimestamp(0, UTC)
"""The `created_at` of a mapping whose time of creation is not known: Microsoft's samples store none."""


@dataclass(frozen=True, slots=True)
class IdentityMapping:
    """One user's ACS identity as a store holds it.

    `deleting` marks a deletion that has started and must be finished before the user can get a new identity.
    `signed_out_at` is when the user last signed out everywhere, or `None`. `version` is the store's own opaque change
    marker (an etag, a row version); it decides whether `change` and `remove` still speak of the same mapping. Times are
    in UTC.

    `unsealed` is true only with Microsoft Graph, while mappings without a seal are accepted: the user may have written
    the mapping, so nothing is deleted or copied on its word.
    """

    user: UserKey
    acs_user_id: str
    created_at: datetime
    deleting: bool
    version: str
    signed_out_at: datetime | None = None
    unsealed: bool = False

    def __repr__(self) -> str:
        return f"IdentityMapping(…, deleting={self.deleting})"


def changed_mapping(mapping: IdentityMapping, deleting: bool | None, signed_out_at: datetime | None) -> IdentityMapping:
    """The mapping after a `change`, its version still the old one."""
    return replace(
        mapping,
        deleting=mapping.deleting if deleting is None else deleting,
        signed_out_at=mapping.signed_out_at if signed_out_at is None else signed_out_at.astimezone(UTC),
    )


class Unreadable(StrEnum):
    """Why what a store holds is not a valid mapping.

    damaged             a value is missing or is not of its form
    unsealed            Graph: it has no seal
    foreign_seal        Graph: its seal is not for this user and this identity
    seal_key_not_held   Graph: it is sealed by a key that GRAPH_SEAL_KEYS does not hold, which is the operator's fault
    """

    DAMAGED = "damaged"
    UNSEALED = "unsealed"
    FOREIGN_SEAL = "foreign_seal"
    SEAL_KEY_NOT_HELD = "seal_key_not_held"


@dataclass(frozen=True, slots=True)
class UnreadableMapping:
    """What is stored in place of a user's mapping and is not one.

    user         whose it is; `None` where not even that can be read
    version      as that of a mapping: `remove` removes what was read and nothing else
    reason       why it can't be read; `detail` names what is wrong with a damaged one, and holds no value
    key          what the store itself calls it, for an operator's report: personal data, as `user` is
    acs_user_id  the identity that goes with it, where that is certain: it is well formed and the user can't have
                 written it
    users_may_write  whether users can write it themselves (Microsoft Graph)
    """

    user: UserKey | None
    version: str
    reason: Unreadable
    detail: str = ""
    key: str = field(default="", repr=False)
    acs_user_id: str | None = field(default=None, repr=False)
    users_may_write: bool = False

    def __repr__(self) -> str:
        return f"UnreadableMapping(…, reason={self.reason.value})"

    def __str__(self) -> str:
        return f"{self.reason.value}: {self.detail}" if self.detail else self.reason.value


@dataclass(frozen=True, slots=True)
class MappingPage:
    """A part of a listing. `following` is the store's own name of the next part, `None` if this was the last one.

    A name may be kept in a file and given to another process. It may hold personal data.
    """

    stored: tuple[IdentityMapping | UnreadableMapping, ...]
    following: str | None = field(repr=False)


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


class MappingUnreadable(StoreError):
    """Something is stored in place of the user's mapping that can't be read as one. It is never "no mapping"."""

    outcome: ClassVar[str] = "refused"

    def __init__(self, unreadable: UnreadableMapping) -> None:
        super().__init__(f"The stored mapping can't be read ({unreadable}).")
        self.unreadable = unreadable


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


class StoreUnexpectedAnswer(StoreError):
    """The store answered in its own form, with a code that this service does not know."""

    def __init__(self, code: str) -> None:
        super().__init__(f"The mapping store gave an unexpected answer ({code}).")


class StoreUserNotFound(StoreError):
    """The mapping's user does not exist, or no longer does, in a store that keeps the mapping with the user.

    Or does not exist yet: a directory learns of a new user everywhere only after a while, so it is worth repeating.
    """

    outcome: ClassVar[str] = "refused"
    repeatable: ClassVar[bool] = True

    def __init__(self) -> None:
        super().__init__("The user does not exist in the directory.")


class WritesRefused(StoreMisconfigured):
    """The store accepts no write at all until an operator changes something; this one was not carried out."""


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
        """Read the user's mapping, one in deletion included; `None` only when the store answered that there is none.

        Raises `MappingUnreadable`.
        """
        ...

    async def create(self, user: UserKey, acs_user_id: str, created_at: datetime | None = None) -> IdentityMapping:
        """Create the mapping if the user has none; `created_at` is now unless it is given.

        Raises `MappingExists` with what is there (also one in deletion), `MappingUnreadable`, `ExtensionLimitReached`.
        After `StoreUnavailable` the mapping may or may not exist; a repeated call with the same id is safe.
        """
        ...

    async def change(
        self, mapping: IdentityMapping, *, deleting: bool | None = None, signed_out_at: datetime | None = None
    ) -> IdentityMapping:
        """Change what is given, `None` leaves it as it is; the result carries the new version.

        A change that changes nothing is no write, and the version stays. Raises `MappingChanged` when the mapping is
        no longer as it was read, or gone.
        """
        ...

    async def remove(self, stored: IdentityMapping | UnreadableMapping) -> None:
        """Remove what was read; already gone is success. Raises `MappingChanged` when another version is there."""
        ...

    def mappings(self) -> AsyncIterator[IdentityMapping | UnreadableMapping]:
        """All mappings, those in deletion included, read page by page. For operators, never on the request path.

        What can't be read is yielded as such, and the iteration goes on. A step that raised `StoreThrottled` or
        `StoreUnavailable` may be repeated: the iteration goes on where it was and yields nothing twice (see
        `storage.paging`). A mapping that stays throughout is yielded exactly once; one that is created or removed
        meanwhile may be missing or present.
        """
        ...

    async def page(self, name: str | None) -> MappingPage:
        """One part of what `mappings` yields, for listings that outlive a process; `None` names the first one.

        Raises `ValueError` for a name that this store never gives.
        """
        ...

    async def ping(self) -> None:
        """Check that the store would answer a read, without writing."""
        ...

    async def aclose(self) -> None:
        """Release connections. The store can't be used afterwards."""
        ...
