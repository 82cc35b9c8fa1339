"""What stands between a user and the service's on-behalf-of calls: missing consent, a policy that wants MFA."""

import json

from local_azure.entra.directory import Application, User
from local_azure.entra.errors import EntraError
from local_azure.entra.scopes import consent_required
from local_azure.state import State

MULTI_FACTOR_CHALLENGE = json.dumps(
    {"access_token": {"polids": {"essential": True, "values": ["9f0c7a3e-5b1d-4c28-8e64-2d7b1a0f3c55"]}}},
    separators=(",", ":"),
)
"""The claims challenge of the multi-factor policy; a sign-in that sends it back counts as multi-factor."""

_CONSENT = "consent_missing"
_MULTI_FACTOR = "multi_factor_required"


class Conditions:
    """The scripted conditions of each user, kept over restarts."""

    def __init__(self, state: State) -> None:
        self._database = state.database
        self._database.execute(
            "CREATE TABLE IF NOT EXISTS entra_conditions (alias TEXT NOT NULL, name TEXT NOT NULL,"
            " PRIMARY KEY (alias, name))"
        )

    def remove_consent(self, user: User) -> None:
        """On-behalf-of calls fail with AADSTS65001 until a sign-in with `prompt=consent`."""
        self._set(user, _CONSENT)

    def require_multi_factor(self, user: User) -> None:
        """On-behalf-of calls fail with AADSTS50076 and a claims challenge, unless the user's token answered it."""
        self._set(user, _MULTI_FACTOR)

    def give_consent(self, user: User) -> None:
        """The user consents."""
        self._database.execute("DELETE FROM entra_conditions WHERE alias = ? AND name = ?", (user.alias, _CONSENT))

    def clear(self, user: User | None = None) -> None:
        """Forget the conditions of one user, or of all."""
        if user is None:
            self._database.execute("DELETE FROM entra_conditions")
        else:
            self._database.execute("DELETE FROM entra_conditions WHERE alias = ?", (user.alias,))

    def check(self, user: User, client: Application, resource: str, *, multi_factor: bool) -> None:
        """Raise the `EntraError` of the first condition that is not met."""
        rows = self._database.execute("SELECT name FROM entra_conditions WHERE alias = ?", (user.alias,)).fetchall()
        names = {row["name"] for row in rows}
        if _CONSENT in names:
            raise consent_required(client)
        if _MULTI_FACTOR in names and not multi_factor:
            raise EntraError(
                50076,
                "interaction_required",
                "Due to a configuration change made by your administrator, or because you moved to a new location, "
                f"you must use multi-factor authentication to access '{resource}'.",
                suberror="basic_action",
                claims=MULTI_FACTOR_CHALLENGE,
            )

    def _set(self, user: User, name: str) -> None:
        self._database.execute("INSERT OR IGNORE INTO entra_conditions VALUES (?, ?)", (user.alias, name))
