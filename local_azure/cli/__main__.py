"""`python -m local_azure.cli`."""

from local_azure.cli import main

main(prog_name="acs-auth-local")
