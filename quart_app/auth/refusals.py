"""Why an access token was refused: one reason from a closed list, shown to operators; the wire stays neutral."""

from enum import StrEnum


class Reason(StrEnum):
    """Why a token was refused. It goes to the access line and to a metric, and holds nothing of the token.

    The caller sees it in development only, except `EXPIRED`, which is no secret: the client can read `exp` itself.
    """

    MISSING = "missing"
    """There is no bearer token in the request."""
    MALFORMED = "malformed"
    """It can't be read, or one of its members does not have the required form."""
    ALGORITHM = "algorithm"
    """It is not signed with RS256."""
    TYPE = "type"
    """Its header says that it is something other than a signed access token."""
    KEY_UNKNOWN = "key_unknown"
    """No trusted issuer publishes the key that it names."""
    SIGNATURE = "signature"
    """The key that it names did not sign it."""
    ISSUER = "issuer"
    TENANT = "tenant"
    AUDIENCE = "audience"
    EXPIRED = "expired"
    NOT_YET_VALID = "not_yet_valid"
    APPLICATION_TOKEN = "application_token"  # noqa: S105 (a reason, no secret)
    """An application got it for itself; there is no user behind it."""
    SUBJECT = "subject"
    """It does not say which user it is for."""
    CLIENT = "client"
    """An application that may not call got it."""
    GUEST = "guest"
    """Its user is a guest, or it does not say that the user is not one."""
    SCOPE = "scope"
    ROLE = "role"
    NOT_AN_ACCESS_TOKEN = "not_an_access_token"  # noqa: S105
    """It is an id token, a refresh token or a message about an event."""
    PROOF_MISSING = "proof_missing"
    """It is bound to a key whose proof was not sent, so it is not a bearer token."""


class TokenRefused(Exception):
    """The token does not let its bearer in, for this `reason`."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(f"The access token is refused: {reason}.")
        self.reason = reason


class InvalidAccessToken(TokenRefused):
    """The token proves nothing here: only another one would help."""


class NoAccessToken(InvalidAccessToken):
    """The request carries no bearer token at all; it may carry credentials of another scheme."""

    def __init__(self) -> None:
        super().__init__(Reason.MISSING)


class MalformedCredentials(TokenRefused):
    """The `Authorization` header is not what RFC 6750, section 2.1, says it is, or there are several."""

    def __init__(self) -> None:
        super().__init__(Reason.MALFORMED)


class InsufficientScope(TokenRefused):
    """The token is good but does not carry `scope`, which this API requires."""

    def __init__(self, scope: str) -> None:
        super().__init__(Reason.SCOPE)
        self.scope = scope


class InsufficientRole(TokenRefused):
    """The token is good but its user does not have the role that this API requires."""

    def __init__(self) -> None:
        super().__init__(Reason.ROLE)
