"""Mistakes that break the 1:1 rule, one class each, to show that the exploration of interleavings finds them."""

import contextlib
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime

from quart_app.acs.interface import TokenRequest
from quart_app.identities import Identity, IdentityNotFound, IdentityService, IssuedToken
from quart_app.identities.service import _Minted
from storage.mapping import (
    IdentityMapping,
    MappingChanged,
    MappingStore,
    StoreError,
    StoreUnavailable,
    UnreadableMapping,
    UserKey,
)
from tests.support.interleavings import Bounds, Scenario, Subject
from tests.support.memory_store import MemoryMappingStore
from upstream.errors import UpstreamError


class DropsTheInDoubtCheck(IdentityService):
    """Never asks ACS whether an identity still lives after a write of unknown outcome."""

    async def _is_live(self, acs_user_id: str) -> bool:
        return True


class ForgetsTheDoubtAfterARefusal(IdentityService):
    """A refused repetition makes it believe that the first attempt was not written either."""

    async def _write(self, user: UserKey, minted: _Minted) -> IdentityMapping:
        try:
            return await super()._write(user, minted)
        except StoreError:
            minted.in_doubt = False
            raise


class DiscardsAfterALostAnswer(IdentityService):
    """Takes a write without an answer for one that was not done, without reading again."""

    async def _write(self, user: UserKey, minted: _Minted) -> IdentityMapping:
        try:
            return await self._store.create(user, minted.acs_user_id)
        except StoreUnavailable:
            await self._discard(user)
            raise


class ForgetsWhatItMinted(IdentityService):
    """Does not keep an identity whose mapping could not be written."""

    async def _write(self, user: UserKey, minted: _Minted) -> IdentityMapping:
        try:
            return await super()._write(user, minted)
        except StoreError:
            self._pending.pop(user, None)
            raise


class DeletesBeforeItMarks(IdentityService):
    """Deletes the identity before the mapping says so."""

    async def _undo(self, mapping: IdentityMapping) -> IdentityMapping | None:
        await self._delete_identity(mapping.acs_user_id)
        return await super()._undo(mapping)


class RemovesBeforeItDeletes(IdentityService):
    """Removes the mapping before the identity is deleted."""

    async def _undo(self, mapping: IdentityMapping) -> IdentityMapping | None:
        await self._store.remove(mapping)
        await self._delete_identity(mapping.acs_user_id)
        return None


class KeepsTheLosersIdentity(IdentityService):
    """Does not delete what it minted for nothing."""

    async def _discard(self, user: UserKey) -> None:
        self._pending.pop(user)


class GivesUpOnSurplusIdentities(IdentityService):
    """Tries once to delete what it minted for nothing."""

    async def _delete_orphan(self, acs_user_id: str) -> None:
        self._orphans.discard(acs_user_id)
        with contextlib.suppress(UpstreamError):
            await self._delete_identity(acs_user_id)


class TakesAFailedReadForAbsence(IdentityService):
    """A store that does not answer has no mapping."""

    async def _read(self, user: UserKey) -> IdentityMapping | None:
        try:
            return await super()._read(user)
        except StoreUnavailable:
            return None


class AnswersAMarkedMapping(IdentityService):
    """Does not look whether a mapping is being deleted."""

    async def find(self, user: UserKey) -> str:
        mapping = await self._read(user)
        if mapping is None:
            raise IdentityNotFound
        return mapping.acs_user_id


class CreatesOverAMark(IdentityService):
    """Answers a mapping in deletion to who wants to create one."""

    async def _establish_readable(self, user: UserKey, *, mint: bool) -> Identity:
        mapping = await self._read(user)
        if mapping is not None and mapping.deleting:
            return Identity(mapping.acs_user_id, created=False)
        return await super()._establish_readable(user, mint=mint)


class TrustsItsMemory(IdentityService):
    """Does not read the store again when ACS refuses the identity that it remembers."""

    async def _issue_token(self, user: UserKey, request: TokenRequest | None) -> IssuedToken:
        acs_user_id = self._cache.get(user) or await self.find(user)
        return IssuedToken(acs_user_id, await self._issue(acs_user_id, request))


class LeavesDeletionsUnfinished(IdentityService):
    """Does not go on with a deletion that failed half way."""

    def _interrupted(self) -> list[UserKey]:
        return []


class MarksBeforeItRevokes(IdentityService):
    """A token that is issued between the mark and the revocation is kept as one from after the sign-out."""

    async def _sign_out(self, user: UserKey) -> None:
        mapping = await self._find(user)
        await self._store.change(mapping, signed_out_at=self._next_sign_out(mapping))
        await self._revoke(mapping.acs_user_id)


class RevokesWithoutAMark(IdentityService):
    """Other processes do not learn that what they keep is revoked."""

    async def _sign_out(self, user: UserKey) -> None:
        await self._revoke(await self.find(user))


class TakesAnothersSignOutForItsOwn(IdentityService):
    """Does not mark again what someone else changed, although it revoked later."""

    async def _sign_out(self, user: UserKey) -> None:
        mapping = await self._find(user)
        await self._revoke(mapping.acs_user_id)
        with contextlib.suppress(MappingChanged):
            await self._store.change(mapping, signed_out_at=self._next_sign_out(mapping))


class SignsOutTwiceAtTheSameTime(IdentityService):
    """A clock that stands still makes the second mark no change, and so no new version."""

    def _next_sign_out(self, mapping: IdentityMapping) -> datetime:
        return self._now()


class KeepsByTheVersionAfterwards(IdentityService):
    """Reads the mapping after the token was issued, to keep it."""

    async def issue_token(
        self, user: UserKey, request: TokenRequest | None = None, *, fresh: bool = False, keep: bool = True
    ) -> IssuedToken:
        assert self._token_cache is not None
        mapping = await self._find(user)
        token = self._token_cache.find(mapping.acs_user_id, request, mapping.version)
        if token is not None:
            return IssuedToken(mapping.acs_user_id, token)
        issued = await self._issue_token(user, request)
        mapping = await self._find(user)
        self._token_cache.keep(issued.acs_user_id, request, mapping.version, issued.token)
        return issued


class TellsThatTheIdentityIsGoneUnseen(IdentityService):
    """Does not read the store again when ACS refuses to revoke the tokens of a deleted identity."""

    async def _sign_out(self, user: UserKey) -> None:
        mapping = await self._find(user)
        await self._revoke(mapping.acs_user_id)
        await self._store.change(mapping, signed_out_at=self._next_sign_out(mapping))


class TellsColleaguesOfAMarkedMapping(IdentityService):
    """Does not look whether a mapping is being deleted when a colleague asks."""

    async def resolve(self, issuer: str, subjects: Iterable[str]) -> dict[str, str]:
        read = {subject: await self._read(UserKey(issuer, subject)) for subject in subjects}
        return {subject: mapping.acs_user_id for subject, mapping in read.items() if mapping is not None}


class TellsColleaguesFromMemory(IdentityService):
    """Does not read the store for an identity that it remembers when a colleague asks."""

    async def resolve(self, issuer: str, subjects: Iterable[str]) -> dict[str, str]:
        users = [UserKey(issuer, subject) for subject in subjects]
        remembered = {user.subject: self._cache[user] for user in users if user in self._cache}
        return remembered | await super().resolve(issuer, (user.subject for user in users if user not in self._cache))


class UpsertingStore(MemoryMappingStore):
    """Overwrites what is there."""

    async def create(self, user: UserKey, acs_user_id: str, created_at: datetime | None = None) -> IdentityMapping:
        self.stored.pop(user, None)
        return await super().create(user, acs_user_id, created_at)


class StoreThatRemovesAnyVersion(MemoryMappingStore):
    """Removes whatever mapping the user has by now."""

    async def remove(self, stored: IdentityMapping | UnreadableMapping) -> None:
        assert stored.user is not None
        self.stored.pop(stored.user, None)


class StoreThatMarksAnyVersion(MemoryMappingStore):
    """Marks whatever mapping the user has by now, and says that it is the one that was read."""

    async def change(
        self, mapping: IdentityMapping, *, deleting: bool | None = None, signed_out_at: datetime | None = None
    ) -> IdentityMapping:
        current = self.stored.get(mapping.user)
        if current is None:
            return await super().change(mapping, deleting=deleting, signed_out_at=signed_out_at)
        marked = await super().change(current, deleting=deleting, signed_out_at=signed_out_at)
        return replace(marked, acs_user_id=mapping.acs_user_id)


_SERVICES: dict[type[IdentityService], tuple[str, Bounds]] = {
    DropsTheInDoubtCheck: ("absent: create | delete", Bounds(faults=1, crashes=0)),
    ForgetsTheDoubtAfterARefusal: ("absent: create | delete", Bounds(faults=2, crashes=0)),
    DiscardsAfterALostAnswer: ("absent: create", Bounds(faults=1, crashes=0)),
    ForgetsWhatItMinted: ("absent: create", Bounds(faults=2, crashes=0)),
    DeletesBeforeItMarks: ("mapped: delete | token", Bounds(faults=0, crashes=0)),
    RemovesBeforeItDeletes: ("mapped: delete", Bounds(faults=0, crashes=1)),
    KeepsTheLosersIdentity: ("absent: create | create", Bounds(faults=0, crashes=0)),
    GivesUpOnSurplusIdentities: ("absent: create | create", Bounds(faults=1, crashes=0)),
    TakesAFailedReadForAbsence: ("mapped: delete", Bounds(faults=1, crashes=0)),
    AnswersAMarkedMapping: ("mapped: delete | token", Bounds(faults=0, crashes=0)),
    CreatesOverAMark: ("marked: create", Bounds(faults=0, crashes=0)),
    TrustsItsMemory: ("mapped: delete | token", Bounds(faults=0, crashes=0)),
    LeavesDeletionsUnfinished: ("mapped: delete", Bounds(faults=1, crashes=0)),
    MarksBeforeItRevokes: ("mapped: sign-out | token,token", Bounds(faults=0, crashes=0)),
    RevokesWithoutAMark: ("mapped: sign-out | token", Bounds(faults=0, crashes=0)),
    TakesAnothersSignOutForItsOwn: ("mapped: sign-out | sign-out | token", Bounds(faults=0, crashes=0)),
    SignsOutTwiceAtTheSameTime: ("mapped: sign-out,sign-out | token,token", Bounds(faults=0, crashes=0)),
    KeepsByTheVersionAfterwards: ("mapped: sign-out | sign-out,token", Bounds(faults=0, crashes=0)),
    TellsColleaguesOfAMarkedMapping: ("marked: resolve", Bounds(faults=0, crashes=0)),
    TellsColleaguesFromMemory: ("mapped: delete | resolve", Bounds(faults=0, crashes=0)),
    TellsThatTheIdentityIsGoneUnseen: ("mapped: sign-out | delete", Bounds(faults=0, crashes=0)),
}
_STORES: dict[type[MemoryMappingStore], tuple[str, Bounds]] = {
    UpsertingStore: ("absent: create | create", Bounds(faults=0, crashes=0)),
    StoreThatRemovesAnyVersion: ("mapped: delete,create | delete", Bounds(faults=0, crashes=0)),
    StoreThatMarksAnyVersion: ("mapped: delete,create | delete", Bounds(faults=0, crashes=0)),
}


def _store(made: type[MemoryMappingStore]) -> MappingStore:
    return made()


BUGS: dict[str, tuple[Subject, Scenario, Bounds]] = {
    **{bug.__name__: (Subject(service=bug), Scenario(text), bounds) for bug, (text, bounds) in _SERVICES.items()},
    **{
        bug.__name__: (Subject(store=lambda bug=bug: _store(bug)), Scenario(text), bounds)  # type: ignore[misc]
        for bug, (text, bounds) in _STORES.items()
    },
}
"""Each mistake, and where it shows: a scenario, and bounds within which it is found."""
