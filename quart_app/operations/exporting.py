"""Writes every mapping of a store, page by page, so that a store of any size needs no more memory than a page.

The form `graph-chat` is the file of identities that Microsoft's guide to its chat migration asks for:
https://learn.microsoft.com/azure/communication-services/acs-chat-to-graph-chat-migration-guide, step 4.
"""

import csv
import io
import json
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from storage.mapping import IdentityMapping, MappingPage, UnreadableMapping, UserKey

LookUp = Callable[[Sequence[UserKey]], Awaitable[frozenset[UserKey]]]
"""Which of these users are known to exist in Entra ID."""


class ExportFormat(StrEnum):
    """How mappings are written.

    csv         a header and one line for each, in the columns of `CSV_COLUMNS`
    jsonl       one JSON object for each, on a separate line
    graph-chat  the file of identities that Microsoft's chat migration asks for
    """

    CSV = "csv"
    JSON_LINES = "jsonl"
    GRAPH_CHAT = "graph-chat"


CSV_COLUMNS = (
    "issuer",
    "subject",
    "acs_user_id",
    "created_at",
    "deleting",
    "signed_out_at",
    "unreadable",
    "stored_as",
)
GRAPH_CHAT_COLUMNS = ("acs_user_id", "entra_object_id", "target_tenant_id", "status", "decision_owner")


@dataclass(slots=True)
class ExportCounts:
    """How many mappings were written, and what about them. `left_out` are not in the file, which has no place for them.

    unreadable  what can't be read as a mapping; graph-chat leaves them out
    left_out    graph-chat: those in deletion
    unresolved  graph-chat: those whose user was not found in Entra ID, or not looked up
    """

    mappings: int = 0
    unreadable: int = 0
    left_out: int = 0
    unresolved: int = 0


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """What to write.

    decision_owner  graph-chat: who decides about these users, for the column of that name
    look_up         graph-chat: looks users up in Entra ID; without it every user is `unresolved`
    """

    form: ExportFormat
    decision_owner: str = ""
    look_up: LookUp | None = None


@dataclass(frozen=True, slots=True)
class ExportProgress:
    """How far an export has come: the store's name of the next page, and what was counted. `None` is the beginning."""

    following: str | None = field(default=None, repr=False)
    counts: ExportCounts = field(default_factory=ExportCounts)


class Destination(Protocol):
    """Where an export goes."""

    @property
    def progress(self) -> ExportProgress:
        """How far an earlier run has come."""
        ...

    async def write(self, text: str) -> None:
        """Add text."""
        ...

    async def reached(self, progress: ExportProgress) -> None:
        """Everything up to here was written: another run may continue here."""
        ...

    async def finish(self) -> None:
        """Everything was written."""
        ...


class PagedStore(Protocol):
    """The part of `MappingStore` that an export needs."""

    async def page(self, name: str | None) -> MappingPage:
        """See `MappingStore.page`."""
        ...


async def export_all(store: PagedStore, destination: Destination, options: ExportOptions) -> ExportCounts:
    """Write what is stored, from where the destination's earlier run has come to. Raises what the store raises."""
    following, counts = destination.progress.following, destination.progress.counts
    if following is None:
        await destination.write(_header(options.form))
    while True:
        page = await store.page(following)
        await destination.write(await _written(page.stored, options, counts))
        following = page.following
        if following is None:
            await destination.finish()
            return counts
        await destination.reached(ExportProgress(following, counts))


def _header(form: ExportFormat) -> str:
    columns = {ExportFormat.CSV: CSV_COLUMNS, ExportFormat.GRAPH_CHAT: GRAPH_CHAT_COLUMNS}.get(form)
    return "" if columns is None else _lines([columns])


async def _written(
    stored: Sequence[IdentityMapping | UnreadableMapping], options: ExportOptions, counts: ExportCounts
) -> str:
    mappings = [each for each in stored if isinstance(each, IdentityMapping)]
    counts.unreadable += len(stored) - len(mappings)
    if options.form is ExportFormat.GRAPH_CHAT:
        kept = [each for each in mappings if not each.deleting]
        counts.left_out += len(mappings) - len(kept)
        counts.mappings += len(kept)
        return _lines(await _graph_chat_rows(kept, options, counts))
    counts.mappings += len(mappings)
    if options.form is ExportFormat.CSV:
        return _lines(map(_csv_row, stored))
    return "".join(json.dumps(_described(each)) + "\n" for each in stored)


async def _graph_chat_rows(
    mappings: Sequence[IdentityMapping], options: ExportOptions, counts: ExportCounts
) -> list[tuple[str, ...]]:
    of_entra = [each.user for each in mappings if not _is_address(each.user.issuer)]
    existing = await options.look_up(of_entra) if options.look_up and of_entra else frozenset()
    rows: list[tuple[str, ...]] = []
    for each in mappings:
        found = each.user in existing
        counts.unresolved += not found
        # Who signs in elsewhere, or was looked up and not found, has no target.
        has_target = found or (options.look_up is None and not _is_address(each.user.issuer))
        target = (each.user.subject, each.user.issuer) if has_target else ("", "")
        rows.append((each.acs_user_id, *target, "mapped" if found else "unresolved", options.decision_owner))
    return rows


def _is_address(issuer: str) -> bool:
    return "://" in issuer


def _csv_row(stored: IdentityMapping | UnreadableMapping) -> tuple[str, ...]:
    if isinstance(stored, UnreadableMapping):
        user = stored.user
        issuer, subject, key = (user.issuer, user.subject, "") if user else ("", "", stored.key)
        return (issuer, subject, "", "", "", "", str(stored), key)
    signed_out_at = stored.signed_out_at.isoformat() if stored.signed_out_at else ""
    return (
        stored.user.issuer,
        stored.user.subject,
        stored.acs_user_id,
        stored.created_at.isoformat(),
        "true" if stored.deleting else "false",
        signed_out_at,
        "",
        "",
    )


def _described(stored: IdentityMapping | UnreadableMapping) -> dict[str, object]:
    if isinstance(stored, UnreadableMapping):
        user = stored.user
        who = {"storedAs": stored.key} if user is None else {"issuer": user.issuer, "subject": user.subject}
        return {**who, "unreadable": str(stored)}
    return {
        "issuer": stored.user.issuer,
        "subject": stored.user.subject,
        "acsUserId": stored.acs_user_id,
        "createdAt": stored.created_at.isoformat(),
        "deleting": stored.deleting,
        "signedOutAt": None if stored.signed_out_at is None else stored.signed_out_at.isoformat(),
    }


def _lines(rows: Iterable[Sequence[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
