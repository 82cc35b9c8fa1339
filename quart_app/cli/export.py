"""`acs-auth export`, `delete` and `revoke`: what a person may ask for about their own data and tokens."""

import sys
from typing import Any

import click

from quart_app.cli.common import (
    OK,
    PARTIAL,
    USAGE,
    described,
    echo_json,
    fail,
    json_option,
    loaded_settings,
    refuse,
    run,
    store_option,
    user_option,
)
from quart_app.settings import Settings, StorageBackend
from storage.mapping import IdentityMapping, MappingStore, MappingUnreadable, UnreadableMapping, UserKey


@click.command()
@user_option
@store_option
def export(*, user: UserKey, store: str | None) -> None:
    """Print what the service stores about a user, as JSON.

    That is the mapping and nothing else. ACS holds the identity itself and what was done with it (chats, calls).
    Microsoft Graph is used by the application permission User.Read.All.

    Exit status: 0, also if nothing is stored; 3 if what is stored can't be read as a mapping, 1 if the store can't be
    read, 2 for bad usage or settings.
    """
    settings, backend = _chosen(store)
    found = run(_read(settings, backend, user))
    document: dict[str, Any] = {"user": described(user), "store": backend.value, "mapping": None}
    if isinstance(found, UnreadableMapping):
        echo_json(document | {"unreadable": str(found)})
        sys.exit(PARTIAL)
    echo_json(document if found is None else document | {"mapping": _shown(found)})


@click.command()
@user_option
@store_option
@click.option("--yes", is_flag=True, help="Don't ask.")
@json_option
def delete(*, user: UserKey, store: str | None, yes: bool, as_json: bool) -> None:
    """Delete a user's ACS identity, its tokens and the mapping.

    It is the same as the user's own DELETE /api/user.

    What is interrupted half way is finished by the same command, by `acs-auth reconcile` or by the user's next request.
    Microsoft Graph is used by the application permission User.ReadWrite.All.

    Exit status: 0, also if there was nothing; 1 if something failed, 2 for bad usage or settings.
    """
    settings, backend = _chosen(store)
    _confirm("Delete the user's ACS identity for good?", yes=yes)
    existed = run(_delete(settings, backend, user))
    if as_json:
        echo_json({"deleted": existed})
    else:
        click.echo("The identity and the mapping are deleted." if existed else "There was nothing to delete.")
    sys.exit(OK)


@click.command()
@user_option
@store_option
@click.option("--yes", is_flag=True, help="Don't ask.")
@json_option
def revoke(*, user: UserKey, store: str | None, yes: bool, as_json: bool) -> None:
    """Revoke a user's ACS access tokens, on every device; the identity stays.

    It is the same as the user's own DELETE /api/token. The user can get a new token at once: to prevent that, block
    their sign-in at the identity provider first. Microsoft Graph is used by the application permission
    User.ReadWrite.All.

    Exit status: 0, also if the user has no identity; 1 if something failed, 2 for bad usage or settings.
    """
    settings, backend = _chosen(store)
    _confirm("Revoke all of the user's ACS access tokens?", yes=yes)
    existed = run(_revoke(settings, backend, user))
    if as_json:
        echo_json({"revoked": existed})
    else:
        click.echo("The tokens are revoked." if existed else "The user has no identity, and so no tokens.")
    sys.exit(OK)


def _confirm(question: str, *, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        click.echo("Nobody is there to be asked; pass --yes.", err=True)
        sys.exit(USAGE)
    click.confirm(question, abort=True, err=True)


def _chosen(store: str | None) -> tuple[Settings, StorageBackend]:
    settings = loaded_settings()
    from quart_app.stores import missing_settings

    backend = StorageBackend(store) if store else settings.storage.backend
    faults = list(missing_settings(settings, backend))
    if faults:
        refuse("The settings can't be used:", faults)
    return settings, backend


async def _read(
    settings: Settings, backend: StorageBackend, user: UserKey
) -> IdentityMapping | UnreadableMapping | None:
    from quart_app.operations.upstreams import open_operator_store

    async with open_operator_store(settings, backend) as store:
        return await _stored(store, user)


async def _stored(store: MappingStore, user: UserKey) -> IdentityMapping | UnreadableMapping | None:
    try:
        return await store.get(user)
    except MappingUnreadable as error:
        return error.unreadable


async def _delete(settings: Settings, backend: StorageBackend, user: UserKey) -> bool:
    """Whether there was something to delete."""
    from quart_app.identities import IdentityService
    from quart_app.operations.upstreams import open_operator_acs, open_operator_store

    async with (
        open_operator_store(settings, backend) as store,
        open_operator_acs(settings) as acs,
    ):
        identities = IdentityService(store, acs)
        try:
            existed = await _stored(store, user) is not None
            await identities.delete(user, as_operator=True)
        finally:
            await identities.aclose()
        return existed


async def _revoke(settings: Settings, backend: StorageBackend, user: UserKey) -> bool:
    """Whether there was an identity."""
    from quart_app.identities import IdentityError, IdentityNotFound, IdentityService
    from quart_app.operations.upstreams import open_operator_acs, open_operator_store

    async with (
        open_operator_store(settings, backend) as store,
        open_operator_acs(settings) as acs,
    ):
        identities = IdentityService(store, acs)
        try:
            await identities.sign_out(user)
        except IdentityNotFound:
            return False
        except IdentityError as error:
            fail(f"{error} Run acs-auth delete; the user's next POST /api/user makes a new one.")
        finally:
            await identities.aclose()
        return True


def _shown(mapping: IdentityMapping) -> dict[str, Any]:
    return {
        "acsUserId": mapping.acs_user_id,
        "createdAt": mapping.created_at.isoformat(),
        "deleting": mapping.deleting,
        "signedOutAt": None if mapping.signed_out_at is None else mapping.signed_out_at.isoformat(),
    }
