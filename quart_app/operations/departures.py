"""Finds mappings whose users no longer exist in Entra ID, relying only on what Entra ID says.

A user has departed who is missing from an answer that is certainly complete, is not among the deleted users who can
still be restored (30 days), and is missing again after that, because a user may be restored between the two questions.
A question without an answer decides nothing.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from enum import StrEnum

from quart_app.operations.directory import USERS_PER_QUESTION, Directory, is_object_id
from storage.mapping import IdentityMapping, UserKey
from upstream.errors import UpstreamError


class Standing(StrEnum):
    """What Entra ID says about a user.

    restorable  was deleted, and can be restored
    departed    no longer exists, for good
    undecided   Entra ID did not answer
    """

    RESTORABLE = "restorable"
    DEPARTED = "departed"
    UNDECIDED = "undecided"


class Departures:
    """Collects users and asks for them in batches. Users who exist, and those of other issuers, have no standing.

    It does not ask about a mapping that is younger than a day, because the directory takes a while to spread a
    new user. `now` is in UTC.
    """

    def __init__(self, directory: Directory, now: Callable[[], datetime]) -> None:
        self._directory = directory
        self._now = now
        self._waiting: defaultdict[str, list[str]] = defaultdict(list)
        self._standings: dict[UserKey, tuple[Standing, str]] = {}
        self._unanswered: defaultdict[str, int] = defaultdict(int)

    def standing(self, user: UserKey) -> tuple[Standing, str] | None:
        """What was found out, with the reason; `None` for a user who exists or was not asked for."""
        return self._standings.get(user)

    async def add(self, mapping: IdentityMapping) -> None:
        """Note the user of a mapping, and ask as soon as a batch is full."""
        user = mapping.user
        if "://" in user.issuer or mapping.deleting or self._now() - mapping.created_at < _SETTLED_AFTER:
            return
        if user.issuer not in self._directory.tenants:
            self._undecided([user], "its tenant is not in ENTRA_ALLOWED_TENANTS")
        elif not is_object_id(user.subject):
            self._undecided([user], "its subject is not the id of an object in Entra ID")
        else:
            self._waiting[user.issuer].append(user.subject)
            if len(self._waiting[user.issuer]) >= USERS_PER_QUESTION:
                await self._ask(user.issuer)

    async def finish(self) -> None:
        """Ask for everybody who is left."""
        for tenant in list(self._waiting):
            await self._ask(tenant)

    async def _ask(self, tenant: str) -> None:
        subjects = self._waiting.pop(tenant, [])
        if self._unanswered[tenant] >= _GIVE_UP_AFTER:
            self._undecided([UserKey(tenant, each) for each in subjects], "Entra ID gave no answer earlier")
            return
        try:
            missing = await self._missing(tenant, subjects)
            kept, candidates = await self._split(tenant, missing)
            gone = await self._missing(tenant, candidates)
        except UpstreamError as error:
            self._unanswered[tenant] += 1
            self._undecided([UserKey(tenant, each) for each in subjects], str(error))
            return
        self._unanswered[tenant] = 0
        for subject in kept:
            self._standings[UserKey(tenant, subject)] = Standing.RESTORABLE, "its user was deleted, and can be restored"
        for subject in gone:
            self._standings[UserKey(tenant, subject)] = Standing.DEPARTED, "its user no longer exists"

    async def _missing(self, tenant: str, subjects: Sequence[str]) -> list[str]:
        if not subjects:
            return []
        existing = await self._directory.existing(tenant, subjects)
        return [each for each in subjects if each.lower() not in existing]

    async def _split(self, tenant: str, missing: Sequence[str]) -> tuple[list[str], list[str]]:
        """Those who can be restored, and the others."""
        kept: list[str] = []
        others: list[str] = []
        for subject in missing:
            restorable = await self._directory.is_restorable(tenant, subject)
            (kept if restorable else others).append(subject)
        return kept, others

    def _undecided(self, users: Sequence[UserKey], reason: str) -> None:
        for user in users:
            self._standings[user] = Standing.UNDECIDED, f"it is not known whether its user exists: {reason}"


_SETTLED_AFTER = timedelta(days=1)
_GIVE_UP_AFTER = 3
