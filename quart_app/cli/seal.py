"""`acs-auth seal`: seal the mappings that Microsoft Graph holds."""

import json
import sys
from typing import TYPE_CHECKING, Any

import click

from quart_app.cli.common import (
    GUID,
    OK,
    PARTIAL,
    Report,
    described,
    echo_json,
    fail,
    json_option,
    loaded_settings,
    refuse,
    report_option,
    run,
)
from quart_app.settings import Settings, StorageBackend
from storage.mapping import UserKey

if TYPE_CHECKING:
    from quart_app.operations.sealing import SealingEntry, SealingOptions, SealingReport


@click.command()
@click.option(
    "--user",
    metavar="OBJECTID",
    help="Only this user's mapping, because you know that the identity is theirs. TENANT/OBJECTID for another "
    "tenant than ENTRA_TENANT_ID.",
)
@click.option("--renew", is_flag=True, help="Also seal again, with the first key, what an older key has sealed.")
@click.option("--dry-run", is_flag=True, help="Change nothing; print what would be done.")
@report_option
@json_option
def seal(*, user: str | None, renew: bool, dry_run: bool, report: Report | None, as_json: bool) -> None:
    """Seal the mappings in Microsoft Graph that have no seal.

    It lists everything before it seals anything. If two users have the same identity, it seals neither mapping: find
    out whose the identity is, and seal that mapping with --user. It needs the application permission
    User.ReadWrite.All of Microsoft Graph. No application may change users with a directory role: for each of them, it
    prints the request that the user must send.

    To change the key, append the new one to GRAPH_SEAL_KEYS everywhere, put it first, run this with --renew until no
    seal of the old key is left, and remove the old key.

    Exit status: 0 if every mapping is sealed now, 3 if some are not (--report says which), 1 if Microsoft Graph can't
    be used or the user has no mapping, 2 for bad usage or settings.
    """
    settings = loaded_settings()
    from quart_app.operations.sealing import SealingOptions
    from quart_app.stores import missing_settings

    if faults := list(missing_settings(settings, StorageBackend.GRAPH)):
        refuse("The settings can't be used:", faults)
    one = None if user is None else _user(user, settings.entra.tenant_id)
    done = run(_seal(settings, one, SealingOptions(renew=renew, dry_run=dry_run)), as_json=as_json)
    if done is None:
        fail("The user has no mapping in Microsoft Graph.")
    requests = [_request(entry) for entry in done.entries if entry.request is not None]
    summary = _summary(done, dry_run=dry_run)
    if as_json:
        echo_json(summary | {"requests": requests})
    else:
        _show(done, summary, requests)
    if report is not None:
        left = [
            {**described(each.user), "outcome": each.outcome, "reason": each.reason, "request": each.request}
            for each in done.entries
        ]
        report.write(summary | {"mappings": left})
    sys.exit(OK if done.complete else PARTIAL)


def _user(value: str, home_tenant: str) -> UserKey:
    tenant, separator, object_id = value.rpartition("/")
    tenant = tenant if separator else home_tenant
    if not GUID.fullmatch(tenant) or not GUID.fullmatch(object_id):
        raise click.UsageError("--user must be an object id, or TENANT-ID/OBJECT-ID.")
    return UserKey(tenant.lower(), object_id.lower())


async def _seal(settings: Settings, user: UserKey | None, options: "SealingOptions") -> "SealingReport | None":
    from quart_app.operations.sealing import seal_all, seal_one
    from quart_app.operations.upstreams import PATIENT, open_operator_extensions
    from quart_app.stores import graph_seals
    from storage.graph import UserNotChangeable

    seals = graph_seals(settings)
    async with open_operator_extensions(settings) as extensions:
        if user is None:
            return await seal_all(extensions, seals, options, PATIENT, UserNotChangeable)
        return await seal_one(extensions, seals, user, options, PATIENT, UserNotChangeable)


def _request(entry: "SealingEntry") -> dict[str, Any]:
    return {**described(entry.user), "request": entry.request}


def _summary(done: "SealingReport", *, dry_run: bool) -> dict[str, Any]:
    from quart_app.operations.sealing import SealingOutcome

    return {
        "dry_run": dry_run,
        "complete": done.complete,
        **{outcome.value: done.outcomes[outcome] for outcome in SealingOutcome},
        "keys": dict(done.keys),
        "keys_not_held": dict(done.keys_not_held),
        "stopped": done.stopped,
    }


def _show(done: "SealingReport", summary: dict[str, Any], requests: list[dict[str, Any]]) -> None:
    would = "would be " if summary["dry_run"] else ""
    words = {
        "sealed": f"{would}sealed",
        "renewed": f"{would}sealed anew, by the first key",
        "already": "sealed already",
        "shared": "not sealed: another user has the same identity",
        "foreign_seal": "whose seal is not for this user and this identity",
        "key_not_held": "sealed by a key that is not in GRAPH_SEAL_KEYS",
        "damaged": "without an ACS user id",
        "refused": "that no application may change: the users must seal them",
        "changed": "changed meanwhile, left alone",
        "failed": "failed",
    }
    for name, meaning in words.items():
        click.echo(f"{summary[name]:>9}  {meaning}")
    for key, count in sorted(done.keys.items()):
        click.echo(f"{count:>9}  by the key {key}")
    for key, count in sorted(done.keys_not_held.items()):
        click.echo(f"{count:>9}  by the key {key}, which is not in GRAPH_SEAL_KEYS")
    for each in requests:
        request = each["request"]
        click.echo(f"\nThe user {each['subject']} sends (in Graph Explorer, for example):")
        click.echo(f"{request['method']} {request['url']}\n{json.dumps(request['body'], indent=2)}")
    if done.stopped:
        click.echo(f"Nothing was sealed. {done.stopped}", err=True)
    if done.outcomes.total() and summary["refused"] and not summary["sealed"] + summary["renewed"]:
        click.echo(
            "Microsoft Graph refused every change: does the application have the permission User.ReadWrite.All?",
            err=True,
        )
    if not done.complete:
        click.echo("Not every mapping is sealed: --report FILE says which are not, and why.", err=True)
