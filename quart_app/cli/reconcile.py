"""`acs-auth reconcile`: compare every mapping with what ACS knows, finish and repair."""

import sys
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from quart_app.cli.common import (
    OK,
    PARTIAL,
    UPSTREAMS,
    WRONG,
    Report,
    described,
    echo_json,
    json_option,
    loaded_settings,
    missing_for_directory,
    refuse,
    report_option,
    run,
    store_option,
)
from quart_app.cli.progress import shown_progress
from quart_app.settings import Settings, StorageBackend

if TYPE_CHECKING:
    from quart_app.operations.reconciliation import ReconciliationOptions, ReconciliationReport


@click.command()
@store_option
@click.option(
    "--repair", is_flag=True, help="Also delete mappings whose identity is gone or belongs to another ACS resource."
)
@click.option(
    "--departed",
    is_flag=True,
    help="Also find users who no longer exist in Entra ID, for --repair to delete. Not for Microsoft Graph.",
)
@click.option(
    "--remove-up-to",
    type=click.IntRange(min=1),
    metavar="N",
    help="Repair even if more than ten and more than a tenth of the mappings would be removed, but no more than N.",
)
@click.option("--dry-run", is_flag=True, help="Change nothing; don't even finish deletions.")
@click.option("--concurrency", type=click.IntRange(1, 64), default=8, show_default=True)
@report_option
@json_option
def reconcile(
    *,
    store: str | None,
    repair: bool,
    departed: bool,
    remove_up_to: int | None,
    dry_run: bool,
    concurrency: int,
    report: Report | None,
    as_json: bool,
) -> None:
    """Finish interrupted deletions, and find unusable mappings.

    For each mapping it asks ACS for an access token with the least scope, which nobody keeps. No other call shows
    whether an identity exists, and this one changes nothing for the user. With --repair it deletes a mapping whose
    identity is gone or belongs to another ACS resource; the user's next request then creates a new identity.

    With --departed it asks Entra ID which users exist, for which it needs the application permission
    Directory.Read.All. It keeps users who were deleted less than 30 days ago, and decides nothing without an answer.

    Before it changes anything, it lists all mappings. It reports identities that two users have, and leaves them alone.

    Exit status: 0 if every mapping is in order now, 1 if some are not (repair them), 3 if some could not be read,
    checked or repaired, or share an identity (--report says which), 2 for bad usage or settings.
    """
    if dry_run and (repair or remove_up_to):
        raise click.UsageError("--dry-run changes nothing, so it can't go with --repair.")
    settings = loaded_settings()
    from quart_app.operations.reconciliation import ReconciliationOptions
    from quart_app.stores import missing_settings

    backend = StorageBackend(store) if store else settings.storage.backend
    faults = list(missing_settings(settings, backend))
    if departed and backend is StorageBackend.GRAPH:
        faults.append("--departed is not for Microsoft Graph: there a mapping goes with its user.")
    elif departed:
        faults += missing_for_directory(settings)
    if faults:
        refuse("The settings can't be used:", faults)
    options = ReconciliationOptions(dry_run=dry_run, repair=repair, remove_up_to=remove_up_to, concurrency=concurrency)
    done = run(_reconcile(settings, backend, options, departed=departed), as_json=as_json)
    summary = _summary(done, backend)
    if as_json:
        echo_json(summary)
    else:
        _show(done, summary, report, departed=departed)
    if report is not None:
        entries = [
            {**described(each.user, each.key), "state": each.state, "repair": each.repair, "reason": each.reason}
            for each in done.entries
        ]
        report.write(summary | {"mappings": entries})
    sys.exit(PARTIAL if done.partial else OK if done.clean else WRONG)


async def _reconcile(
    settings: Settings, backend: StorageBackend, options: "ReconciliationOptions", *, departed: bool
) -> "ReconciliationReport":
    from quart_app.operations.departures import Departures
    from quart_app.operations.directory import open_directory
    from quart_app.operations.reconciliation import reconcile as compare
    from quart_app.operations.upstreams import PATIENT, open_operator_acs, open_operator_store

    def shown(now: "ReconciliationReport") -> None:
        repaired = now.repairs.total()
        count, step = (repaired, "acted on") if repaired else (now.states.total(), "looked at")
        progress.done(count, step, now.trouble.total())

    with shown_progress() as progress:
        retry = replace(PATIENT, on_retry=progress.waited)
        async with (
            open_operator_store(settings, backend, retry) as store,
            open_operator_acs(settings, retry) as acs,
            AsyncExitStack() as stack,
        ):
            departures = None
            if departed:
                directory = await stack.enter_async_context(open_directory(settings, retry))
                departures = Departures(directory, lambda: datetime.now(UTC))
            return await compare(store, acs, options, acs.prove, shown, departures)


def _summary(done: "ReconciliationReport", backend: StorageBackend) -> dict[str, Any]:
    from quart_app.operations.reconciliation import MappingState, Repair

    return {
        "store": backend.value,
        "clean": done.clean,
        "mappings": done.mappings,
        **{state.value: done.states[state] for state in MappingState},
        "unknown": done.undecided,
        "removable": done.removable,
        "repairs": {repair.value: done.repairs[repair] for repair in Repair},
        "trouble": [
            {"upstream": each.upstream, "reason": each.reason, "mappings": count}
            for each, count in done.trouble.most_common()
        ],
        "stopped": done.stopped,
        "refused": done.refused,
    }


def _show(done: "ReconciliationReport", summary: dict[str, Any], report: Report | None, *, departed: bool) -> None:
    of_users = {
        "departed": "whose user no longer exists in Entra ID",
        "restorable": "whose user was deleted and can be restored, kept",
    }
    words = {
        "mappings": "mappings",
        "live": "in order",
        "in_deletion": "with an interrupted deletion",
        "gone": "whose identity no longer exists in ACS",
        "other_resource": "whose identity belongs to another ACS resource",
        **(of_users if departed else {}),
        "shared": "whose identity another user has, too",
        "unreadable": "others that can't be read as mappings",
        "unknown": "could not be checked",
        "removable": "can be removed by --repair",
    }
    for name, meaning in words.items():
        click.echo(f"{summary[name]:>9}  {meaning}")
    for name, meaning in (("removed", "deleted"), ("changed", "changed meanwhile, left alone"), ("failed", "failed")):
        click.echo(f"{summary['repairs'][name]:>9}  {meaning}")
    for text in _conclusions(done, report):
        click.echo(text, err=True)


def _conclusions(done: "ReconciliationReport", report: Report | None) -> Iterator[str]:
    """What stopped it, what is not known, and what to do about what is known; never more than that."""
    from quart_app.operations.reconciliation import MappingState

    if done.stopped:
        yield f"Stopped early. {done.stopped}"
    else:
        yield from (f"{count} failed so: {each.reason}" for each, count in done.trouble.most_common())
    if done.refused:
        yield done.refused
    if done.undecided or done.unlisted:
        names = " and ".join(sorted({UPSTREAMS[each.upstream] for each in done.trouble}))
        about = "any mapping of the store" if done.unlisted else f"{done.undecided} mappings"
        yield f"Nothing was decided about {about}, because of {names}. Run this again once that is over."
    if done.left and not done.refused and not done.stopped:
        yield f"Mappings that --repair would delete: {done.left}."
    if any(entry.repair is None and entry.state is not MappingState.UNKNOWN for entry in done.entries):
        yield f"{report.path if report else '--report FILE'} says which mappings are not in order, and why."
