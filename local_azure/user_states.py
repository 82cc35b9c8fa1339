"""What happened to users of the directory, and what they hold: every stand-in reads it, tests and the CLI write it."""

from enum import StrEnum
from typing import NamedTuple, Protocol

from local_azure.clock import Clock
from local_azure.state import State

RESTORABLE_SECONDS = 30 * 24 * 60 * 60
"""How long a deleted user can be restored: https://learn.microsoft.com/graph/api/user-delete."""


class UserObject(Protocol):
    """A user object of one tenant."""

    @property
    def tenant_id(self) -> str:
        """Its tenant."""
        ...

    @property
    def object_id(self) -> str:
        """Its id within the tenant."""
        ...


class UserKey(NamedTuple):
    """Names a user object, and nothing more."""

    tenant_id: str
    object_id: str


class Mark(StrEnum):
    """What a user may hold or lack; nobody has a mark without being given one."""

    DIRECTORY_ROLE = "directory_role"
    """Holds a role such as Global Administrator: no application may change this user.
    (https://learn.microsoft.com/graph/api/resources/users, "Who can perform sensitive actions")."""

    WITHOUT_TEAMS = "without_teams"
    """Has no Teams licence, or is a guest: ACS exchanges no Teams token."""


class NotRestorable(Exception):
    """The user was not deleted, or for longer than `RESTORABLE_SECONDS`, or was purged."""


class UserStates:
    """Marks and deletions, kept over restarts. Users who are unknown here are live and unmarked."""

    def __init__(self, state: State, clock: Clock) -> None:
        self._database = state.database
        self._clock = clock
        self._database.executescript(
            "CREATE TABLE IF NOT EXISTS user_marks (tenant TEXT, object TEXT, mark TEXT,"
            " PRIMARY KEY (tenant, object, mark));"
            "CREATE TABLE IF NOT EXISTS deleted_users (tenant TEXT, object TEXT, deleted_at REAL,"
            " purged INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (tenant, object));"
        )

    def mark(self, user: UserObject, *marks: Mark) -> None:
        """Give the user these marks; those that the user has stay."""
        rows = [(user.tenant_id, user.object_id, mark) for mark in marks]
        self._database.executemany("INSERT OR IGNORE INTO user_marks VALUES (?, ?, ?)", rows)

    def clear_marks(self, user: UserObject) -> None:
        """Take all marks from the user."""
        self._database.execute("DELETE FROM user_marks WHERE tenant = ? AND object = ?", _key(user))

    def has(self, user: UserObject, mark: Mark) -> bool:
        """Whether the user has the mark."""
        found = self._database.execute(
            "SELECT 1 FROM user_marks WHERE tenant = ? AND object = ? AND mark = ?", (*_key(user), mark)
        )
        return found.fetchone() is not None

    def delete(self, user: UserObject) -> None:
        """Delete the user, who can be restored for a while. Nothing happens when that was done already."""
        self._database.execute(
            "INSERT OR IGNORE INTO deleted_users (tenant, object, deleted_at) VALUES (?, ?, ?)",
            (*_key(user), self._clock()),
        )

    def purge(self, user: UserObject) -> None:
        """Delete the user for good."""
        self.delete(user)
        self._database.execute("UPDATE deleted_users SET purged = 1 WHERE tenant = ? AND object = ?", _key(user))

    def restore(self, user: UserObject) -> None:
        """Bring a deleted user back. Raises `NotRestorable`."""
        if self.deleted_at(user) is None:
            raise NotRestorable
        self._database.execute("DELETE FROM deleted_users WHERE tenant = ? AND object = ?", _key(user))

    def is_deleted(self, user: UserObject) -> bool:
        """Whether the user was deleted, restorable or not."""
        found = self._database.execute("SELECT 1 FROM deleted_users WHERE tenant = ? AND object = ?", _key(user))
        return found.fetchone() is not None

    def deleted(self) -> set[UserKey]:
        """Everybody who was deleted, restorable or not."""
        rows = self._database.execute("SELECT tenant, object FROM deleted_users")
        return {UserKey(row["tenant"], row["object"]) for row in rows}

    def restorable(self) -> dict[UserKey, float]:
        """The deleted users who can be restored, and when each was deleted (seconds since the epoch)."""
        rows = self._database.execute(
            "SELECT tenant, object, deleted_at FROM deleted_users WHERE NOT purged AND deleted_at > ?",
            (self._clock() - RESTORABLE_SECONDS,),
        )
        return {UserKey(row["tenant"], row["object"]): row["deleted_at"] for row in rows}

    def deleted_at(self, user: UserObject) -> float | None:
        """When a user who can be restored was deleted, in seconds since the epoch; `None` for every other user."""
        return self.restorable().get(_key(user))


def _key(user: UserObject) -> UserKey:
    return UserKey(user.tenant_id, user.object_id)
