"""Azure Communication Services (ACS) tokens for a signed-in user, from the authentication service."""

from acs_auth_client.errors import AcsAuthError
from acs_auth_client.tokens import AcsToken, AcsTokens

__all__ = ["AcsAuthError", "AcsToken", "AcsTokens"]
