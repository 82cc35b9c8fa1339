"""What the commands share: exit statuses, settings, the event loop, and output for people or for programs."""

import asyncio
import errno
import json
import logging
import os
import re
import sys
import tempfile
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import click

from quart_app.settings import CLIENT_CREDENTIALS, InvalidSettings, Settings, StorageBackend, load_settings
from storage.mapping import UserKey
from upstream.errors import UpstreamError, told

T = TypeVar("T")
Command = TypeVar("Command", bound=Callable[..., Any])

OK, WRONG, USAGE, PARTIAL = 0, 1, 2, 3
"""Exit statuses: done and in order; something is wrong or failed; bad usage or settings (click's own); done in part."""

UPSTREAMS = {
    "acs": "Azure Communication Services",
    "directory": "Microsoft Entra ID's directory",
    "entra": "Microsoft Entra ID",
    "oidc": "the other OpenID Connect issuer",
    "managed_identity": "the managed identity's endpoint",
    "sign_in": "your own sign-in",
    "store": "the mapping store",
}
"""What people read for the names of upstreams in logs."""

BACKENDS = tuple(backend.value for backend in StorageBackend)


def loaded_settings() -> Settings:
    """The settings; ends the process with status 2 and every fault if they can't be used."""
    try:
        return load_settings()
    except InvalidSettings as error:
        refuse("The settings can't be used:", error.faults)


def refuse(headline: str, faults: Iterable[str]) -> NoReturn:
    """End the process with status 2: `headline` and one line for each fault go to standard error."""
    click.echo(headline, err=True)
    for fault in faults:
        click.echo(f"- {fault}", err=True)
    sys.exit(USAGE)


def fail(message: str) -> NoReturn:
    """End the process with status 1."""
    click.echo(message, err=True)
    sys.exit(WRONG)


def run(work: Coroutine[Any, Any, T], *, as_json: bool = False) -> T:
    """Do `work` in an event loop; if something prevents it, the process ends with status 1 and a sentence.

    With `as_json`, a document that says the same and names the upstream goes to standard output as well. What the
    libraries log is left out, because it would repeat what the command says itself.
    """
    silence = logging.NullHandler()
    logging.getLogger().addHandler(silence)
    try:
        return asyncio.run(work)
    except UpstreamError as error:
        if as_json:
            echo_json({"error": told(error), "upstream": error.upstream})
        fail(told(error))
    finally:
        logging.getLogger().removeHandler(silence)


def echo_json(content: Any) -> None:
    """One JSON document on standard output."""
    in_unicode = (sys.stdout.encoding or "").lower().startswith("utf")
    click.echo(json.dumps(content, indent=2, ensure_ascii=not in_unicode))


class Report:
    """The file that `--report` names: a JSON file that only its owner may read, because it names users.

    A file next to it is opened at once, so that a run whose report can't be written does not start. `write` lets it
    replace the other in one step; `discard` removes it if that did not happen. Links are not followed.
    """

    def __init__(self, path: Path) -> None:
        """Raises `OSError`."""
        if path.is_symlink() or (path.exists() and not path.is_file()):
            raise OSError(errno.EINVAL, "It is not a plain file")
        self.path = path
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)  # mode 0600
        self._file = os.fdopen(descriptor, "w", encoding="utf-8")
        self._written = Path(name)

    def write(self, content: Any) -> None:
        """Ends the process with status 1 and a sentence if that fails."""
        try:
            with self._file as file:
                json.dump(content, file, indent=2, ensure_ascii=False)
                file.write("\n")
            self._written.replace(self.path)
        except OSError as error:
            fail(f"The report {self.path} can't be written ({error.strerror}).")

    def discard(self) -> None:
        """Leave nothing behind if it was not written."""
        with suppress(OSError):
            self._file.close()
        self._written.unlink(missing_ok=True)


def described(user: UserKey | None, key: str = "") -> dict[str, str]:
    """A user for a report or an export, never for a log; if no user is known, `key`, as the store calls it."""
    return {"stored_as": key} if user is None else {"issuer": user.issuer, "subject": user.subject}


def json_option(command: Command) -> Command:
    """`--json`: for programs."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of text.")(command)


def report_option(command: Command) -> Command:
    """`--report`: which users are affected, which must not stand on a screen or in a log."""
    return click.option(
        "--report",
        type=click.Path(path_type=Path),
        callback=_report,
        help="Also write which users are affected, and why, to this file (JSON, mode 0600). It holds user ids.",
    )(command)


def store_option(command: Command) -> Command:
    """`--store`: which store, by default the service's own."""
    return click.option("--store", type=click.Choice(BACKENDS), help="The store. [default: STORAGE_BACKEND]")(command)


def user_option(*, required: bool) -> Callable[[Command], Command]:
    """`--user`: whose mapping."""
    return click.option(
        "--user",
        required=required,
        metavar="TENANT/OBJECTID",
        callback=_user,
        help="The user's tenant id and object id, or the issuer's URL and the subject.",
    )


def missing_for_directory(settings: Settings) -> Iterable[str]:
    """What is missing to ask Entra ID who exists: one sentence for each thing."""
    if not settings.entra.tenant_id:
        yield "Only users of Microsoft Entra ID can be looked up there: set the ENTRA_ settings."
    elif len(settings.entra.client_credentials) != 1:
        yield f"Asking Entra ID needs exactly one of {', '.join(CLIENT_CREDENTIALS)}."


def _report(context: click.Context, _: click.Parameter, path: Path | None) -> Report | None:
    if path is None:
        return None
    try:
        report = Report(path)
    except OSError as error:
        raise click.BadParameter(f"{path} can't be written ({error.strerror}).") from error
    context.call_on_close(report.discard)
    return report


def _user(_: click.Context, __: click.Parameter, value: str | None) -> UserKey | None:
    if value is None:
        return None
    issuer, _separator, subject = value.rpartition("/")
    if not issuer or not subject or not (GUID.fullmatch(issuer) or issuer.startswith("https://")):
        raise click.BadParameter("must look like TENANT-ID/OBJECT-ID, or https://ISSUER/SUBJECT")
    if GUID.fullmatch(issuer):
        if not GUID.fullmatch(subject):
            raise click.BadParameter("the object id must be a GUID, as the tenant id is")
        return UserKey(issuer.lower(), subject.lower())
    return UserKey(issuer, subject)


GUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
