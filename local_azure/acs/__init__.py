"""The ACS Identity stand-in: https://learn.microsoft.com/rest/api/communication/identity/communication-identity."""

from local_azure.acs.service import Acs

__all__ = ["Acs"]
