"""The commands of `acs-auth-local`."""

import click

from local_azure.cli.acs import deleted_identity
from local_azure.cli.faults import fault
from local_azure.cli.keys import own_key, rotate_keys
from local_azure.cli.run import run
from local_azure.cli.users import delete_user, mark_user, purge_user, restore_user, token, users


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Stand-ins for Entra ID, Microsoft Graph, ACS and Cosmos DB on loopback. For development only."""


for command in (
    run,
    token,
    users,
    mark_user,
    delete_user,
    restore_user,
    purge_user,
    fault,
    deleted_identity,
    rotate_keys,
    own_key,
):
    main.add_command(command)
