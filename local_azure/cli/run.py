"""`acs-auth-local run`."""

import asyncio
import sys
from pathlib import Path
from urllib.parse import urlsplit

import click

from local_azure.acs import DeletedIdentityAnswer
from local_azure.cli.stand_ins import PORT, Command, state_directory
from local_azure.environment import LOOPBACK, STAND_IN_NAMES
from local_azure.launcher import CannotRun, Options
from local_azure.launcher import run as run_until_stopped
from local_azure.port_choice import DEFAULT_BASE, AskedPorts
from local_azure.shells import SHELLS, usual_shell


def _stand_in_ports(command: Command) -> Command:
    for number, (name, stand_in) in reversed(list(enumerate(STAND_IN_NAMES.items(), start=1))):
        text = f"Port of the {stand_in} stand-in.  [default: the base port + {number}]"
        command = click.option(f"--{name}-port", type=PORT, help=text)(command)
    return command


def _origin(_: click.Context, __: click.Parameter, values: tuple[str, ...]) -> tuple[str, ...]:
    for value in values:
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.hostname or value != f"{parts.scheme}://{parts.netloc}":
            raise click.BadParameter(f"'{value}' is not an origin such as http://localhost:3000.")
    return values


@click.command()
@click.option("--storage", type=click.Choice(["cosmos", "graph", "sqlite"]), default="sqlite", show_default=True)
@click.option("--port", type=PORT, help="Port of the service.  [default: the base port, or a free one]")
@click.option(
    "--base-port",
    type=click.IntRange(1, 65535 - len(STAND_IN_NAMES)),
    help=f"The service's port; the stand-ins take the next ones.  [default: {DEFAULT_BASE}]",
)
@_stand_in_ports
@click.option(
    "--origin", "origins", multiple=True, callback=_origin, help="A browser client's origin; may be repeated."
)
@state_directory
@click.option("--two-doors", is_flag=True, help="The users of another issuer call as well: token --door oidc.")
@click.option("--no-service", is_flag=True, help="Start only the stand-ins; print the settings that a service needs.")
@click.option("--no-secrets", is_flag=True, help="The service has a managed identity instead of keys and secrets.")
@click.option(
    "--deleted-identity",
    type=(click.IntRange(400, 599), str, str),
    metavar="STATUS CODE MESSAGE",
    help="What ACS answers about a deleted identity.",
)
@click.option(
    "--host",
    default=LOOPBACK,
    show_default=True,
    help="The address to listen on. Anything but loopback is for a container whose ports only this machine reaches.",
)
@click.option(
    "--shell",
    type=click.Choice(list(SHELLS)),
    default=usual_shell,
    help=f"Whose commands are printed.  [default: {usual_shell()}]",
)
def run(
    storage: str,
    port: int | None,
    base_port: int | None,
    origins: tuple[str, ...],
    state_dir: Path,
    two_doors: bool,
    no_service: bool,
    no_secrets: bool,
    deleted_identity: tuple[int, str, str] | None,
    host: str,
    shell: str,
    **stand_in_ports: int | None,
) -> None:
    """Run the stand-ins and the service until Ctrl-C.

    When they are ready, it makes one round trip and shows it.

    Browser clients on the usual ports of development servers (3000, 4200, 5000, 5173, 8000, 8080) may call the
    service; --origin adds others.
    """
    if two_doors and storage == "graph":
        raise click.UsageError("--two-doors needs another store than graph, which is for users of Entra ID only.")
    options = Options(
        state_directory=state_dir.absolute(),
        storage=storage,
        ports=AskedPorts(base_port, port, **{name: stand_in_ports[f"{name}_port"] for name in STAND_IN_NAMES}),
        with_service=not no_service,
        command=_this_command(),
        origins=origins,
        secrets=not no_secrets,
        two_doors=two_doors,
        deleted_identity=None if deleted_identity is None else DeletedIdentityAnswer(*deleted_identity),
        host=host,
        shell=SHELLS[shell],
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
