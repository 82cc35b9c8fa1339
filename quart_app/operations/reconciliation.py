"""Compares every mapping with what ACS knows: finishes interrupted deletions, finds identities that can't be used.

ACS has no call that reads an identity. Only issuing an access token shows whether one exists, and whose it is. It
changes nothing for the user, whose other tokens stay valid. This module asks for the token with the least scope and the
shortest life, keeps it nowhere, and does not revoke it, because that would end the user's own tokens as well.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from quart_app.acs.interface import AcsClient, IdentityGone, IdentityNotOwned, UnexpectedAnswer
from quart_app.operations.departures import Departures, Standing
from quart_app.operations.identity_owners import IdentityOwners
from storage.mapping import IdentityMapping, MappingChanged, MappingStore, UnreadableMapping, UserKey
from upstream.errors import UpstreamError, told


class MappingState(StrEnum):
    """What a mapping was found to be.

    live             its identity exists in this ACS resource
    in_deletion      a deletion was started and not finished
    gone             its identity no longer exists in ACS
    other_resource   its identity belongs to another ACS resource
    departed         its user no longer exists in Entra ID
    restorable       its user was deleted in Entra ID less than 30 days ago and can be restored: it is kept
    shared           the store names its identity for another user as well: an operator must decide, nothing is done
    unreadable       what is stored is not a valid mapping: damaged, unsealed, or sealed for someone else
    unknown          it could not be checked; another run tries again
    """

    LIVE = "live"
    IN_DELETION = "in_deletion"
    GONE = "gone"
    OTHER_RESOURCE = "other_resource"
    DEPARTED = "departed"
    RESTORABLE = "restorable"
    SHARED = "shared"
    UNREADABLE = "unreadable"
    UNKNOWN = "unknown"


class Repair(StrEnum):
    """What was done about a mapping.

    removed  identity and mapping are deleted: the user's next request makes a new identity
    changed  somebody else changed the mapping since it was read, and it was left alone
    failed   it could not be done; another run tries again
    """

    REMOVED = "removed"
    CHANGED = "changed"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class ReconciliationEntry:
    """A mapping that an operator may have to look at. `user` and `key` are personal data: for the report file only.

    `key` is what the store calls something whose user can't be read.
    """

    user: UserKey | None
    state: MappingState
    repair: Repair | None
    reason: str | None
    key: str = ""


@dataclass(frozen=True, slots=True)
class ReconciliationTrouble:
    """Why mappings could not be listed, looked at or repaired: which upstream, as logs name it, and what it said."""

    upstream: str
    reason: str


@dataclass(slots=True)
class ReconciliationReport:
    """What was found and done.

    listed    how many mappings the store listed
    trouble   why mappings could not be listed, looked at or repaired, and how many of the listed ones
    stopped   why not all mappings were looked at, or why repairing was broken off
    unlisted  whether the store could not even be listed to its end, before anything was looked at
    refused   why nothing was repaired
    """

    states: Counter[MappingState] = field(default_factory=Counter)
    repairs: Counter[Repair] = field(default_factory=Counter)
    entries: list[ReconciliationEntry] = field(default_factory=list)
    listed: int = 0
    trouble: Counter[ReconciliationTrouble] = field(default_factory=Counter)
    stopped: str | None = None
    unlisted: bool = False
    refused: str | None = None

    @property
    def undecided(self) -> int:
        """About how many of the listed mappings nothing is known, because they could not be checked."""
        return self.mappings - (
            self.states.total() - self.states[MappingState.UNREADABLE] - self.states[MappingState.UNKNOWN]
        )

    @property
    def removable(self) -> int:
        """How many mappings a repair would remove, or has removed, because of their identities or users."""
        return sum(self.states[state] for state in _REMOVABLE)

    @property
    def clean(self) -> bool:
        """Whether every mapping is known to be in order now."""
        left = [
            entry
            for entry in self.entries
            if entry.repair is not Repair.REMOVED and entry.state is not MappingState.RESTORABLE
        ]
        return self.stopped is None and not left and not self.undecided

    @property
    def left(self) -> int:
        """How many mappings `--repair` would remove, that is those that this run found and did not."""
        mended = (Repair.REMOVED, Repair.CHANGED)
        return sum(each.state in _REMOVABLE and each.repair not in mended for each in self.entries)

    @property
    def partial(self) -> bool:
        """Whether something could not be checked or done."""
        left = self.undecided + self.states[MappingState.UNREADABLE] + self.states[MappingState.SHARED]
        return self.stopped is not None or left > 0 or self.repairs[Repair.FAILED] > 0

    @property
    def mappings(self) -> int:
        """How many mappings there are, as far as the store listed them."""
        return max(self.listed, self.states.total() - self.states[MappingState.UNREADABLE])


@dataclass(frozen=True, slots=True)
class ReconciliationOptions:
    """What to do.

    dry_run        change nothing; don't even finish what was started
    repair         also delete mappings whose identity is gone or another resource's, and those of departed users
    remove_up_to   remove as many, even if that is more than ten and more than a tenth of what was looked at
    concurrency    how many mappings are looked at or repaired at once
    give_up_after  so many failures in a row end the run, because then an upstream is at fault and not a mapping
    """

    dry_run: bool = False
    repair: bool = False
    remove_up_to: int | None = None
    concurrency: int = 8
    give_up_after: int = 10


async def reconcile(
    store: MappingStore,
    acs: AcsClient,
    options: ReconciliationOptions,
    prove_absence: Callable[[], Awaitable[None]],
    progress: Callable[[ReconciliationReport], None] = lambda _: None,
    departures: Departures | None = None,
) -> ReconciliationReport:
    """Look at every mapping first, then act; `progress` is called after each mapping and each repair.

    A run that failures stop changes nothing more: what it did not check stays undecided, and what it found, the next
    run finds again.

    `prove_absence` is called before the first removal and raises `AcsError` where ACS does not show what a deleted
    identity looks like (`ProvingAcsClient.prove`): then nothing is removed.

    `departures` is asked which users no longer exist in Entra ID; without it none is looked for.

    `acs` should issue tokens with the least scope and the shortest life (`open_acs_client`, `probing`).
    """
    return await _Reconciliation(store, acs, options, prove_absence, progress, departures).run()


class _Reconciliation:
    def __init__(
        self,
        store: MappingStore,
        acs: AcsClient,
        options: ReconciliationOptions,
        prove_absence: Callable[[], Awaitable[None]],
        progress: Callable[[ReconciliationReport], None],
        departures: Departures | None,
    ) -> None:
        self._store = store
        self._acs = acs
        self._options = options
        self._prove_absence = prove_absence
        self._progress = progress
        self._departures = departures
        self._reading = asyncio.Lock()
        self._found: list[tuple[IdentityMapping, MappingState, str | None]] = []
        self._owners = IdentityOwners()
        self._failures_in_a_row = 0
        self._report = ReconciliationReport()

    async def run(self) -> ReconciliationReport:
        await self._look_for_shared()
        mappings = self._store.mappings()

        async def look() -> None:
            while True:
                async with self._reading:
                    stored = None if self._report.stopped else await self._next(mappings)
                if stored is None:
                    return
                if isinstance(stored, UnreadableMapping):
                    self._note_unreadable(stored)
                else:
                    await self._look(stored)

        await self._together(look)
        chosen = await self._chosen()
        waiting = iter(self._found)

        async def act() -> None:
            for mapping, state, reason in waiting:
                repair = None
                if state in chosen and self._report.stopped is None:
                    repair, reason = await self._remove(mapping)
                    self._report.repairs[repair] += 1
                self._report.entries.append(ReconciliationEntry(mapping.user, state, repair, reason))
                self._progress(self._report)

        await self._together(act)
        return self._report

    async def _together(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        async with asyncio.TaskGroup() as workers:
            for _ in range(self._options.concurrency):
                workers.create_task(work())

    async def _look_for_shared(self) -> None:
        listing = self._store.mappings()
        while self._report.stopped is None and (stored := await self._next(listing)) is not None:
            self._report.listed += isinstance(stored, IdentityMapping)
            self._owners.add(stored)
            if self._departures is not None and isinstance(stored, IdentityMapping):
                await self._departures.add(stored)
        self._report.unlisted = self._report.stopped is not None
        if self._departures is not None and not self._report.unlisted:
            await self._departures.finish()

    async def _next(
        self, listing: AsyncIterator[IdentityMapping | UnreadableMapping]
    ) -> IdentityMapping | UnreadableMapping | None:
        try:
            return await anext(listing, None)
        except UpstreamError as error:
            self._report.trouble[ReconciliationTrouble(error.upstream, told(error))] += 0
            self._report.stopped = f"The store can't be read to the end: {told(error)}"
            return None

    def _note_unreadable(self, stored: UnreadableMapping) -> None:
        self._report.states[MappingState.UNREADABLE] += 1
        self._report.entries.append(
            ReconciliationEntry(stored.user, MappingState.UNREADABLE, None, str(stored), stored.key)
        )
        self._progress(self._report)

    async def _look(self, mapping: IdentityMapping) -> None:
        state, reason = await self._state(mapping)
        self._report.states[state] += 1
        if state is not MappingState.LIVE:
            self._found.append((mapping, state, reason))
        self._progress(self._report)

    async def _state(self, mapping: IdentityMapping) -> tuple[MappingState, str | None]:
        if self._owners.is_shared(mapping.acs_user_id):
            return MappingState.SHARED, "the store names its identity for another user as well"
        if mapping.deleting:
            return MappingState.IN_DELETION, None
        standing, why = (self._departures and self._departures.standing(mapping.user)) or (None, None)
        if standing is Standing.DEPARTED:
            return MappingState.DEPARTED, why
        try:
            await self._acs.issue_token(mapping.acs_user_id)
        except IdentityGone:
            self._failures_in_a_row = 0
            return MappingState.GONE, None
        except IdentityNotOwned:
            self._failures_in_a_row = 0
            return MappingState.OTHER_RESOURCE, None
        except UpstreamError as error:
            self._failed(error)
            return MappingState.UNKNOWN, str(error)
        self._failures_in_a_row = 0
        match standing:
            case Standing.RESTORABLE:
                return MappingState.RESTORABLE, why
            case Standing.UNDECIDED:
                self._report.trouble[ReconciliationTrouble("directory", why or "")] += 1
                return MappingState.UNKNOWN, why
        return MappingState.LIVE, None

    def _failed(self, error: UpstreamError) -> None:
        """Count it, and end the run after nothing but failures for a while."""
        reason = told(error)
        self._report.trouble[ReconciliationTrouble(error.upstream, reason)] += 1
        if isinstance(error, UnexpectedAnswer):
            return  # it may be about this one identity, whereas the others say that an upstream is out
        self._failures_in_a_row += 1
        if self._failures_in_a_row >= self._options.give_up_after and self._report.stopped is None:
            failures = self._failures_in_a_row
            self._report.stopped = f"{failures} mappings in a row failed, the last one like this: {reason}"

    async def _chosen(self) -> frozenset[MappingState]:
        if self._options.dry_run or self._report.stopped is not None:
            return frozenset()
        unfinished, removable = frozenset({MappingState.IN_DELETION}), self._report.removable
        if not self._options.repair or not removable:
            return unfinished
        looked_at, allowed = self._report.states.total(), self._options.remove_up_to
        if removable > max(_FEW, looked_at * _SHARE) and (allowed is None or removable > allowed):
            self._report.refused = (
                f"{removable} of {looked_at} mappings would be removed. So many suggest wrong settings (another ACS "
                "resource, another tenant) rather than lost identities and users, so nothing was repaired. If it is "
                f"right, pass --remove-up-to {removable}."
            )
            return frozenset()
        try:
            await self._prove_absence()
        except UpstreamError as error:
            self._report.refused = f"{told(error)} Nothing was repaired."
            return frozenset()
        return unfinished | _REMOVABLE

    async def _remove(self, mapping: IdentityMapping) -> tuple[Repair, str | None]:
        """Delete the very mapping that was looked at, in the three steps of every deletion."""
        try:
            marked = mapping if mapping.deleting else await self._store.change(mapping, deleting=True)
            with suppress(IdentityNotOwned):  # the other resource keeps its identity
                await self._acs.delete_identity(marked.acs_user_id)
            await self._store.remove(marked)
        except MappingChanged:
            return Repair.CHANGED, None
        except UpstreamError as error:
            self._failed(error)
            return Repair.FAILED, str(error)
        self._failures_in_a_row = 0
        return Repair.REMOVED, None


_FEW, _SHARE = 10, 0.1
_REMOVABLE = frozenset({MappingState.GONE, MappingState.OTHER_RESOURCE, MappingState.DEPARTED})
