"""Copies every mapping of one store into another: repeatable, never destructive, exact when it ends.

Every run reads the whole source and creates what the target lacks. Nothing else is remembered between runs, so a run
that was killed at any moment is resumed by the next one, and no note of where it stopped can be wrong. What that costs:
a second run reads all pages again, and asks the target once more (a refused create and a read) for each mapping that is
there already.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from enum import StrEnum

from storage.mapping import IdentityMapping, MappingExists, MappingStore, StoreUnavailable, UserKey
from upstream.errors import UpstreamError


class Outcome(StrEnum):
    """What became of one mapping of the source.

    created        it is in the target now, and was not before (in a dry run: it would be)
    already_there  the target held it
    conflicting    the target maps the user to another identity, which stays
    in_deletion    it is being deleted, in the source or in the target, and is not copied
    failed         the target did not take it; another run tries again
    """

    CREATED = "created"
    ALREADY_THERE = "already_there"
    CONFLICTING = "conflicting"
    IN_DELETION = "in_deletion"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Trouble:
    """A mapping that an operator has to look at. `user` is personal data: for the report file alone."""

    user: UserKey
    outcome: Outcome
    reason: str


@dataclass(slots=True)
class MigrationReport:
    """`read` mappings of the source, by what became of them. `stopped` says why not all were read, if so."""

    read: int = 0
    outcomes: Counter[Outcome] = field(default_factory=Counter)
    trouble: list[Trouble] = field(default_factory=list)
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
    """

    concurrency: int = 16
    dry_run: bool = False
    give_up_after: int = 50


async def migrate(
    source: MappingStore,
    target: MappingStore,
    options: MigrationOptions,
    progress: Callable[[MigrationReport], None] = lambda _: None,
) -> MigrationReport:
    """Copy; `progress` is told after every mapping. The stores repeat what may be repeated."""
    return await _Migration(source, target, options, progress).run()


_CREATE_ATTEMPTS = 5


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
        self._mappings = source.mappings()
        self._target = target
        self._options = options
        self._progress = progress
        self._reading = asyncio.Lock()
        self._failures_in_a_row = 0
        self._report = MigrationReport()

    async def run(self) -> MigrationReport:
        try:
            async with asyncio.TaskGroup() as workers:
                for _ in range(self._options.concurrency):
                    workers.create_task(self._work())
        except* _Stop as stops:
            self._report.stopped = str(stops.exceptions[0])
        return self._report

    async def _work(self) -> None:
        while (mapping := await self._next()) is not None:
            try:
                outcome, reason = await self._copy(mapping), "the target maps the user to another identity"
            except UpstreamError as error:
                outcome, reason = Outcome.FAILED, str(error)
            self._note(mapping, outcome, reason)
            if self._failures_in_a_row >= self._options.give_up_after:
                raise _Stop(f"{self._failures_in_a_row} mappings in a row failed, the last one so: {reason}")

    async def _next(self) -> IdentityMapping | None:
        async with self._reading:
            try:
                mapping = await anext(self._mappings, None)
            except UpstreamError as error:
                raise _Stop(f"The source can't be read: {error}") from error
            if mapping is not None:
                self._report.read += 1
            return mapping

    def _note(self, mapping: IdentityMapping, outcome: Outcome, reason: str) -> None:
        self._report.outcomes[outcome] += 1
        failed = outcome is Outcome.FAILED
        self._failures_in_a_row = self._failures_in_a_row + 1 if failed else 0
        if failed or outcome is Outcome.CONFLICTING:
            self._report.trouble.append(Trouble(mapping.user, outcome, reason))
        self._progress(self._report)

    async def _copy(self, mapping: IdentityMapping) -> Outcome:
        if mapping.deleting:
            return Outcome.IN_DELETION
        look: Callable[[IdentityMapping], Awaitable[IdentityMapping | None]]
        look = self._look if self._options.dry_run else self._create
        existing = await look(mapping)
        if existing is None:
            return Outcome.CREATED
        if existing.acs_user_id != mapping.acs_user_id:
            return Outcome.CONFLICTING
        return Outcome.IN_DELETION if existing.deleting else Outcome.ALREADY_THERE

    async def _look(self, mapping: IdentityMapping) -> IdentityMapping | None:
        return await self._target.get(mapping.user)

    async def _create(self, mapping: IdentityMapping) -> IdentityMapping | None:
        """Create the mapping in the target; what was there instead, if anything."""
        for attempt in range(_CREATE_ATTEMPTS):
            try:
                await self._target.create(mapping.user, mapping.acs_user_id)
            except MappingExists as conflict:
                ours = attempt > 0 and _same(conflict.existing, mapping)
                return None if ours else conflict.existing
            except StoreUnavailable:
                # Written or not: looking tells, and waits until the store answers again.
                existing = await self._target.get(mapping.user)
                if existing is not None:
                    return None if _same(existing, mapping) else existing
            else:
                return None
        raise StoreUnavailable


def _same(existing: IdentityMapping, mapping: IdentityMapping) -> bool:
    return existing.acs_user_id == mapping.acs_user_id and not existing.deleting
