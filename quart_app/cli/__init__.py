"""`acs-auth`: run, check and operate the service. A command imports what it needs when it runs."""

import gc
import sys
from typing import Any

import click

from quart_app.cli.common import echo_json, json_option, loaded_settings
from quart_app.cli.doctor import doctor
from quart_app.cli.explain_token import explain_token
from quart_app.cli.export import delete, export, revoke
from quart_app.cli.migrate import migrate
from quart_app.cli.reconcile import reconcile
from quart_app.cli.rekey import rekey
from quart_app.cli.seal import seal
from quart_app.cli.standard_streams import end_unwritten, is_about_output, repair_standard_streams
from quart_app.cli.token import token
from quart_app.credentials import credentials_in_use
from quart_app.settings import callers, shown_settings


class _Commands(click.Group):
    def main(self, *arguments: Any, **keywords: Any) -> Any:
        repair_standard_streams()
        try:
            return super().main(*arguments, **keywords)
        except OSError as error:
            if not is_about_output(error):
                raise
            end_unwritten(error)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="acs-auth-server")
def main() -> None:
    """The trusted authentication service for Azure Communication Services.

    Settings come from environment variables and the file .env. Exit statuses: 0 done and in order, 1 something is wrong
    or failed, 2 bad usage or settings, 3 done in part.
    """


@main.command()
def serve() -> None:
    """Serve until SIGTERM or Ctrl-C. Exit status: 0 after a clean stop, 1 if it can't start, 2 for bad settings."""
    gc.disable()  # what a start makes is no garbage, and the server turns it on again
    settings = loaded_settings()
    from quart_app.serving.server import StartUpFailed, run
    from quart_app.telemetry.logs import configure_logging

    configure_logging(settings.server.environment)
    try:
        run(settings)
    except StartUpFailed as error:
        click.echo(str(error), err=True)
        sys.exit(1)


@main.command("check-config")
@json_option
def check_config(*, as_json: bool) -> None:
    """Print what is in effect, without secrets, or every fault.

    It prints the settings that count, each with its source, whose access tokens the service accepts, and which
    credentials it uses.

    Exit status: 0, or 2 for bad settings.
    """
    settings = loaded_settings()
    shown, credentials = list(shown_settings(settings)), dict(credentials_in_use(settings))
    if as_json:
        echo_json(
            {
                "settings": {each.name: each.value for each in shown},
                "sources": {each.name: each.source for each in shown},
                "callers": callers(settings),
                "credentials": credentials,
            }
        )
        return
    for each in shown:
        click.echo(f"{each.name}={each.value}  # {each.source}")
    click.echo(f"Callers: {callers(settings)}.")
    for purpose, credential in credentials.items():
        click.echo(f"{purpose} credential: {credential}")


for command in (doctor, explain_token, migrate, export, delete, revoke, reconcile, rekey, seal, token):
    main.add_command(command)
