"""`acs-auth-local`: run the service with stand-ins for Azure on this machine, and talk to them."""

from local_azure.cli.main import main

__all__ = ["main"]
