"""The ACS Identity stand-in: https://learn.microsoft.com/rest/api/communication/identity/communication-identity."""

from local_azure.acs.deleted import DeletedIdentityAnswer
from local_azure.acs.identities import TokenStatus
from local_azure.acs.service import IDENTITY_OPERATIONS, Acs

__all__ = ["IDENTITY_OPERATIONS", "Acs", "DeletedIdentityAnswer", "TokenStatus"]
