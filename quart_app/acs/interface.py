"""The ACS Identity client: identities, access tokens, the Teams exchange. Its SDK's exceptions never cross it."""

from dataclasses import dataclass, field
from typing import ClassVar, Protocol

from upstream.errors import Throttled, Unavailable, UpstreamError

ACS = "acs"
"""The name of Azure Communication Services in metrics and logs."""


@dataclass(frozen=True, slots=True)
class AcsToken:
    """An ACS access token. `expires_on` is the ISO 8601 time exactly as ACS wrote it."""

    token: str = field(repr=False)
    expires_on: str


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """What is asked for in a token: its scopes, and for how many minutes (60 to 1440)."""

    scopes: tuple[str, ...]
    minutes: int


class AcsError(UpstreamError):
    """ACS did not do what was asked. Messages never hold an id, a token or an upstream body."""

    upstream: ClassVar[str] = ACS


class IdentityGone(AcsError):
    """This identity does not exist in ACS, or no longer does."""

    outcome: ClassVar[str] = "refused"


class IdentityNotOwned(AcsError):
    """The identity belongs to another ACS resource (401 `IdentityNotOwned`)."""

    outcome: ClassVar[str] = "refused"


@dataclass(frozen=True, slots=True)
class Answered:
    """What identifies an answer of ACS: its HTTP status and the code in its body."""

    status: int
    code: str


class IdentityRefused(AcsError):
    """ACS refused a call about an identity in its own form, which proves nothing by itself (`acs.absence`).

    `answered` is the answer; `otherwise` is what it means unless there is proof that the identity is gone.
    """

    outcome: ClassVar[str] = "refused"

    def __init__(self, answered: Answered, otherwise: AcsError) -> None:
        super().__init__("ACS refused a call about an identity.")
        self.answered = answered
        self.otherwise = otherwise


class TeamsTokenRefused(AcsError):
    """ACS refused the Teams user's token. `part` names what is wrong: `token`, `client` or `user`."""

    outcome: ClassVar[str] = "refused"

    def __init__(self, part: str) -> None:
        super().__init__(f"ACS refused the Teams token because of its {part}.")
        self.part = part


class TeamsUserNotAllowed(AcsError):
    """ACS issues no tokens for this Teams user, who is a guest or has no Teams licence."""

    outcome: ClassVar[str] = "refused"

    def __init__(self) -> None:
        super().__init__("ACS does not let the Teams user in.")


class AcsThrottled(Throttled, AcsError):
    """429: nothing was done. `retry_after` is in seconds."""

    def __init__(self, retry_after: float | None = None) -> None:
        super().__init__("ACS is throttling requests.", retry_after)


class AcsUnavailable(Unavailable, AcsError):
    """ACS could not be reached or failed. `retry_after` is in seconds.

    `nothing_happened` is true only when the request was provably not carried out (the connection was never made).
    """

    def __init__(self, retry_after: float | None = None, *, nothing_happened: bool = False) -> None:
        super().__init__("ACS is unavailable.", retry_after)
        self.nothing_happened = nothing_happened


class AcsCredentialsRejected(AcsError):
    """ACS refused this service's own credential."""


class AcsMisconfigured(AcsError):
    """ACS refused what this service asked for as invalid: it can't work until an operator changes something."""

    def __init__(self) -> None:
        super().__init__("ACS refused a request as invalid.")


class UnexpectedAnswer(AcsError):
    """ACS answered with something that the API does not describe. `status` is the HTTP status, if there was one.

    Whether the request was carried out is unknown.
    """

    def __init__(self, status: int | None) -> None:
        super().__init__("ACS gave an unexpected answer.")
        self.status = status


class AcsClient(Protocol):
    """What the service needs from ACS. Every method may raise `AcsThrottled`, `AcsUnavailable`,
    `AcsCredentialsRejected`, `AcsMisconfigured`, `UnexpectedAnswer`, with a managed identity `ManagedIdentityError`.
    """

    async def create_identity(self) -> str:
        """Mint an identity and return its id. Never repeated unless nothing was made: minting is not idempotent."""
        ...

    async def delete_identity(self, acs_user_id: str) -> None:
        """Delete the identity and revoke its tokens; already gone is success. Raises `IdentityNotOwned`."""
        ...

    async def issue_token(self, acs_user_id: str, request: TokenRequest | None = None) -> AcsToken:
        """Issue an access token as `request` says, by default with the configured scopes and lifetime.

        Raises `IdentityGone`, `IdentityNotOwned`.
        """
        ...

    async def revoke_tokens(self, acs_user_id: str) -> None:
        """Revoke every access token of the identity, which stays. Raises `IdentityGone`, `IdentityNotOwned`."""
        ...

    async def exchange_teams_token(self, teams_token: str, client_id: str, user_object_id: str) -> AcsToken:
        """Exchange a Teams user's Entra access token. Raises `TeamsTokenRefused`, `TeamsUserNotAllowed`."""
        ...

    async def aclose(self) -> None:
        """Close the client and its connections."""
        ...
