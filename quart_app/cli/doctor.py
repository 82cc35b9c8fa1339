"""`acs-auth doctor`: ask every upstream as the service would."""

import sys
from dataclasses import asdict
from typing import IO, TYPE_CHECKING

import click

from quart_app.cli.common import OK, WRONG, echo_json, json_option, loaded_settings, run

if TYPE_CHECKING:
    from quart_app.operations.diagnosis import Finding

_STYLES = {"ok": "green", "warning": "yellow", "failed": "bold red", "skipped": "dim"}


@click.command()
@click.option("--write", is_flag=True, help="Also create and delete a temporary ACS identity and mapping.")
@click.option(
    "--user-token",
    type=click.File(),
    metavar="FILE",
    help="A file with a user's access token for this API, or - for standard input. It is judged as by acs-auth "
    "explain-token; with the Graph store, the user's consent is checked as well.",
)
@json_option
def doctor(*, write: bool, user_token: IO[str] | None, as_json: bool) -> None:
    """Ask every upstream, and say what is wrong and what to do.

    It checks the names, certificates and clocks of Entra ID, ACS and the store, the signing keys of every tenant, and
    the API's credential at Entra ID, that ACS accepts the service's key or managed identity, and that the store can be
    read. It writes nothing without --write.

    Exit status: 0 if nothing is wrong (warnings don't count), 1 if something is, 2 for bad settings.
    """
    settings = loaded_settings()
    from quart_app.operations.diagnosis import DiagnosisOptions, diagnose

    token = user_token.read() if user_token is not None else None
    findings = run(diagnose(settings, DiagnosisOptions(write=write, user_token=token)), as_json=as_json)
    failed = sum(finding.state == "failed" for finding in findings)
    if as_json:
        echo_json({"ok": not failed, "findings": [asdict(finding) for finding in findings]})
    else:
        _show(findings)
        click.echo(f"\n{failed} of {len(findings)} checks failed." if failed else "\nNothing is wrong.")
    sys.exit(WRONG if failed else OK)


def _show(findings: "list[Finding]") -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    if not console.is_terminal:
        for finding in findings:
            remedy = f" -> {finding.remedy}" if finding.remedy else ""
            click.echo(f"{finding.state:8} {finding.check}: {finding.message}{remedy}")
        return
    table = Table(box=None, show_header=False, pad_edge=False)
    for finding in findings:
        text = Text(finding.message)
        if finding.remedy:
            text.append(f"\n→ {finding.remedy}", style="bold")
        table.add_row(Text(finding.state, style=_STYLES[finding.state]), Text(finding.check), text)
    console.print(table)
