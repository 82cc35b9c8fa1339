"""`acs-auth-local`: run the service with stand-ins for Azure on this machine, and talk to them."""

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from local_azure.client import Answer, NotRunning, StandInClient
from local_azure.environment import Ports
from local_azure.launcher import CannotRun, Options
from local_azure.launcher import run as run_until_stopped

Command = TypeVar("Command", bound=Callable[..., Any])

_NAMES = {"entra": "Entra ID", "graph": "Graph", "acs": "ACS", "cosmos": "Cosmos DB"}
_PORT = click.IntRange(1, 65535)


def _state_directory(command: Command) -> Command:
    return click.option(
        "--state-dir",
        type=click.Path(file_okay=False, path_type=Path),
        default=Path(".local-azure"),
        show_default=True,
        help="Where the stand-ins keep users, keys and identities.",
    )(command)


def _entra_port(command: Command) -> Command:
    return click.option("--entra-port", type=_PORT, default=Ports().entra, show_default=True)(command)


def _all_ports(command: Command) -> Command:
    for name, port in reversed([("entra", 5001), ("graph", 5002), ("acs", 5003), ("cosmos", 5004)]):
        command = click.option(f"--{name}-port", type=_PORT, default=port, show_default=True)(command)
    return command


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Stand-ins for Entra ID, Microsoft Graph, ACS and Cosmos DB on loopback. For development only."""


@main.command()
@click.option("--storage", type=click.Choice(["cosmos", "graph", "sqlite"]), default="sqlite", show_default=True)
@click.option("--port", type=_PORT, default=5000, show_default=True, help="Port of the service.")
@_state_directory
@_all_ports
@click.option("--no-service", is_flag=True, help="Only the stand-ins; print the settings that a service needs.")
@click.option("--no-secrets", is_flag=True, help="The service has a managed identity instead of keys and secrets.")
def run(
    storage: str,
    port: int,
    state_dir: Path,
    entra_port: int,
    graph_port: int,
    acs_port: int,
    cosmos_port: int,
    no_service: bool,
    no_secrets: bool,
) -> None:
    """Run the stand-ins and the service, and show one round trip. Ctrl-C stops everything."""
    options = Options(
        state_directory=state_dir.absolute(),
        storage=storage,
        port=port,
        ports=Ports(entra_port, graph_port, acs_port, cosmos_port),
        with_service=not no_service,
        command=_this_command(),
        secrets=not no_secrets,
    )
    try:
        asyncio.run(run_until_stopped(options, click.echo))
    except CannotRun as error:
        click.echo(str(error), err=True)
        sys.exit(error.status)


@main.command()
@click.option("--user", help="Short name, see `acs-auth-local users`.  [default: alex]")
@click.option("--teams", is_flag=True, help="A Teams user's token for ACS, for the header teams-user-aad-token.")
@_state_directory
@_entra_port
def token(user: str | None, teams: bool, state_dir: Path, entra_port: int) -> None:
    """Print an access token for a local user."""
    entra = _entra(entra_port, state_dir)
    wanted = {"teams": teams} if user is None else {"user": user, "teams": teams}
    answer = _call(entra, "POST", "/local/token", wanted, check=False)
    if answer.status == 404:
        known = ", ".join(entry["alias"] for entry in _call(entra, "GET", "/local/users").body)
        raise click.ClickException(f"There is no local user {user}; known are {known}.")
    _require_success(answer, entra)
    click.echo(answer.body["access_token"])


@main.command()
@_state_directory
@_entra_port
def users(state_dir: Path, entra_port: int) -> None:
    """List the local users."""
    for entry in _call(_entra(entra_port, state_dir), "GET", "/local/users").body:
        click.echo(f"{entry['alias']:<10}{entry['name']:<26}{entry['username']}")


@main.command()
@click.argument("service", type=click.Choice(["entra", "graph", "acs", "cosmos"]))
@click.argument("operation", required=False)
@click.option("--status", type=click.IntRange(100, 599), help="Answer with this status instead.")
@click.option("--header", "headers", multiple=True, metavar="'NAME: VALUE'", help="With --status; may be repeated.")
@click.option("--delay", type=click.FloatRange(0), default=0.0, help="Wait this many seconds first.")
@click.option("--reset", is_flag=True, help="Reset the connection before doing anything.")
@click.option("--hang", is_flag=True, help="Never answer.")
@click.option("--drop-answer", is_flag=True, help="Do it, then reset the connection instead of answering.")
@click.option(
    "--times", type=click.IntRange(0), default=1, show_default=True, help="For so many calls; 0: until --clear."
)
@click.option("--clear", is_flag=True, help="Forget every scripted fault of the service.")
@_state_directory
@_all_ports
def fault(
    service: str,
    operation: str | None,
    status: int | None,
    headers: tuple[str, ...],
    delay: float,
    reset: bool,
    hang: bool,
    drop_answer: bool,
    times: int,
    clear: bool,
    state_dir: Path,
    **ports: int,
) -> None:
    """Make the next calls of a stand-in's OPERATION fail ('*': every operation).

    \b
    acs     create_identity delete_identity revoke_access_tokens issue_access_token exchange_teams_token
    cosmos  read_item create_item replace_item delete_item query_items get_container get_account
    graph   get_me create_extension get_extension update_extension delete_extension list_users
    entra   openid_configuration_v2 keys_v2 authorize token
    """
    stand_in = StandInClient(_NAMES[service], ports[f"{service}_port"], f"--{service}-port", state_dir)
    if clear:
        _call(stand_in, "DELETE", "/local/faults")
        return
    if operation is None:
        raise click.UsageError("Name the operation that shall fail, or use --clear.")
    if (status is not None) + reset + hang + drop_answer > 1:
        raise click.UsageError("--status, --reset, --hang and --drop-answer exclude each other.")
    if status is None and not (reset or hang or drop_answer or delay):
        raise click.UsageError("Say what shall happen: --status, --delay, --reset, --hang or --drop-answer.")
    body = {
        "status": status,
        "headers": dict(_header(text) for text in headers),
        "delay": delay,
        "reset": reset,
        "hang": hang,
        "drop_answer": drop_answer,
        "times": times or None,
    }
    _call(stand_in, "PUT", f"/local/faults/{operation}", body)


@main.command("rotate-keys")
@click.option("--retire", is_flag=True, help="Withdraw the older keys as well: tokens signed with them end.")
@_state_directory
@_entra_port
def rotate_keys(retire: bool, state_dir: Path, entra_port: int) -> None:
    """Let the Entra ID stand-in sign with a new key."""
    entra = _entra(entra_port, state_dir)
    _call(entra, "POST", "/local/keys/rotate")
    if retire:
        _call(entra, "POST", "/local/keys/retire")


def _entra(port: int, state_directory: Path) -> StandInClient:
    return StandInClient("Entra ID", port, "--entra-port", state_directory)


def _call(stand_in: StandInClient, method: str, path: str, body: Any = None, *, check: bool = True) -> Answer:
    try:
        answer = asyncio.run(stand_in.call(method, path, body))
    except NotRunning as error:
        raise click.ClickException(str(error)) from error
    if check:
        _require_success(answer, stand_in)
    return answer


def _require_success(answer: Answer, stand_in: StandInClient) -> None:
    if answer.status >= 400:
        raise click.ClickException(f"The {stand_in.name} stand-in answered {answer.status}: {answer.body}")


def _header(text: str) -> tuple[str, str]:
    name, separator, value = text.partition(":")
    if not separator or not name.strip():
        raise click.BadParameter(f"'{text}' is not of the form 'Name: value'.", param_hint="--header")
    return name.strip(), value.strip()


def _this_command() -> tuple[str, ...]:
    """How to start this program again from the current directory."""
    started = Path(sys.argv[0]).absolute()
    if started.name != "acs-auth-local":
        return (sys.executable, "-m", "local_azure.cli")
    here = Path.cwd()
    return (str(started.relative_to(here) if started.is_relative_to(here) else started),)


if __name__ == "__main__":
    main(prog_name="acs-auth-local")
