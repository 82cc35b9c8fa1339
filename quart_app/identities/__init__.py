"""The 1:1 rule: one live ACS identity for one user, whatever races, faults and restarts there are."""

from quart_app.identities.errors import IdentityError, IdentityNotFound, MappedIdentityGone, MappedIdentityNotOwned
from quart_app.identities.kept_tokens import KeptTokens
from quart_app.identities.service import Identity, IdentityService, IssuedToken

__all__ = [
    "Identity",
    "IdentityError",
    "IdentityNotFound",
    "IdentityService",
    "IssuedToken",
    "KeptTokens",
    "MappedIdentityGone",
    "MappedIdentityNotOwned",
]
