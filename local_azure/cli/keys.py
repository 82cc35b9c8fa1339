"""The signing keys of the Entra ID stand-in."""

from pathlib import Path

import click

from local_azure.cli.stand_ins import call, find, port_option, state_directory


@click.command("rotate-keys")
@click.option("--retire", is_flag=True, help="Withdraw the older keys as well: their tokens are no longer valid.")
@state_directory
@port_option("entra")
def rotate_keys(retire: bool, state_dir: Path, entra_port: int | None) -> None:
    """Let the Entra ID stand-in sign with a new key."""
    entra = find("entra", entra_port, state_dir)
    call(entra, "POST", "/local/keys/rotate")
    if retire:
        call(entra, "POST", "/local/keys/retire")


@click.command("own-key")
@click.option("--off", is_flag=True, help="Sign with the tenants' key again.")
@state_directory
@port_option("entra")
def own_key(off: bool, state_dir: Path, entra_port: int | None) -> None:
    """Give the API its own signing key.

    Applications with claims mapping have one. Only metadata with ?appid=<client id of the API> names it.
    """
    call(find("entra", entra_port, state_dir), "DELETE" if off else "PUT", "/local/keys/own")
