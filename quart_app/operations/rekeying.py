"""Moves mappings to users of another issuer, for those who change their identity provider: repeatable, 1:1 kept.

Each move is create, then remove: both keys of one person have the identity first, and then only the new one. So no
moment loses an identity, and the next run finishes one that was killed: if both keys of a pair have a mapping, the move
is half done. The service must not answer callers of the old issuer meanwhile. If an old mapping goes away during the
move, another run moved it, or it was deleted: ACS knows which.
"""

import asyncio
import csv
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from quart_app.acs.interface import AcsClient, IdentityGone, IdentityNotOwned
from quart_app.operations.identity_owners import IdentityOwners
from storage.mapping import (
    IdentityMapping,
    MappingChanged,
    MappingExists,
    MappingStore,
    MappingUnreadable,
    StoreUnavailable,
    UnreadableMapping,
    UserKey,
)
from upstream.errors import UpstreamError

COLUMNS = ("old_subject", "new_subject")


class Move(StrEnum):
    """What happened to one pair.

    moved        the new user has the mapping now, and the old one none (in a dry run: it would be so)
    moved_before  an earlier run did that, or another one just now
    absent       neither user has a mapping
    conflicting  the new user has another identity, and both stay as they are
    in_deletion  one of the two mappings is being deleted: `acs-auth reconcile` finishes that
    shared       somebody else has the same identity as well
    unreadable   what is stored for one of the two is not a valid mapping
    changed      somebody else changed the mapping meanwhile
    failed       the store did not take it; another run tries again
    """

    MOVED = "moved"
    MOVED_BEFORE = "moved_before"
    ABSENT = "absent"
    CONFLICTING = "conflicting"
    IN_DELETION = "in_deletion"
    SHARED = "shared"
    UNREADABLE = "unreadable"
    CHANGED = "changed"
    FAILED = "failed"


DONE = frozenset({Move.MOVED, Move.MOVED_BEFORE, Move.ABSENT})


class UnusablePairs(Exception):
    """The file is not a list of old and new subjects; `faults` are sentences, without subjects."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("The pairs can't be used.")
        self.faults = faults


def read_pairs(lines: Iterable[str], normal: Callable[[str], str] = str) -> dict[str, str]:
    """The new subject of each old one, of a CSV file with the header `old_subject,new_subject`.

    `normal` gives a subject the form in which it is stored; it raises `ValueError` for what is not one. Raises
    `UnusablePairs`: each subject must occur once in its column, because one user has one identity.
    """
    rows = csv.reader(lines)
    if tuple(next(rows, ())) != COLUMNS:
        raise UnusablePairs([f"The first line must be {','.join(COLUMNS)}."])
    pairs: dict[str, str] = {}
    new_ones: set[str] = set()
    faults = []
    for row in rows:
        if not row:
            continue
        try:
            old, new = (normal(subject) for subject in row)
        except ValueError:
            faults.append(f"Line {rows.line_num} does not hold an old and a new subject.")
            continue
        if old in pairs or new in new_ones:
            faults.append(f"Line {rows.line_num} names a subject that an earlier line names.")
        pairs[old] = new
        new_ones.add(new)
    if faults:
        raise UnusablePairs(faults)
    return pairs


@dataclass(frozen=True, slots=True)
class MoveTrouble:
    """A pair that an operator has to look at. `old` is personal data: for the report file only."""

    old: UserKey
    move: Move
    reason: str


@dataclass(slots=True)
class RekeyReport:
    """What happened to the pairs. `stopped` says why not all were checked, if so."""

    moves: Counter[Move] = field(default_factory=Counter)
    trouble: list[MoveTrouble] = field(default_factory=list)
    stopped: str | None = None

    @property
    def complete(self) -> bool:
        """Whether nothing is left to do."""
        return self.stopped is None and not self.trouble


@dataclass(frozen=True, slots=True)
class RekeyOptions:
    """What to move.

    from_issuer, to_issuer  as mappings name them; they differ
    pairs                   the new subject of each old one
    dry_run                 only read
    concurrency             how many pairs are processed at once
    give_up_after           so many failures in a row end the run
    """

    from_issuer: str
    to_issuer: str
    pairs: Mapping[str, str]
    dry_run: bool = False
    concurrency: int = 16
    give_up_after: int = 50


async def rekey(
    store: MappingStore,
    acs: AcsClient,
    options: RekeyOptions,
    progress: Callable[[RekeyReport], None] = lambda _: None,
) -> RekeyReport:
    """Move; `progress` is called after every pair. Store and client repeat what may be repeated."""
    return await _Rekeying(store, acs, options, progress).run()


class _Rekeying:
    def __init__(
        self, store: MappingStore, acs: AcsClient, options: RekeyOptions, progress: Callable[[RekeyReport], None]
    ) -> None:
        self._store = store
        self._acs = acs
        self._options = options
        self._progress = progress
        self._owners = IdentityOwners()
        self._report = RekeyReport()
        self._failures_in_a_row = 0

    async def run(self) -> RekeyReport:
        try:
            async for stored in self._store.mappings():
                self._note_owner(stored)
        except UpstreamError as error:
            self._report.stopped = f"The store can't be read: {error}"
            return self._report
        pairs = iter(self._options.pairs.items())
        async with asyncio.TaskGroup() as workers:
            for _ in range(self._options.concurrency):
                workers.create_task(self._work(pairs))
        return self._report

    def _note_owner(self, stored: IdentityMapping | UnreadableMapping) -> None:
        """Both keys of a pair are one person."""
        user, identity = stored.user, stored.acs_user_id
        if user is None or identity is None:
            return
        new = self._options.pairs.get(user.subject) if user.issuer == self._options.from_issuer else None
        self._owners.add_identity(identity, user if new is None else UserKey(self._options.to_issuer, new))

    async def _work(self, pairs: Iterator[tuple[str, str]]) -> None:
        for old_subject, new_subject in pairs:
            if self._report.stopped is not None:
                return
            old, new = UserKey(self._options.from_issuer, old_subject), UserKey(self._options.to_issuer, new_subject)
            try:
                move, reason = await self._move(old, new), ""
            except MappingUnreadable as error:
                move, reason = Move.UNREADABLE, str(error.unreadable)
            except MappingChanged as error:
                move, reason = Move.CHANGED, str(error)
            except UpstreamError as error:
                move, reason = Move.FAILED, str(error)
            self._note(old, move, reason)

    def _note(self, old: UserKey, move: Move, reason: str) -> None:
        self._report.moves[move] += 1
        if move not in DONE:
            self._report.trouble.append(MoveTrouble(old, move, reason or _REASONS[move]))
        self._failures_in_a_row = self._failures_in_a_row + 1 if move is Move.FAILED else 0
        if self._failures_in_a_row >= self._options.give_up_after:
            self._report.stopped = f"{self._failures_in_a_row} pairs in a row failed, the last one like this: {reason}"
        self._progress(self._report)

    async def _move(self, old: UserKey, new: UserKey) -> Move:
        mapping, there = await self._store.get(old), await self._store.get(new)
        if mapping is None:
            return Move.ABSENT if there is None else Move.MOVED_BEFORE
        if mapping.deleting or (there is not None and there.deleting):
            return Move.IN_DELETION
        if there is not None and there.acs_user_id != mapping.acs_user_id:
            return Move.CONFLICTING
        if self._owners.is_shared(mapping.acs_user_id):
            return Move.SHARED
        if self._options.dry_run:
            return Move.MOVED
        if there is None:
            there = await self._create(new, mapping)
            if there.acs_user_id != mapping.acs_user_id:
                return Move.CONFLICTING
        if mapping.signed_out_at is not None and there.signed_out_at != mapping.signed_out_at:
            there = await self._store.change(there, signed_out_at=mapping.signed_out_at)
        return await self._take_from(mapping, there)

    async def _create(self, new: UserKey, mapping: IdentityMapping) -> IdentityMapping:
        try:
            return await self._store.create(new, mapping.acs_user_id, mapping.created_at)
        except MappingExists as conflict:
            return conflict.existing
        except StoreUnavailable:
            # Written or not: looking tells. If not, another run tries again.
            if (written := await self._store.get(new)) is None:
                raise
            return written

    async def _take_from(self, mapping: IdentityMapping, there: IdentityMapping) -> Move:
        """Remove the old mapping; if its user began to delete it meanwhile, take the new one back instead."""
        current = await self._store.get(mapping.user)
        if current is not None and current.version == mapping.version:
            await self._store.remove(mapping)
            return Move.MOVED
        if current is None and await self._lives(mapping.acs_user_id):
            return Move.MOVED_BEFORE
        await self._store.remove(there)
        return Move.CHANGED

    async def _lives(self, acs_user_id: str) -> bool:
        """Whether the identity was not deleted with its old mapping."""
        try:
            await self._acs.issue_token(acs_user_id)
        except IdentityGone:
            return False
        except IdentityNotOwned:
            return True  # so this service has not deleted it
        return True


_REASONS = {
    Move.CONFLICTING: "the new user has another identity",
    Move.IN_DELETION: "a deletion was started and not finished",
    Move.SHARED: "the store names the identity for another user as well",
    Move.CHANGED: "somebody else changed the mapping meanwhile",
}
