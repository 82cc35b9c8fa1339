"""Copies every mapping of one store into another: repeatable, never destructive, exact when it ends.

Every run reads both stores first, to find identities that two users have, and then the source again, to create
what the target lacks. It remembers nothing between runs, so the next run resumes one that was killed at any moment, and
no note of where it stopped can be wrong. The price: a second run reads all pages again, and asks the target once more
for each mapping.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from enum import StrEnum

from tenacity.wait import wait_random_exponential

from quart_app.operations.identity_owners import IdentityOwners
from storage.mapping import (
    IdentityMapping,
    MappingExists,
    MappingStore,
    MappingUnreadable,
    StoreUnavailable,
    UnreadableMapping,
    UserKey,
)
from upstream.errors import UpstreamError, told
from upstream.retrying import RetryPolicy


class MigrationOutcome(StrEnum):
    """What happened to one mapping of the source.

    created        it is in the target now, and was not before (in a dry run: it would be)
    already_there  the target held it
    conflicting    the target maps the user to another identity, which stays
    in_deletion    it is being deleted, in the source or in the target, and is not copied
    shared         the source or the target maps another user to the same identity; it is not copied
    unreadable     what the source or the target holds is not a valid mapping, and is not copied
    failed         the target did not take it; another run tries again
    """

    CREATED = "created"
    ALREADY_THERE = "already_there"
    CONFLICTING = "conflicting"
    IN_DELETION = "in_deletion"
    SHARED = "shared"
    UNREADABLE = "unreadable"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class MigrationTrouble:
    """A mapping that an operator has to look at. `user` and `key` are personal data: for the report file only.

    `key` is what the source calls something whose user can't be read.
    """

    user: UserKey | None
    outcome: MigrationOutcome
    reason: str
    key: str = ""


@dataclass(slots=True)
class MigrationReport:
    """`read` mappings of the source, by what happened to them. `stopped` says why not all were read, if so."""

    read: int = 0
    outcomes: Counter[MigrationOutcome] = field(default_factory=Counter)
    trouble: list[MigrationTrouble] = field(default_factory=list)
    stopped: str | None = None

    @property
    def complete(self) -> bool:
        """Whether the target holds every mapping of the source that is not being deleted."""
        return self.stopped is None and not self.trouble


@dataclass(frozen=True, slots=True)
class MigrationOptions:
    """How to migrate.

    concurrency    how many mappings are on their way at once
    dry_run        only read
    give_up_after  so many failures in a row end the run: the target is broken rather than the mapping
    retry          how often a mapping is written when writes get no answer though reads do, and after which waits
    """

    concurrency: int = 16
    dry_run: bool = False
    give_up_after: int = 50
    retry: RetryPolicy = field(
        default_factory=lambda: RetryPolicy(attempts=5, back_off=wait_random_exponential(multiplier=0.2, max=20.0))
    )


async def migrate(
    source: MappingStore,
    target: MappingStore,
    options: MigrationOptions,
    progress: Callable[[MigrationReport], None] = lambda _: None,
) -> MigrationReport:
    """Copy; `progress` is called after every mapping. The stores repeat what may be repeated."""
    return await _Migration(source, target, options, progress).run()


_REASONS = {
    MigrationOutcome.CONFLICTING: "the target maps the user to another identity",
    MigrationOutcome.SHARED: "the source or the target maps another user to the same identity",
}


class _Stop(Exception):
    """The run can't go on; the message says why."""


class _Migration:
    def __init__(
        self,
        source: MappingStore,
        target: MappingStore,
        options: MigrationOptions,
        progress: Callable[[MigrationReport], None],
    ) -> None:
        self._source = source
        self._owners = IdentityOwners()
        self._target = target
        self._options = options
        self._progress = progress
        self._reading = asyncio.Lock()
        self._failures_in_a_row = 0
        self._report = MigrationReport()

    async def run(self) -> MigrationReport:
        try:
            await self._look_for_shared()
            self._mappings = self._source.mappings()
            async with asyncio.TaskGroup() as workers:
                for _ in range(self._options.concurrency):
                    workers.create_task(self._work())
        except* _Stop as stops:
            self._report.stopped = str(stops.exceptions[0])
        return self._report

    async def _look_for_shared(self) -> None:
        for store, name in ((self._source, "source"), (self._target, "target")):
            listing = store.mappings()
            while (stored := await self._step(listing, name)) is not None:
                self._owners.add(stored)

    async def _work(self) -> None:
        while (stored := await self._next()) is not None:
            if isinstance(stored, UnreadableMapping):
                self._note(stored, MigrationOutcome.UNREADABLE, str(stored))
                continue
            mapping = stored
            try:
                outcome = await self._copy(mapping)
                reason = _REASONS.get(outcome, "")
            except MappingUnreadable as error:
                outcome, reason = MigrationOutcome.UNREADABLE, f"in the target: {error.unreadable}"
            except UpstreamError as error:
                outcome, reason = MigrationOutcome.FAILED, told(error)
            self._note(mapping, outcome, reason)
            if self._failures_in_a_row >= self._options.give_up_after:
                raise _Stop(f"{self._failures_in_a_row} mappings in a row failed, the last one like this: {reason}")

    async def _next(self) -> IdentityMapping | UnreadableMapping | None:
        async with self._reading:
            stored = await self._step(self._mappings, "source")
            if isinstance(stored, IdentityMapping):
                self._report.read += 1
            return stored

    async def _step(
        self, listing: AsyncIterator[IdentityMapping | UnreadableMapping], store: str
    ) -> IdentityMapping | UnreadableMapping | None:
        try:
            return await anext(listing, None)
        except UpstreamError as error:
            raise _Stop(f"The {store} can't be read: {told(error)}") from error

    def _note(self, stored: IdentityMapping | UnreadableMapping, outcome: MigrationOutcome, reason: str) -> None:
        self._report.outcomes[outcome] += 1
        failed = outcome is MigrationOutcome.FAILED
        self._failures_in_a_row = self._failures_in_a_row + 1 if failed else 0
        if failed or outcome in _REASONS or outcome is MigrationOutcome.UNREADABLE:
            key = stored.key if isinstance(stored, UnreadableMapping) else ""
            self._report.trouble.append(MigrationTrouble(stored.user, outcome, reason, key))
        self._progress(self._report)

    async def _copy(self, mapping: IdentityMapping) -> MigrationOutcome:
        if self._owners.is_shared(mapping.acs_user_id):
            return MigrationOutcome.SHARED
        if mapping.deleting:
            return MigrationOutcome.IN_DELETION
        look: Callable[[IdentityMapping], Awaitable[IdentityMapping | None]]
        look = self._look if self._options.dry_run else self._create
        existing = await look(mapping)
        if existing is None:
            return MigrationOutcome.CREATED
        if existing.acs_user_id != mapping.acs_user_id:
            return MigrationOutcome.CONFLICTING
        return MigrationOutcome.IN_DELETION if existing.deleting else MigrationOutcome.ALREADY_THERE

    async def _look(self, mapping: IdentityMapping) -> IdentityMapping | None:
        return await self._target.get(mapping.user)

    async def _create(self, mapping: IdentityMapping) -> IdentityMapping | None:
        """Create the mapping in the target; what was there instead, if anything.

        Looking comes first: only then can a mapping that was there be distinguished from one written by a call whose
        answer was lost.
        """
        if (existing := await self._target.get(mapping.user)) is not None:
            return existing
        unsettled: list[StoreUnavailable] = []

        async def attempt() -> IdentityMapping | None:
            try:
                await self._target.create(mapping.user, mapping.acs_user_id, mapping.created_at)
            except MappingExists as conflict:
                return None if unsettled and _same(conflict.existing, mapping) else conflict.existing
            except StoreUnavailable as error:
                # Written or not: looking tells, and waits until the store answers again.
                if (written := await self._target.get(mapping.user)) is not None:
                    return None if _same(written, mapping) else written
                unsettled.append(error)
                raise
            return None

        return await self._options.retry.call(attempt, lambda error: error in unsettled)


def _same(existing: IdentityMapping, mapping: IdentityMapping) -> bool:
    return existing.acs_user_id == mapping.acs_user_id and not existing.deleting
