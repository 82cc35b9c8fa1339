"""Seals the mappings that Microsoft Graph holds: those of Microsoft's samples, and those sealed by an older key.

A seal says that an identity is this user's, and nothing proves that of a mapping without one. So everything is listed
before anything is sealed. If two users have the same identity, neither mapping is sealed: an operator decides.
"""

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from quart_app.auth.on_behalf_of.errors import OnBehalfOfError
from quart_app.operations.identity_owners import IdentityOwners
from storage import values
from storage.graph_extensions import IDENTITY, SEAL, StoredExtension
from storage.mapping import MappingChanged, StoreError, UserKey
from storage.seal import Seals, SealVerdict, key_id_of
from upstream.errors import is_transient
from upstream.retrying import RetryPolicy


class SealingOutcome(StrEnum):
    """What happened to one extension.

    sealed        it had no seal and has one now (in a dry run: it would have)
    renewed       it was sealed by an older key and is sealed by the first one now
    already       it was sealed, and stays so
    shared        it has no seal, and another user has its identity as well: an operator decides (`--user`)
    foreign_seal  its seal is not for this user and this identity
    key_not_held  it is sealed by a key that is not among the keys
    damaged       it holds no ACS user id
    refused       no application may change this user: the user sends the request in `SealingEntry.request`
    changed       somebody changed it meanwhile; another run tries again
    failed        Graph did not take it; another run tries again
    """

    SEALED = "sealed"
    RENEWED = "renewed"
    ALREADY = "already"
    SHARED = "shared"
    FOREIGN_SEAL = "foreign_seal"
    KEY_NOT_HELD = "key_not_held"
    DAMAGED = "damaged"
    REFUSED = "refused"
    CHANGED = "changed"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class SealingEntry:
    """An extension that an operator has to look at. All of it is personal data: for the report file.

    `request` is what the user sends to Graph who must seal the mapping in the application's place.
    """

    user: UserKey
    outcome: SealingOutcome
    reason: str = ""
    request: dict[str, Any] | None = None


@dataclass(slots=True)
class SealingReport:
    """What was done. `keys` counts valid seals by key id, as they are afterwards; `stopped` says why none was made."""

    outcomes: Counter[SealingOutcome] = field(default_factory=Counter)
    keys: Counter[str] = field(default_factory=Counter)
    keys_not_held: Counter[str] = field(default_factory=Counter)
    entries: list[SealingEntry] = field(default_factory=list)
    stopped: str | None = None

    @property
    def complete(self) -> bool:
        """Whether every mapping has a valid seal now."""
        return self.stopped is None and not self.entries


@dataclass(frozen=True, slots=True)
class SealingOptions:
    """What to do.

    renew    also seal again, with the first key, what has a valid seal of an older one
    dry_run  change nothing
    """

    renew: bool = False
    dry_run: bool = False


class Extensions(Protocol):
    """What `storage.graph.GraphMappingStore` offers for sealing."""

    def extensions(self) -> AsyncIterator[StoredExtension]:
        """All of them."""
        ...

    async def extension(self, user: UserKey) -> StoredExtension | None:
        """One user's."""
        ...

    async def seal(self, stored: StoredExtension) -> None:
        """Seal one. Raises `MappingChanged`, `UserNotChangeable`."""
        ...

    def sealing_request(self, stored: StoredExtension) -> dict[str, Any]:
        """The request by which the user seals it."""
        ...


async def seal_all(
    extensions: Extensions, seals: Seals, options: SealingOptions, retry: RetryPolicy, refusal: type[StoreError]
) -> SealingReport:
    """List everything, then seal. `refusal` is what `seal` raises for a user whom no application may change."""
    return await _Sealing(extensions, seals, options, retry, refusal).run()


async def seal_one(
    extensions: Extensions,
    seals: Seals,
    user: UserKey,
    options: SealingOptions,
    retry: RetryPolicy,
    refusal: type[StoreError],
) -> SealingReport | None:
    """Seal one user's mapping because an operator has decided that it is this user's; `None` if there is none.

    Raises `StoreError`, `OnBehalfOfError`.
    """
    return await _Sealing(extensions, seals, options, retry, refusal).run_for(user)


class _Sealing:
    def __init__(
        self,
        extensions: Extensions,
        seals: Seals,
        options: SealingOptions,
        retry: RetryPolicy,
        refusal: type[StoreError],
    ) -> None:
        self._extensions = extensions
        self._seals = seals
        self._options = options
        self._retry = retry
        self._refusal = refusal
        self._report = SealingReport()

    async def run(self) -> SealingReport:
        chosen: list[tuple[StoredExtension, SealingOutcome]] = []
        owners = IdentityOwners()
        listing = self._extensions.extensions()
        try:
            while (stored := await self._patiently(lambda: anext(listing, None))) is not None:
                outcome = self._look(stored)
                if identity := _identity(stored):
                    owners.add_identity(identity, stored.user)
                if outcome is not None:
                    chosen.append((stored, outcome))
        except (StoreError, OnBehalfOfError) as error:
            # Without the whole list it is not known which identities two users have.
            self._report.stopped = f"Microsoft Graph can't be read: {error}"
            return self._report
        for stored, outcome in chosen:
            if outcome is SealingOutcome.SEALED and owners.is_shared(str(stored.properties[IDENTITY])):
                self._note(stored, SealingOutcome.SHARED, "another user has the same identity")
            else:
                await self._seal(stored, outcome)
        return self._report

    async def run_for(self, user: UserKey) -> SealingReport | None:
        stored = await self._patiently(lambda: self._extensions.extension(user))
        if stored is None:
            return None
        identity = _identity(stored)
        if identity is None:
            self._note(stored, SealingOutcome.DAMAGED, "it holds no ACS user id")
        elif self._seals.verify(stored.properties.get(SEAL), user, identity) is SealVerdict.GOOD:
            if (outcome := self._look(stored)) is not None:
                await self._seal(stored, outcome)
        else:
            await self._seal(stored, SealingOutcome.SEALED)
        return self._report

    def _look(self, stored: StoredExtension) -> SealingOutcome | None:
        """What is to be done about it; `None` if nothing is, and then it is noted."""
        identity, seal = _identity(stored), stored.properties.get(SEAL)
        if identity is None:
            self._note(stored, SealingOutcome.DAMAGED, "it holds no ACS user id")
            return None
        if SEAL not in stored.properties:
            return SealingOutcome.SEALED
        key = str(key_id_of(seal))
        match self._seals.verify(seal, stored.user, identity):
            case SealVerdict.FOREIGN:
                self._note(stored, SealingOutcome.FOREIGN_SEAL, "its seal is not for this user and this identity")
                return None
            case SealVerdict.KEY_NOT_HELD:
                self._report.keys_not_held[key] += 1
                self._note(
                    stored, SealingOutcome.KEY_NOT_HELD, f"it is sealed by the key {key}, which is not among the keys"
                )
                return None
        if self._options.renew and key != self._seals.key_id:
            return SealingOutcome.RENEWED
        self._report.outcomes[SealingOutcome.ALREADY] += 1
        self._report.keys[key] += 1
        return None

    async def _seal(self, stored: StoredExtension, outcome: SealingOutcome) -> None:
        before = key_id_of(stored.properties.get(SEAL)) if outcome is SealingOutcome.RENEWED else None
        try:
            if not self._options.dry_run:
                await self._patiently(lambda: self._extensions.seal(stored))
        except self._refusal:
            request = self._extensions.sealing_request(stored)
            self._note(stored, SealingOutcome.REFUSED, "no application may change this user", request)
        except MappingChanged:
            self._note(stored, SealingOutcome.CHANGED, "it was changed meanwhile")
        except (StoreError, OnBehalfOfError) as error:
            self._note(stored, SealingOutcome.FAILED, str(error))
        else:
            self._report.outcomes[outcome] += 1
            self._report.keys[self._seals.key_id] += 1
            return
        if before is not None:
            self._report.keys[before] += 1

    def _note(
        self, stored: StoredExtension, outcome: SealingOutcome, reason: str, request: dict[str, Any] | None = None
    ) -> None:
        self._report.outcomes[outcome] += 1
        self._report.entries.append(SealingEntry(stored.user, outcome, reason, request))

    async def _patiently(self, call: Callable[[], Awaitable[Any]]) -> Any:
        return await self._retry.call(call, is_transient)


def _identity(stored: StoredExtension) -> str | None:
    try:
        return values.acs_user_id(stored.properties.get(IDENTITY))
    except values.NoSuchValue:
        return None
