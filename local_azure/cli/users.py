"""Tokens of the local users, and what happens to the users."""

from pathlib import Path
from typing import Any

import click

from local_azure.cli.stand_ins import call, find, port_option, require_success, state_directory

_USER = click.argument("user")


@click.command()
@click.option("--user", help="Short name, see `acs-auth-local users`.  [default: alex]")
@click.option("--teams", is_flag=True, help="A Teams user's token for ACS, for the header teams-user-aad-token.")
@click.option("--graph", is_flag=True, help="A token for Microsoft Graph, as any program gets when the user signs in.")
@click.option("--resolve", is_flag=True, help="Also with the scope to ask for the ACS identities of colleagues.")
@click.option(
    "--door",
    type=click.Choice(["entra", "oidc"]),
    default="entra",
    help="oidc: of the other issuer, see run --two-doors.",
)
@state_directory
@port_option("entra")
def token(
    user: str | None,
    teams: bool,
    graph: bool,
    resolve: bool,
    door: str,
    state_dir: Path,
    entra_port: int | None,
) -> None:
    """Print an access token for a local user."""
    if teams + graph + resolve + (door == "oidc") > 1:
        raise click.UsageError("--teams, --graph, --resolve and --door oidc exclude each other.")
    body = {"teams": teams, "graph": graph, "resolve": resolve, "door": door}
    body |= {} if user is None else {"user": user}
    click.echo(_about_user("POST", "/local/token", user, body, state_dir, entra_port)["access_token"])


@click.command()
@state_directory
@port_option("entra")
def users(state_dir: Path, entra_port: int | None) -> None:
    """List the local users."""
    for entry in call(find("entra", entra_port, state_dir), "GET", "/local/users").body:
        told = [*(mark.replace("_", " ") for mark in entry["marks"]), *(["deleted"] if entry["deleted"] else [])]
        line = f"{entry['alias']:<10}{entry['name']:<26}{entry['username']}"
        click.echo(f"{line}  ({', '.join(told)})" if told else line)


@click.command("mark-user")
@_USER
@click.option("--directory-role", is_flag=True, help="Holds a directory role: no application may change this user.")
@click.option("--without-teams", is_flag=True, help="Has no Teams licence, or is a guest: ACS answers 403.")
@state_directory
@port_option("entra")
def mark_user(user: str, directory_role: bool, without_teams: bool, state_dir: Path, entra_port: int | None) -> None:
    """Give a user a directory role, or take Teams away.

    It clears the marks that you don't name.
    """
    body = {"directory_role": directory_role, "without_teams": without_teams}
    _about_user("PUT", f"/local/users/{user}", user, body, state_dir, entra_port)


@click.command("delete-user")
@_USER
@state_directory
@port_option("entra")
def delete_user(user: str, state_dir: Path, entra_port: int | None) -> None:
    """Delete a user, who can be restored for 30 days."""
    _about_user("DELETE", f"/local/users/{user}", user, None, state_dir, entra_port)


@click.command("restore-user")
@_USER
@state_directory
@port_option("entra")
def restore_user(user: str, state_dir: Path, entra_port: int | None) -> None:
    """Bring a deleted user back."""
    _about_user("POST", f"/local/users/{user}/restore", user, None, state_dir, entra_port)


@click.command("purge-user")
@_USER
@state_directory
@port_option("entra")
def purge_user(user: str, state_dir: Path, entra_port: int | None) -> None:
    """Delete a user for good."""
    _about_user("POST", f"/local/users/{user}/purge", user, None, state_dir, entra_port)


def _about_user(
    method: str, path: str, user: str | None, body: Any, state_dir: Path, entra_port: int | None
) -> dict[str, Any]:
    entra = find("entra", entra_port, state_dir)
    answer = call(entra, method, path, body, check=False)
    if answer.status == 404:
        known = ", ".join(entry["alias"] for entry in call(entra, "GET", "/local/users").body)
        raise click.ClickException(f"There is no local user {user}; known are {known}.")
    if answer.status == 409:
        raise click.ClickException(answer.body)
    require_success(answer, entra)
    return answer.body if isinstance(answer.body, dict) else {}
