"""How the commands find the running stand-ins, and what they say if one does not answer as it should."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from local_azure.client import Answer, NotRunning, StandInClient
from local_azure.environment import STAND_IN_NAMES, Ports
from local_azure.run_record import read_record

Command = TypeVar("Command", bound=Callable[..., Any])

PORT = click.IntRange(1, 65535)


def state_directory(command: Command) -> Command:
    """The option `--state-dir`."""
    return click.option(
        "--state-dir",
        type=click.Path(file_okay=False, path_type=Path),
        default=Path(".local-azure"),
        show_default=True,
        help="Where the stand-ins keep users, keys and identities.",
    )(command)


def port_option(service: str) -> Callable[[Command], Command]:
    """The option that names the port of one stand-in."""
    help_text = f"Port of the {STAND_IN_NAMES[service]} stand-in.  [default: that of the run on the state directory]"
    return click.option(f"--{service}-port", type=PORT, help=help_text)


def find(service: str, port: int | None, directory: Path) -> StandInClient:
    """The stand-in at the given port, otherwise at that of the run on this directory, otherwise at the usual one."""
    record = read_record(directory)
    ports = Ports() if record is None else record.ports
    return StandInClient(STAND_IN_NAMES[service], port or getattr(ports, service), f"--{service}-port", directory)


def call(stand_in: StandInClient, method: str, path: str, body: Any = None, *, check: bool = True) -> Answer:
    """Send one request. Raises `click.ClickException` when nobody answers, and with `check` for a refusal."""
    try:
        answer = asyncio.run(stand_in.call(method, path, body))
    except NotRunning as error:
        raise click.ClickException(str(error)) from error
    if check:
        require_success(answer, stand_in)
    return answer


def require_success(answer: Answer, stand_in: StandInClient) -> None:
    """Raise `click.ClickException` unless the answer is a success."""
    if answer.status >= 400:
        raise click.ClickException(f"The {stand_in.name} stand-in answered {answer.status}: {answer.body}")
