"""What the ACS stand-in does where the real service's behaviour is not known."""

from pathlib import Path

import click

from local_azure.cli.stand_ins import call, find, port_option, state_directory


@click.command("deleted-identity")
@click.option("--status", type=click.IntRange(400, 599), default=404, show_default=True)
@click.option("--code", default="IdentityNotFound", show_default=True)
@click.option("--message", default="Provided identity doesn't exist.", show_default=True)
@click.option("--reset", is_flag=True, help="Answer as at the start again.")
@state_directory
@port_option("acs")
def deleted_identity(status: int, code: str, message: str, reset: bool, state_dir: Path, acs_port: int | None) -> None:
    """Change what ACS answers for a deleted identity.

    Nobody recorded what the real service answers.
    """
    body = None if reset else {"status": status, "code": code, "message": message}
    call(find("acs", acs_port, state_dir), "DELETE" if reset else "PUT", "/local/deleted-identity", body)
