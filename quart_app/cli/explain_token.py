"""`acs-auth explain-token`: what the service makes of an access token, claim by claim."""

import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from quart_app.cli.common import OK, WRONG, echo_json, json_option, loaded_settings, run

if TYPE_CHECKING:
    from quart_app.auth.token_explanation import Explanation, Judged

_STYLES = {"ok": "green", "unknown": "yellow", "refused": "bold red"}


@click.command("explain-token")
@json_option
def explain_token(*, as_json: bool) -> None:
    """Say why an access token is refused.

    The token is read from standard input, never from an argument:

    acs-auth token | acs-auth explain-token

    The command judges the token by the rules that the service applies with these settings, and prints what each member
    is, what it must be, and what to do. It fetches the issuer's keys and nothing else. It prints neither the token nor
    its user.

    Exit status: 0 if the service accepts the token, 1 if it does not or can't tell, 2 for bad usage or settings.
    """
    if sys.stdin.isatty():  # a terminal cuts a line at 4096 characters, and shows it
        raise click.UsageError("Pipe the token in, for example: acs-auth explain-token < FILE")
    settings = loaded_settings()
    token = sys.stdin.buffer.read().decode(errors="replace")

    async def explained() -> "Explanation":
        from quart_app.auth.token_explanation import explain
        from upstream.http_session import new_http_session

        async with new_http_session(connections=8, unpack=True) as session:
            return await explain(settings, token, session)

    explanation = run(explained(), as_json=as_json)
    if as_json:
        judged = [asdict(each) for each in explanation.judged]
        echo_json({"accepted": explanation.accepted, "reason": explanation.reason, "judged": judged})
    else:
        _show(explanation.judged)
        click.echo(f"\n{_verdict(explanation)}")
    sys.exit(OK if explanation.accepted else WRONG)


def _verdict(explanation: "Explanation") -> str:
    if explanation.accepted:
        return "The service accepts this token."
    if explanation.reason is None:
        return "The service can't tell: the issuer's keys can't be fetched. It answers 503."
    return f"The service refuses this token. Reason: {explanation.reason}."


def _show(judged: "tuple[Judged, ...]") -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    if not console.is_terminal:
        for each in judged:
            remedy = f" -> {each.remedy}" if each.remedy else ""
            click.echo(f"{each.verdict:8} {each.member}: found {each.found}; expected {each.expected}{remedy}")
        return
    table = Table("", "member", "found", "expected, remedy", box=None, pad_edge=False)
    for each in judged:
        expected = Text(each.expected)
        if each.remedy:
            expected.append(f"\n→ {each.remedy}", style="bold")
        verdict = Text(each.verdict, style=_STYLES[each.verdict])
        table.add_row(verdict, Text(each.member), Text(each.found), expected)
    console.print(table)
