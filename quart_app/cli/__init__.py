"""`acs-auth`: run and check the service."""

import sys

import click

from quart_app.settings import InvalidSettings, Settings, load_settings


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="acs-auth-server")
def main() -> None:
    """The trusted authentication service for Azure Communication Services.

    Settings come from environment variables and the file .env.
    """


@main.command()
def serve() -> None:
    """Serve until SIGTERM or Ctrl-C. Exit status: 0 after a clean stop, 1 if it can't start, 2 for bad settings."""
    settings = _settings()
    from quart_app.observability import configure_logging
    from quart_app.server import StartUpFailed, run

    configure_logging(settings.server.environment)
    try:
        run(settings)
    except StartUpFailed as error:
        click.echo(str(error), err=True)
        sys.exit(1)


@main.command("check-config")
def check_config() -> None:
    """Print the effective settings, without secrets, or every fault. Exit status: 0, or 2 for bad settings."""
    for name, value in _settings().shown():
        click.echo(f"{name}={value}")


def _settings() -> Settings:
    try:
        return load_settings()
    except InvalidSettings as error:
        click.echo("The settings can't be used:", err=True)
        for fault in error.faults:
            click.echo(f"- {fault}", err=True)
        sys.exit(2)
