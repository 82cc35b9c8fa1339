"""Why there is no token on behalf of the caller; kept apart from MSAL, which only some stores need."""

from typing import ClassVar

from quart_app.clouds import ENTRA
from upstream.errors import Throttled, Unavailable, UpstreamError


class OnBehalfOfError(UpstreamError):
    """There is no token. Messages hold no token, secret, user or upstream text."""

    upstream: ClassVar[str] = ENTRA


class ClaimsChallengeRequired(OnBehalfOfError):
    """The caller must sign in again and prove more. `claims` is the challenge for the client, as JSON.

    https://learn.microsoft.com/entra/identity-platform/v2-conditional-access-dev-guide
    """

    outcome: ClassVar[str] = "refused"

    def __init__(self, claims: str) -> None:
        super().__init__("Signing in again with further claims is required.")
        self.claims = claims


class ConsentRequired(OnBehalfOfError):
    """Nobody has consented to this service acting for the caller (AADSTS65001)."""

    outcome: ClassVar[str] = "refused"

    def __init__(self) -> None:
        super().__init__("The user or an administrator must consent to this service's permissions.")


class InteractionRequired(OnBehalfOfError):
    """The caller must sign in interactively (AADSTS50076, 50079), and Entra ID gave no challenge to pass on."""

    outcome: ClassVar[str] = "refused"

    def __init__(self) -> None:
        super().__init__("The user must sign in interactively.")


class AssertionRefused(OnBehalfOfError):
    """Entra ID does not accept the caller's token, and a new one would do: expired, revoked (AADSTS50013, 500133)."""

    outcome: ClassVar[str] = "refused"

    def __init__(self, code: str) -> None:
        super().__init__(f"The caller's token was refused ({code}).")


class CallerNotAllowed(OnBehalfOfError):
    """The tenant does not let this user in: disabled, not assigned, blocked by a policy (AADSTS50105, 53003)."""

    outcome: ClassVar[str] = "refused"

    def __init__(self, code: str) -> None:
        super().__init__(f"The tenant's policy does not let the caller in ({code}).")


class CallerNotFound(OnBehalfOfError):
    """The user is not, or no longer, in the tenant (AADSTS50034, 51004)."""

    outcome: ClassVar[str] = "refused"

    def __init__(self, code: str) -> None:
        super().__init__(f"The caller does not exist in the tenant ({code}).")


class OnBehalfOfCredentialsRejected(OnBehalfOfError):
    """Entra ID refuses this service's own credential or registration."""

    def __init__(self, code: str) -> None:
        super().__init__(f"This service's credential was rejected ({code}).")


class OnBehalfOfMisconfigured(OnBehalfOfError):
    """It can't work until an operator changes something; the message says what."""


class OnBehalfOfUnexpectedAnswer(OnBehalfOfError):
    """Entra ID answered in its own form, with a code or content that this service does not know."""

    def __init__(self, code: str | None = None) -> None:
        super().__init__(f"Entra ID gave an unexpected answer{f' ({code})' if code else ''}.")


class OnBehalfOfThrottled(Throttled, OnBehalfOfError):
    """429: nothing was done. `retry_after` is in seconds."""

    def __init__(self, retry_after: float | None = None) -> None:
        super().__init__("Entra ID is throttling requests.", retry_after)


class OnBehalfOfUnavailable(Unavailable, OnBehalfOfError):
    """Entra ID could not be reached or failed. `retry_after` is in seconds."""

    def __init__(self, retry_after: float | None = None) -> None:
        super().__init__("Entra ID is unavailable.", retry_after)
