"""`python -m quart_app.cli` is `acs-auth`."""

from quart_app.cli import main

main(prog_name="acs-auth")
