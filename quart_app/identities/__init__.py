"""The 1:1 rule: one live ACS identity for one user, whatever the races and faults. Knows no HTTP."""

from quart_app.identities.errors import (
    IdentityError,
    IdentityNotFound,
    MappedIdentityGone,
    MappedIdentityNotOwned,
    TooManyFlights,
)
from quart_app.identities.service import Identity, IdentityService, IssuedToken
from quart_app.identities.token_cache import TokenCache
from quart_app.identities.token_policy import TokenPolicy

__all__ = [
    "Identity",
    "IdentityError",
    "IdentityNotFound",
    "IdentityService",
    "IssuedToken",
    "MappedIdentityGone",
    "MappedIdentityNotOwned",
    "TokenCache",
    "TokenPolicy",
    "TooManyFlights",
]
