"""`acs-auth export`, `delete` and `revoke`: what a person may ask for; and leaving with all mappings."""

import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

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
    missing_for_directory,
    refuse,
    run,
    store_option,
    user_option,
)
from quart_app.settings import Settings, StorageBackend
from storage.mapping import IdentityMapping, MappingStore, MappingUnreadable, UnreadableMapping, UserKey

if TYPE_CHECKING:
    from quart_app.identities import IdentityService
    from quart_app.operations.exporting import Destination, ExportCounts, ExportOptions, ExportProgress

FORMATS = ("csv", "jsonl", "graph-chat")
"""The values of `ExportFormat`."""


@click.command()
@user_option(required=False)
@store_option
@click.option("--all", "everything", is_flag=True, help="Write every mapping instead of one user's.")
@click.option("--format", "form", type=click.Choice(FORMATS), help="With --all: the format. [default: jsonl]")
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="With --all: write to this file (mode 0600) instead of printing; after a stop, the same command continues.",
)
@click.option(
    "--look-up",
    is_flag=True,
    help="With --format graph-chat: look every user up in Entra ID, by the application permission Directory.Read.All.",
)
@click.option(
    "--decision-owner", metavar="TEXT", help="With --format graph-chat: the value of the column decision_owner."
)
@json_option
def export(
    *,
    user: UserKey | None,
    store: str | None,
    everything: bool,
    form: str | None,
    output: Path | None,
    look_up: bool,
    decision_owner: str | None,
    as_json: bool,
) -> None:
    """Print what the service stores about a user, or about all.

    About a user it prints JSON, with --json or without. That is the mapping and nothing else: ACS holds the identity
    itself and what was done with it (chats, calls). For Microsoft Graph, the command needs the application permission
    User.Read.All.

    With --all it writes every mapping, page by page. The format graph-chat is the file of identities that Microsoft's
    migration from ACS chat to Microsoft Graph asks for.

    Exit status: 0, even if nothing is stored; 3 if something in the store can't be read as a mapping, 1 if the store
    can't be read, 2 for bad usage or settings.
    """
    if everything is (user is not None):
        raise click.UsageError("Pass either --user or --all.")
    if not everything and (form or output or look_up or decision_owner):
        raise click.UsageError("--format, --output, --look-up and --decision-owner need --all.")
    if form != "graph-chat" and (look_up or decision_owner is not None):
        raise click.UsageError("--look-up and --decision-owner need --format graph-chat.")
    settings, backend = _chosen(store)
    if user is None:
        _export_all(settings, backend, form or "jsonl", output, decision_owner or "", look_up=look_up)
    found = run(_read(settings, backend, user), as_json=as_json)
    document: dict[str, Any] = {"user": described(user), "store": backend.value, "mapping": None}
    if isinstance(found, UnreadableMapping):
        echo_json(document | {"unreadable": str(found)})
        sys.exit(PARTIAL)
    echo_json(document if found is None else document | {"mapping": _shown(found)})


def _export_all(
    settings: Settings, backend: StorageBackend, form: str, output: Path | None, decision_owner: str, *, look_up: bool
) -> NoReturn:
    from quart_app.operations.export_file import ExportFile, NotResumable
    from quart_app.operations.exporting import ExportFormat, ExportOptions

    if look_up:
        faults = list(missing_for_directory(settings))
        if faults:
            refuse("The settings can't be used:", faults)
    options = ExportOptions(ExportFormat(form), decision_owner)
    destination: ExportFile | _Printed
    try:
        about: dict[str, str | bool] = {"store": backend.value, "format": form, "decision_owner": decision_owner}
        destination = _Printed() if output is None else ExportFile(output, about | {"look_up": look_up})
    except NotResumable as error:
        refuse("The export can't continue:", [str(error)])
    except OSError as error:
        raise click.BadParameter(f"{output} can't be written ({error.strerror}).", param_hint="--output") from error
    if destination.progress.following is not None:
        click.echo(f"Continuing after {destination.progress.counts.mappings} mappings.", err=True)
    try:
        counts = run(_write_all(settings, backend, destination, options, look_up=look_up))
    except OSError as error:
        if output is None:
            raise
        fail(f"{output} can't be written ({error.strerror}). What was written stays: run the same command to continue.")
    except ValueError:
        fail(f"The store does not know the page that {output}.position names. Remove that file to start afresh.")
    finally:
        destination.close()
    told = [f"{counts.mappings} mappings"]
    told += [f"{counts.unreadable} can't be read as mappings"] if counts.unreadable else []
    told += [f"{counts.left_out} left out, being deleted"] if counts.left_out else []
    told += [f"{counts.unresolved} unresolved"] if counts.unresolved else []
    click.echo("; ".join(told) + ".", err=True)
    sys.exit(PARTIAL if counts.unreadable else OK)


async def _write_all(
    settings: Settings,
    backend: StorageBackend,
    destination: "Destination",
    options: "ExportOptions",
    *,
    look_up: bool,
) -> "ExportCounts":
    from quart_app.operations.directory import known_users, open_directory
    from quart_app.operations.exporting import export_all
    from quart_app.operations.upstreams import open_operator_store

    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(open_operator_store(settings, backend))
        if look_up:
            directory = await stack.enter_async_context(open_directory(settings))
            options = replace(options, look_up=lambda users: known_users(directory, users))
        elif backend is StorageBackend.GRAPH:
            options = replace(options, look_up=_all)  # Graph lists the users themselves
        return await export_all(store, destination, options)


async def _all(users: Sequence[UserKey]) -> frozenset[UserKey]:
    return frozenset(users)


class _Printed:
    """Standard output as a `Destination`; it can't be continued."""

    def __init__(self) -> None:
        from quart_app.operations.exporting import ExportProgress

        self.progress = ExportProgress()
        self._output = sys.stdout.buffer

    async def write(self, text: str) -> None:
        self._output.write(text.encode(errors="backslashreplace"))

    async def reached(self, progress: "ExportProgress") -> None:
        self._output.flush()

    async def finish(self) -> None:
        self._output.flush()

    def close(self) -> None:
        """Standard output stays open."""


@click.command()
@user_option(required=True)
@store_option
@click.option("--yes", is_flag=True, help="Don't ask.")
@json_option
def delete(*, user: UserKey, store: str | None, yes: bool, as_json: bool) -> None:
    """Delete a user's ACS identity, its tokens and the mapping.

    It does the same as the user's own DELETE /api/user.

    If it is interrupted, the same command, `acs-auth reconcile` or the user's next request finishes the deletion. For
    Microsoft Graph, the command needs the application permission User.ReadWrite.All.

    Exit status: 0, even if there was nothing; 1 if something failed, 2 for bad usage or settings.
    """
    settings, backend = _chosen(store)
    _confirm("Delete the user's ACS identity for good?", yes=yes)
    existed = run(_delete(settings, backend, user), as_json=as_json)
    if as_json:
        echo_json({"deleted": existed})
    else:
        click.echo("The identity and the mapping are deleted." if existed else "There was nothing to delete.")
    sys.exit(OK)


@click.command()
@user_option(required=True)
@store_option
@click.option("--yes", is_flag=True, help="Don't ask.")
@json_option
def revoke(*, user: UserKey, store: str | None, yes: bool, as_json: bool) -> None:
    """Sign a user out on every device.

    It revokes their ACS access tokens; the identity stays.

    It does the same as the user's own DELETE /api/token. The user can get a new token at once. To prevent that, block
    their sign-in at the identity provider first. For Microsoft Graph, the command needs the application permission
    User.ReadWrite.All.

    Exit status: 0, even if the user has no identity; 1 if something failed, 2 for bad usage or settings.
    """
    settings, backend = _chosen(store)
    _confirm("Revoke all of the user's ACS access tokens?", yes=yes)
    existed = run(_revoke(settings, backend, user), as_json=as_json)
    if as_json:
        echo_json({"revoked": existed})
    else:
        click.echo("The tokens are revoked." if existed else "The user has no identity, and so no tokens.")
    sys.exit(OK)


def _confirm(question: str, *, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        click.echo("There is no terminal to ask on: pass --yes.", err=True)
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
    async with _opened(settings, backend) as (store, identities):
        existed = await _stored(store, user) is not None
        await identities.delete(user, as_operator=True)
        return existed


async def _revoke(settings: Settings, backend: StorageBackend, user: UserKey) -> bool:
    """Whether there was an identity."""
    from quart_app.identities import IdentityError, IdentityNotFound

    async with _opened(settings, backend) as (_, identities):
        try:
            await identities.sign_out(user)
        except IdentityNotFound:
            return False
        except IdentityError as error:
            fail(f"{error} Run acs-auth delete; the user's next POST /api/user makes a new one.")
        return True


@asynccontextmanager
async def _opened(settings: Settings, backend: StorageBackend) -> "AsyncIterator[tuple[MappingStore, IdentityService]]":
    from quart_app.identities import IdentityService
    from quart_app.operations.upstreams import open_operator_acs, open_operator_store

    async with (
        open_operator_store(settings, backend) as store,
        open_operator_acs(settings) as acs,
    ):
        identities = IdentityService(store, acs)
        try:
            yield store, identities
        finally:
            await identities.aclose()


def _shown(mapping: IdentityMapping) -> dict[str, Any]:
    return {
        "acsUserId": mapping.acs_user_id,
        "createdAt": mapping.created_at.isoformat(),
        "deleting": mapping.deleting,
        "signedOutAt": None if mapping.signed_out_at is None else mapping.signed_out_at.isoformat(),
    }
