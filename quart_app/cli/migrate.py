"""`acs-auth migrate`: copy all mappings from one store to another."""

import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from quart_app.cli.common import (
    BACKENDS,
    OK,
    PARTIAL,
    Report,
    described,
    echo_json,
    json_option,
    loaded_settings,
    refuse,
    report_option,
    run,
)
from quart_app.cli.progress import shown_progress
from quart_app.settings import Settings, StorageBackend

if TYPE_CHECKING:
    from quart_app.operations.migration import MigrationReport


@click.command()
@click.option("--from", "source", type=click.Choice(BACKENDS), required=True, help="The store to read.")
@click.option("--to", "target", type=click.Choice(BACKENDS), required=True, help="The store to fill.")
@click.option("--dry-run", is_flag=True, help="Change nothing; print what would be done.")
@click.option(
    "--concurrency",
    type=click.IntRange(1, 256),
    default=16,
    show_default=True,
    help="How many mappings to process at once.",
)
@report_option
@json_option
def migrate(*, source: str, target: str, dry_run: bool, concurrency: int, report: Report | None, as_json: bool) -> None:
    """Copy every mapping of one store into another.

    Both stores are configured at the same time, by their own settings (COSMOS_…, GRAPH_…, SQLITE_…). For Microsoft
    Graph, the command needs an application permission: User.Read.All to read, User.ReadWrite.All to write.

    It deletes and changes nothing in the source, and replaces no mapping in the target. If a run was interrupted or
    met trouble, run the same command again: it reads everything again and creates what is missing.

    Before it writes anything, it lists both stores. It reports identities that two users have, and does not copy them.

    Exit status: 0 if the target now holds every mapping, 3 if some are conflicting, shared, unreadable or failed or the
    run stopped, 1 if a store can't be opened, 2 for bad usage or settings.
    """
    if source == target:
        raise click.UsageError("--from and --to must differ.")
    settings = loaded_settings()
    from quart_app.stores import missing_settings

    backends = StorageBackend(source), StorageBackend(target)
    faults = [*missing_settings(settings, backends[0]), *missing_settings(settings, backends[1], may_be_new=True)]
    if faults:
        refuse("The settings can't be used:", faults)
    started = time.monotonic()
    done, waits = run(_migrate(settings, *backends, dry_run=dry_run, concurrency=concurrency), as_json=as_json)
    summary = _summary(done, source, target, dry_run=dry_run) | {
        "waits": waits,
        "seconds": round(time.monotonic() - started, 1),
    }
    if as_json:
        echo_json(summary)
    else:
        _show(done, summary, report)
    if report is not None:
        trouble = [
            {**described(each.user, each.key), "outcome": each.outcome, "reason": each.reason} for each in done.trouble
        ]
        report.write(summary | {"mappings": trouble})
    sys.exit(OK if done.complete else PARTIAL)


async def _migrate(
    settings: Settings, source: StorageBackend, target: StorageBackend, *, dry_run: bool, concurrency: int
) -> "tuple[MigrationReport, int]":
    from quart_app.operations.migration import MigrationOptions
    from quart_app.operations.migration import migrate as copy
    from quart_app.operations.upstreams import PATIENT, open_operator_store

    with shown_progress() as progress:
        retry = replace(PATIENT, on_retry=progress.waited)
        options = MigrationOptions(concurrency=concurrency, dry_run=dry_run)
        options = replace(options, retry=replace(options.retry, on_retry=progress.waited))
        async with (
            open_operator_store(settings, source, retry) as read,
            open_operator_store(settings, target, retry) as into,
        ):
            done = await copy(
                read, into, options, lambda now: progress.done(now.outcomes.total(), "done", len(now.trouble))
            )
        return done, progress.waits


def _summary(done: "MigrationReport", source: str, target: str, *, dry_run: bool) -> dict[str, Any]:
    from quart_app.operations.migration import MigrationOutcome

    return {
        "from": source,
        "to": target,
        "dry_run": dry_run,
        "complete": done.complete,
        "read": done.read,
        **{outcome.value: done.outcomes[outcome] for outcome in MigrationOutcome},
        "stopped": done.stopped,
    }


def _show(done: "MigrationReport", summary: dict[str, Any], report: Report | None) -> None:
    words = {
        "read": "read from the source",
        "created": "would be created" if summary["dry_run"] else "created",
        "already_there": "already there",
        "conflicting": "conflicting: the target maps the user to another identity",
        "in_deletion": "in deletion, not copied",
        "shared": "not copied: another user has the same identity, in the source or the target",
        "unreadable": "not copied: can't be read as mappings",
        "failed": "failed",
        "waits": "waits for a throttled or unavailable service",
    }
    for name, meaning in words.items():
        click.echo(f"{summary[name]:>9}  {meaning}")
    click.echo(f"{summary['seconds']:>9}  seconds")
    if done.stopped:
        click.echo(f"Stopped early. {done.stopped}", err=True)
    if not done.complete:
        where = f"{report.path} says which and why." if report else "--report FILE says which and why."
        click.echo(f"Not complete: {where} Run the same command again to continue.", err=True)
