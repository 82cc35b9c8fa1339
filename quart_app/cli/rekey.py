"""`acs-auth rekey`: move mappings to the users of another issuer."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from quart_app.cli.common import (
    GUID,
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
    store_option,
)
from quart_app.settings import Settings, StorageBackend

if TYPE_CHECKING:
    from quart_app.operations.rekeying import RekeyOptions, RekeyReport


def _issuer(_: click.Context, __: click.Parameter, value: str) -> str:
    if GUID.fullmatch(value):
        return value.lower()
    if not value.startswith("https://"):
        raise click.BadParameter("must be the issuer's URL (https://…), or an Entra tenant id")
    return value


@click.command()
@click.option("--from-issuer", required=True, callback=_issuer, help="The issuer whose users have the mappings now.")
@click.option("--to-issuer", required=True, callback=_issuer, help="The issuer whose users get the mappings.")
@click.option(
    "--subjects",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A CSV file with the header old_subject,new_subject.",
)
@store_option
@click.option("--dry-run", is_flag=True, help="Change nothing; print what would be done.")
@click.option("--concurrency", type=click.IntRange(1, 256), default=16, show_default=True)
@report_option
@json_option
def rekey(
    *,
    from_issuer: str,
    to_issuer: str,
    subjects: Path,
    store: str | None,
    dry_run: bool,
    concurrency: int,
    report: Report | None,
    as_json: bool,
) -> None:
    """Move mappings to users of another issuer.

    For example from Azure AD B2C to Entra External ID. Each user keeps the ACS identity, and each mapping its time of
    creation. Stop the service first, or let it serve only the new issuer: the settings must not name the old one.

    It replaces nobody's mapping. If a run was interrupted, run the same command again: it ends with the same result.

    Exit status: 0 if every pair was moved or has no mapping, 3 if some could not be moved (--report says which), 1 if
    the store can't be opened, 2 for bad usage, settings or pairs.
    """
    if from_issuer == to_issuer:
        raise click.UsageError("--from-issuer and --to-issuer must differ.")
    settings = loaded_settings()
    from quart_app.operations.rekeying import RekeyOptions, UnusablePairs, read_pairs
    from quart_app.stores import missing_settings

    backend = StorageBackend(store) if store else settings.storage.backend
    faults = list(missing_settings(settings, backend))
    if backend is StorageBackend.GRAPH:
        faults.append(
            "With Microsoft Graph a mapping is part of its user object and sealed for that user, so it can't be moved "
            "to another one: migrate to cosmos or sqlite first."
        )
    if from_issuer in (settings.oidc.issuer, *settings.entra.tenants):
        faults.append("--from-issuer is served by these settings: stop the service, and set the new issuer first.")
    if faults:
        refuse("The mappings can't be moved:", faults)
    try:
        with subjects.open(encoding="utf-8-sig", newline="") as lines:
            guids = GUID.fullmatch(to_issuer) is not None
            pairs = read_pairs(lines, _subject)
        if guids and not all(GUID.fullmatch(new) for new in pairs.values()):
            fault = "A new subject is not an object id, although --to-issuer is a tenant id."
            refuse("The pairs can't be used:", [fault])
    except UnusablePairs as error:
        refuse("The pairs can't be used:", error.faults[:_TOLD])
    except (OSError, UnicodeDecodeError):
        refuse("The pairs can't be used:", [f"{subjects} can't be read as UTF-8 text."])
    options = RekeyOptions(from_issuer, to_issuer, pairs, dry_run, concurrency)
    done = run(_rekey(settings, backend, options))
    summary = _summary(done, backend, options)
    if as_json:
        echo_json(summary)
    else:
        _show(done, summary)
    if report is not None:
        trouble = [{**described(each.old), "outcome": each.move, "reason": each.reason} for each in done.trouble]
        report.write(summary | {"mappings": trouble})
    sys.exit(OK if done.complete else PARTIAL)


_TOLD = 20


def _subject(text: str) -> str:
    """As it is stored: an object id in lower case, anything else as it is."""
    if not text:
        raise ValueError
    return text.lower() if GUID.fullmatch(text) else text


async def _rekey(settings: Settings, backend: StorageBackend, options: "RekeyOptions") -> "RekeyReport":
    from quart_app.operations.rekeying import rekey as move
    from quart_app.operations.upstreams import open_operator_acs, open_operator_store

    async with (
        open_operator_store(settings, backend) as store,
        open_operator_acs(settings) as acs,
    ):
        return await move(store, acs, options)


def _summary(done: "RekeyReport", backend: StorageBackend, options: "RekeyOptions") -> dict[str, Any]:
    from quart_app.operations.rekeying import Move

    return {
        "store": backend.value,
        "dry_run": options.dry_run,
        "complete": done.complete,
        "pairs": len(options.pairs),
        **{move.value: done.moves[move] for move in Move},
        "stopped": done.stopped,
    }


def _show(done: "RekeyReport", summary: dict[str, Any]) -> None:
    words = {
        "pairs": "pairs of subjects",
        "moved": "would be moved" if summary["dry_run"] else "moved",
        "moved_before": "moved before",
        "absent": "without a mapping",
        "conflicting": "not moved: the new user has another identity",
        "in_deletion": "not moved: in deletion",
        "shared": "not moved: another user has the same identity",
        "unreadable": "not moved: can't be read as mappings",
        "changed": "changed meanwhile, left alone",
        "failed": "failed",
    }
    for name, meaning in words.items():
        click.echo(f"{summary[name]:>9}  {meaning}")
    if done.stopped:
        click.echo(f"Stopped early. {done.stopped}", err=True)
    if not done.complete:
        click.echo("Not complete: --report FILE says which and why. Run the same command again to continue.", err=True)
