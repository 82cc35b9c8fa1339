"""`acs-auth-local run`."""

import asyncio
import sys
from pathlib import Path

import click

from local_azure.acs import DeletedIdentityAnswer
from local_azure.cli.stand_ins import PORT, Command, state_directory
from local_azure.environment import Ports
from local_azure.launcher import CannotRun, Options
from local_azure.launcher import run as run_until_stopped


def _all_ports(command: Command) -> Command:
    for name, port in reversed([("entra", 5001), ("graph", 5002), ("acs", 5003), ("cosmos", 5004)]):
        command = click.option(f"--{name}-port", type=PORT, default=port, show_default=True)(command)
    return command


@click.command()
@click.option("--storage", type=click.Choice(["cosmos", "graph", "sqlite"]), default="sqlite", show_default=True)
@click.option("--port", type=PORT, default=5000, show_default=True, help="Port of the service.")
@state_directory
@_all_ports
@click.option("--no-service", is_flag=True, help="Only the stand-ins; print the settings that a service needs.")
@click.option("--no-secrets", is_flag=True, help="The service has a managed identity instead of keys and secrets.")
@click.option(
    "--deleted-identity",
    type=(click.IntRange(400, 599), str, str),
    metavar="STATUS CODE MESSAGE",
    help="What ACS answers about a deleted identity.",
)
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
    deleted_identity: tuple[int, str, str] | None,
) -> None:
    """Run the stand-ins and the service until Ctrl-C.

    When they are ready, one round trip is made and shown.
    """
    options = Options(
        state_directory=state_dir.absolute(),
        storage=storage,
        port=port,
        ports=Ports(entra_port, graph_port, acs_port, cosmos_port),
        with_service=not no_service,
        command=_this_command(),
        secrets=not no_secrets,
        deleted_identity=None if deleted_identity is None else DeletedIdentityAnswer(*deleted_identity),
    )
    try:
        asyncio.run(run_until_stopped(options, click.echo))
    except CannotRun as error:
        click.echo(str(error), err=True)
        sys.exit(error.status)


def _this_command() -> tuple[str, ...]:
    """How to start this program again from the current directory."""
    started = Path(sys.argv[0]).absolute()
    if started.name != "acs-auth-local":
        return (sys.executable, "-m", "local_azure.cli")
    here = Path.cwd()
    return (str(started.relative_to(here) if started.is_relative_to(here) else started),)
