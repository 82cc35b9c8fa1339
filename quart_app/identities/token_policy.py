"""What callers may ask for in a token: less than the deployment allows, never more."""

from dataclasses import dataclass

from quart_app.acs.interface import TokenRequest
from quart_app.settings import included_scopes

SHORTEST_MINUTES = 60
"""ACS's own minimum (azure-rest-api-specs: CommunicationIdentity.json 2023-10-01)."""


class TokenRequestError(Exception):
    """The caller asks for a token that the deployment does not allow. The message says what it allows."""


class ScopeNotAllowed(TokenRequestError):
    """A scope is unknown, or not among those that the deployment allows."""


class LifetimeNotAllowed(TokenRequestError):
    """The lifetime is shorter than ACS allows, or longer than the deployment does."""


@dataclass(frozen=True, slots=True)
class TokenPolicy:
    """The most that a token may be good for: its scopes, and for how many minutes."""

    scopes: tuple[str, ...]
    minutes: int

    def narrowed(self, scopes: tuple[str, ...] | None, minutes: int | None) -> TokenRequest:
        """What to ask ACS for: what the caller asks for, or everything where the caller says nothing.

        Raises `ScopeNotAllowed`, `LifetimeNotAllowed`.
        """
        allowed = included_scopes(self.scopes)
        if scopes is not None and (not scopes or not set(scopes) <= allowed):
            raise ScopeNotAllowed(f"scope must be one or more of: {' '.join(sorted(allowed))}.")
        if minutes is not None and not SHORTEST_MINUTES <= minutes <= self.minutes:
            raise LifetimeNotAllowed(f"minutes must be a number from {SHORTEST_MINUTES} to {self.minutes}.")
        return TokenRequest(
            tuple(sorted(set(self.scopes if scopes is None else scopes))),
            self.minutes if minutes is None else minutes,
        )
