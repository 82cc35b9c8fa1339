"""`acs-auth-local fault`: make calls of a stand-in fail."""

import base64
from pathlib import Path
from typing import Any

import click

from local_azure.cli.stand_ins import Command, call, find, port_option, require_success, state_directory
from local_azure.environment import STAND_IN_NAMES


def _all_ports(command: Command) -> Command:
    for service in reversed(STAND_IN_NAMES):
        command = port_option(service)(command)
    return command


_EITHER = "--status, --reset, --hang and --drop-answer"


@click.command()
@click.argument("service", type=click.Choice(list(STAND_IN_NAMES)))
@click.argument("operation", required=False)
@click.option("--status", type=click.IntRange(100, 599), help="Answer with this status instead.")
@click.option("--header", "headers", multiple=True, metavar="'NAME: VALUE'", help="With --status; may be repeated.")
@click.option("--body", help="With --status: the text of the answer.")
@click.option("--body-file", type=click.File("rb"), help="With --status: a file whose bytes are the answer.")
@click.option("--content-type", help="With --status: the body's content type; '' for none.")
@click.option("--delay", type=click.FloatRange(0), default=0.0, help="Wait this many seconds first.")
@click.option("--reset", is_flag=True, help="Reset the connection before doing anything.")
@click.option("--hang", is_flag=True, help="Never answer.")
@click.option("--drop-answer", is_flag=True, help="Do it, then reset the connection instead of answering.")
@click.option(
    "--times", type=click.IntRange(0), default=1, show_default=True, help="For how many calls; 0 is until --clear."
)
@click.option("--clear", is_flag=True, help="Forget every scripted fault of the service.")
@state_directory
@_all_ports
def fault(
    service: str,
    operation: str | None,
    status: int | None,
    headers: tuple[str, ...],
    body: str | None,
    body_file: Any,
    content_type: str | None,
    delay: float,
    reset: bool,
    hang: bool,
    drop_answer: bool,
    times: int,
    clear: bool,
    state_dir: Path,
    **ports: int | None,
) -> None:
    """Make the next calls of an OPERATION fail ('*': all).

    \b
    acs     create_identity delete_identity revoke_access_tokens issue_access_token exchange_teams_token
    cosmos  read_item create_item replace_item delete_item query_items get_container get_account
    graph   get_me create_extension get_extension update_extension delete_extension list_users get_by_ids
    entra   openid_configuration_v2 keys_v2 authorize token managed_identity_token

    For an unknown name, the error lists all that there are.
    """
    stand_in = find(service, ports[f"{service}_port"], state_dir)
    if clear:
        call(stand_in, "DELETE", "/local/faults")
        return
    if operation is None:
        raise click.UsageError("Name the operation that should fail, or pass --clear.")
    if (status is not None) + reset + hang + drop_answer > 1:
        raise click.UsageError(f"{_EITHER} exclude each other.")
    if status is None and not (reset or hang or drop_answer or delay):
        raise click.UsageError("Pass what should happen: --status, --delay, --reset, --hang or --drop-answer.")
    if body is not None and body_file is not None:
        raise click.UsageError("--body and --body-file exclude each other.")
    scripted: dict[str, Any] = {
        "status": status,
        "headers": dict(_header(text) for text in headers),
        "content_type": content_type,
        "delay": delay,
        "reset": reset,
        "hang": hang,
        "drop_answer": drop_answer,
        "times": times or None,
    }
    if body is not None:
        scripted["body"] = body
    if body_file is not None:
        scripted["body_base64"] = base64.b64encode(body_file.read()).decode()
    answer = call(stand_in, "PUT", f"/local/faults/{operation}", scripted, check=False)
    if answer.status == 404:
        raise click.ClickException(answer.body)
    require_success(answer, stand_in)


def _header(text: str) -> tuple[str, str]:
    name, separator, value = text.partition(":")
    if not separator or not name.strip():
        raise click.BadParameter(f"'{text}' is not of the form 'Name: value'.", param_hint="--header")
    return name.strip(), value.strip()
