"""MSAL in front: access tokens of Microsoft Entra ID, silently if possible."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import msal
import requests

from acs_auth_client.errors import AcsAuthError, PassingTrouble

SignIn = Callable[[list[str], str | None], dict[str, Any]]
"""Lets the user sign in for scopes, with the claims of a challenge as JSON; returns what MSAL returned."""

_NEEDS_THE_USER = frozenset({"interaction_required", "login_required", "consent_required", "invalid_grant"})
_PASSING = frozenset({"temporarily_unavailable", "server_error"})


class EntraTokens:
    """The signed-in user's access tokens. MSAL is synchronous: it runs in threads of its own."""

    def __init__(self, application: msal.PublicClientApplication, sign_in: SignIn | None) -> None:
        self._application = application
        self._sign_in = sign_in or self._interactively

    async def get(self, scopes: list[str], *, claims: str | None, refused: bool, left: float = 0) -> str:
        """A token for `scopes`, good for `left` seconds or more where Entra ID gives such a one.

        MSAL's cache is passed by for `claims`, and for a token that was `refused`. Raises `AcsAuthError`.
        """
        return await asyncio.to_thread(self._get, scopes, claims, refused, left)

    def _get(self, scopes: list[str], claims: str | None, refused: bool, left: float) -> str:
        answer = self._silently(scopes, claims, refused)
        if answer is not None and "access_token" in answer and _left(answer) < left:
            answer = self._silently(scopes, claims, True)
        if answer is None or answer.get("error") in _NEEDS_THE_USER:
            try:
                answer = self._sign_in(scopes, claims)
            except Exception as error:
                raise AcsAuthError("The sign-in did not succeed.", "sign_in_failed") from error
            if "access_token" not in answer:
                raise AcsAuthError(f"The sign-in did not succeed ({answer.get('error')}).", "sign_in_failed")
        if "access_token" not in answer:
            kind = PassingTrouble if answer.get("error") in _PASSING else AcsAuthError
            raise kind(f"Microsoft Entra ID gave no token ({answer.get('error')}).", "entra_unavailable")
        return str(answer["access_token"])

    def _silently(self, scopes: list[str], claims: str | None, force: bool) -> dict[str, Any] | None:
        accounts = self._application.get_accounts()
        if not accounts:
            return None
        try:
            answer: dict[str, Any] | None = self._application.acquire_token_silent_with_error(
                scopes, accounts[0], force_refresh=force, claims_challenge=claims
            )
        except requests.RequestException as error:
            raise PassingTrouble("Microsoft Entra ID can't be reached.", "entra_unavailable") from error
        return answer

    def _interactively(self, scopes: list[str], claims: str | None) -> dict[str, Any]:
        answer: dict[str, Any] = self._application.acquire_token_interactive(scopes, claims_challenge=claims)
        return answer


def _left(answer: dict[str, Any]) -> float:
    """The seconds that a token is still good, as MSAL tells them."""
    expires_in = answer.get("expires_in")
    return float(expires_in) if isinstance(expires_in, int | float) else time.time()
