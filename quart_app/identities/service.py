"""Creating, finding and deleting a user's one identity, and issuing its tokens."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TypeVar
from weakref import WeakValueDictionary

from cachetools import TTLCache

from quart_app.acs.interface import AcsClient, AcsToken, IdentityGone, IdentityNotOwned, TokenRequest
from quart_app.identities.errors import IdentityNotFound, MappedIdentityGone, MappedIdentityNotOwned, TooManyFlights
from quart_app.identities.reconciler import Reconciler, ReconcilerOptions
from quart_app.identities.refused_writes import RefusedWrites
from quart_app.identities.token_cache import TokenCache
from storage.mapping import (
    ExtensionLimitReached,
    IdentityMapping,
    MappingChanged,
    MappingExists,
    MappingStore,
    MappingUnreadable,
    StoreError,
    StoreUnavailable,
    StoreUnexpectedAnswer,
    Unreadable,
    UnreadableMapping,
    UserKey,
)
from upstream.deadline import deadline, own_deadline, remaining
from upstream.errors import UpstreamError
from upstream.retrying import RetryPolicy
from upstream.single_flight import SingleFlight

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")

logger = logging.getLogger(__name__)

_ROUNDS = 8
"""How often one call starts over because other processes changed the mapping under it."""

_RESOLVED_AT_ONCE = 10
"""How many mappings one call of `resolve` reads at the same time."""

_NOTED_AT_MOST = 10_000
"""For how many users it is remembered that their mapping's seal can't be verified."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A user's ACS identity; `created` says that this very call created it."""

    acs_user_id: str = field(repr=False)
    created: bool


@dataclass(frozen=True, slots=True)
class IssuedToken:
    """An ACS access token and whose it is."""

    acs_user_id: str = field(repr=False)
    token: AcsToken


class IdentityService:
    """Keeps users and ACS identities 1:1. Make it inside the running event loop, once per process.

    Creating and deleting are flights: once begun they have their own time limit, outlive their callers, and a
    repeated call joins them. The service remembers what they must leave open: a minted identity until it is known which
    mapping the store holds, a deletion until it is finished. The user's next request goes on with it, and so does a
    background task. Seven things can't be guaranteed:

    - A process that dies between minting and writing the mapping leaves an identity that nobody knows. ACS offers no
      key to find it again by: `customId` was in one preview only, was not atomic, and is gone.
    - A write that a store carries out after the same mapping was created, used and deleted again points to a deleted
      identity. `issue_token` then raises `MappedIdentityGone`, and deleting the mapping mends it.
    - The same happens if a process repeats a write whose first answer was lost while another process deletes what it
      wrote, and the first one dies before it has asked ACS whether the identity still lives.
    - A mark that a store writes after it was looked for and not found is finished by the user's next `delete` or
      `get_or_create`, or by an operator's reconciliation.
    - What is in the place of a user's mapping and can't be read (`MappingUnreadable`) never counts as absence.
      `delete` removes it, with the identity if it is certain whose that is; otherwise the identity is left behind.
    - A revocation that ACS carries out after its answer was lost and it was repeated ends newer tokens, too. If one
      is kept, it is returned until its time is over, unless a new one is asked for.
    - The background task acts for no user. With a store that needs the caller's own token, what a request left
      open is settled by that user's next one.

    cache_seconds    how long `issue_token` trusts a mapping without reading the store; 0 reads it every time
    cache_size       how many mappings are remembered at most
    timer            for the cache, in seconds
    token_cache      if given, `issue_token` returns a token from there while it is fresh
    retry            repeats a write of a mapping whose outcome is unknown; by default nothing does. Afterwards ACS is
                     asked whether the identity still exists
    pending_limit    how many identities may be on their way at once, pending ones included; no more are minted
    flight_seconds   how long a creation or a deletion may take, whatever deadline its callers have
    flight_limit     how many creations, deletions and sign-outs may be under way at once, those whose callers have left
                     included; no more are begun
    on_refused       called each time one is not begun
    reconcile_seconds  the deadline of each thing that is done in the background
    now              the time of a sign-out, in UTC
    on_lookup        called each time `issue_token` looks for a mapping in memory, with whether it was there
    close_seconds    how long `aclose` waits for work that has begun, and then once more to settle what is left
    """

    def __init__(
        self,
        store: MappingStore,
        acs: AcsClient,
        *,
        cache_seconds: float = 10.0,
        cache_size: int = 10_000,
        timer: Callable[[], float] = time.monotonic,
        token_cache: TokenCache | None = None,
        retry: RetryPolicy | None = None,
        pending_limit: int = 10_000,
        flight_seconds: float = 40.0,
        flight_limit: int = 500,
        reconcile_seconds: float = 10.0,
        close_seconds: float = 5.0,
        reconciler: ReconcilerOptions | None = None,
        on_lookup: Callable[[bool], None] = lambda hit: None,
        on_refused: Callable[[], None] = lambda: None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._store = store
        self._on_lookup = on_lookup
        self._now = now
        self._acs = acs
        self._token_cache = token_cache
        self._retry = retry or RetryPolicy(attempts=1)
        self._cache: TTLCache[UserKey, str] = TTLCache(cache_size, cache_seconds, timer)
        self._refused_writes = RefusedWrites(timer)
        self._pending_limit = pending_limit
        self._flight_seconds = flight_seconds
        self._flight_limit = flight_limit
        self._on_refused = on_refused
        self._reconcile_seconds = reconcile_seconds
        self._close_seconds = close_seconds
        self._flights: SingleFlight[UserKey, Identity] = SingleFlight()
        self._deletions: SingleFlight[tuple[UserKey, bool], None] = SingleFlight()
        self._sign_outs: SingleFlight[object, None] = SingleFlight()
        self._locks: WeakValueDictionary[UserKey, asyncio.Lock] = WeakValueDictionary()
        self._minting = 0
        self._pending: dict[UserKey, _Minted] = {}
        self._orphans: set[str] = set()
        self._unfinished: set[UserKey] = set()
        self._left_behind = 0
        self._without_seal_key: set[UserKey] = set()
        self._reconciler = Reconciler(self.reconcile, reconciler or ReconcilerOptions())

    @property
    def pending(self) -> int:
        """How many identities were minted and are not known to be mapped, those of requests in flight included."""
        return len(self._pending)

    @property
    def orphans(self) -> int:
        """How many surplus identities could not be deleted yet, or were left behind as it is unclear whose they are."""
        return len(self._orphans) + self._left_behind

    @property
    def unfinished_deletions(self) -> int:
        """How many deletions this process began, or may have begun, and has not finished."""
        return len(self._unfinished)

    @property
    def without_seal_key(self) -> int:
        """How many users' mappings are sealed with a key that the store does not hold, as far as is known."""
        return len(self._without_seal_key)

    async def find(self, user: UserKey) -> str:
        """The user's ACS user id, read from the store. Raises `IdentityNotFound`, `StoreError`."""
        return (await self._find(user)).acs_user_id

    async def _find(self, user: UserKey) -> IdentityMapping:
        mapping = await self._read(user)
        if mapping is None or mapping.deleting:
            self._cache.pop(user, None)
            raise IdentityNotFound
        self._cache[user] = mapping.acs_user_id
        return mapping

    async def resolve(self, issuer: str, subjects: Iterable[str]) -> dict[str, str]:
        """The ACS user ids of those `subjects` of one issuer who have an identity, in the order of `subjects`.

        Subjects that are unknown, have no identity, or whose identity is being deleted are all left out. The store is
        read for each, several at a time. If one read fails, the call fails: nobody is left out because of it.
        Raises `StoreError`; `StoreUnexpectedAnswer` for a mapping that can't be read.
        """
        wanted = dict.fromkeys(subjects)
        left = iter(wanted)
        found: dict[str, str] = {}

        async def read() -> None:
            for subject in left:
                user = UserKey(issuer, subject)
                mapping = await self._read(user)
                if mapping is None or mapping.deleting:
                    self._cache.pop(user, None)
                else:
                    found[subject] = mapping.acs_user_id

        try:
            async with asyncio.TaskGroup() as reading:
                for _ in range(min(_RESOLVED_AT_ONCE, len(wanted))):
                    reading.create_task(read())
        except ExceptionGroup as failed:
            first = failed.exceptions[0]
            raise StoreUnexpectedAnswer("unreadable") if isinstance(first, MappingUnreadable) else first from None
        return {subject: found[subject] for subject in wanted if subject in found}

    async def get_or_create(self, user: UserKey) -> Identity:
        """The user's identity, minted if there is none.

        Simultaneous calls for one user share the work and its outcome, errors included; it runs on when callers are
        cancelled. Raises `TooManyFlights`, `StoreError`, `AcsError`; after each, repeating the call is safe.
        """
        flight, leads = self._begin(self._flights, user, lambda: self._create(user))
        identity = await _outcome(flight)
        return identity if leads else replace(identity, created=False)

    async def delete(self, user: UserKey, *, as_operator: bool = False) -> None:
        """Delete the user's identity and mapping; nothing there is success.

        The mapping is marked, the identity deleted, the mapping removed: what is interrupted in between is resumed by
        the next `delete` or `get_or_create`. What can't be read as a mapping is removed, too, except that a mapping
        sealed with a key that is not held is left to an operator (`as_operator`): then, and only then,
        `MappingUnreadable` is raised. Simultaneous calls for one user share the work and its outcome; it runs on when
        callers are cancelled. Raises `TooManyFlights`, before anything is done, `StoreError`, `AcsError`; after these
        the deletion may have begun, and then goes on in the background.
        """
        key = user, as_operator
        flight, _ = self._begin(self._deletions, key, lambda: self._run_deletion(user, as_operator=as_operator))
        try:
            await _outcome(flight)
        finally:
            self._cache.pop(user, None)

    async def sign_out(self, user: UserKey) -> None:
        """Revoke every ACS access token of the user, on every device; the identity stays.

        The mapping gets a mark, so that no replica returns a token that it kept from before. A token that is
        issued at the same time is either revoked or not, as if it had been asked for before or after. It runs on when
        the caller is cancelled. A deletion that was interrupted is finished, which ends the tokens as well. Raises
        `IdentityNotFound`, `MappedIdentityGone`, `MappedIdentityNotOwned`, `MappingUnreadable` (also for a mapping
        that its user may have written), `TooManyFlights`, `StoreError`, `AcsError`; after an error, repeating the call
        is safe.
        """
        # Each call is a flight of its own: a caller who joined one that has already revoked would keep newer tokens.
        flight, _ = self._begin(self._sign_outs, object(), lambda: self._run_sign_out(user))
        await _outcome(flight)

    async def issue_token(
        self, user: UserKey, request: TokenRequest | None = None, *, fresh: bool = False, keep: bool = True
    ) -> IssuedToken:
        """An ACS access token for the user's identity: newly issued, or a kept one unless `fresh` is asked for.

        `request` says what it is good for, by default everything that the deployment allows.

        To issue one, the mapping may come from memory, because ACS refuses an identity that was deleted meanwhile: then
        the store is read again, and the call repeated once if it holds another identity. To return a kept one, ACS is
        not asked, so the mapping is read from the store: what any process deleted or replaced is never returned. `keep`
        says whether a new token may be kept. Raises `IdentityNotFound`, `MappedIdentityGone`, `MappedIdentityNotOwned`,
        `StoreError`, `AcsError`.
        """
        if self._token_cache is None:
            return await self._issue_token(user, request)
        # Read before the token is issued: one that a later sign-out revokes is kept with a version from before it.
        mapping = await self._find(user)
        if not fresh:
            token = self._token_cache.find(mapping.acs_user_id, request, mapping.version)
            if token is not None:
                return IssuedToken(mapping.acs_user_id, token)
        issued = await self._issue_token(user, request)
        if keep and issued.acs_user_id == mapping.acs_user_id:
            self._token_cache.keep(issued.acs_user_id, request, mapping.version, issued.token)
        else:
            self._token_cache.drop(issued.acs_user_id)
        return issued

    async def _issue_token(self, user: UserKey, request: TokenRequest | None) -> IssuedToken:
        remembered = self._cache.get(user)
        self._on_lookup(remembered is not None)
        acs_user_id = remembered or await self.find(user)
        for _ in range(_ROUNDS):
            try:
                return IssuedToken(acs_user_id, await self._issue(acs_user_id, request))
            except (MappedIdentityGone, MappedIdentityNotOwned):
                # What the advice of these errors deletes must be what ACS refused: only the store, read again, can say.
                refused, acs_user_id = acs_user_id, await self.find(user)
                if acs_user_id == refused:
                    self._cache.pop(user, None)
                    raise
        raise StoreUnavailable

    async def reconcile(self) -> int:
        """Try once to settle everything that earlier calls had to leave open, and return how much is still open."""
        for user in self._abandoned():
            try:
                with deadline(self._reconcile_seconds):
                    async with self._alone_with(user):
                        if user in self._pending:
                            await self._reconcile(user)
            except Exception as error:  # one user's trouble must not keep the others waiting
                logger.warning("an identity could not be settled", extra={"error": type(error).__name__})
        for user in self._interrupted():
            try:
                with deadline(self._reconcile_seconds):
                    async with self._alone_with(user):
                        await self._finish_interrupted(user)
            except Exception as error:
                logger.warning("a deletion could not be finished", extra={"error": type(error).__name__})
        for acs_user_id in tuple(self._orphans):
            with deadline(self._reconcile_seconds):
                await self._delete_orphan(acs_user_id)
        return len(self._abandoned()) + len(self._interrupted()) + len(self._orphans)

    async def aclose(self) -> None:
        """Wait for work that has begun, stop the background task, and try once more to settle what is open.

        An identity that is certainly not mapped is deleted, because nobody will know of it. One whose mapping may have
        been written stays, and is reported, as are creations and deletions that were cut off. Neither the store nor the
        client is closed.
        """
        cut = sum(
            await asyncio.gather(
                self._flights.aclose(self._close_seconds),
                self._deletions.aclose(self._close_seconds),
                self._sign_outs.aclose(self._close_seconds),
            )
        )
        await self._reconciler.aclose()
        if not (cut or self._pending or self._orphans or self._unfinished):
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._close_seconds):
                await self.reconcile()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._close_seconds):
                await self._delete_what_is_certainly_unmapped()
        counts = {
            "cut": cut,
            "pending": len(self._pending),
            "orphaned": len(self._orphans),
            "unfinished_deletions": len(self._unfinished),
        }
        logger.log(logging.ERROR if any(counts.values()) else logging.INFO, "closed", extra=counts)

    def _begin(
        self, flights: SingleFlight[K, T], key: K, work: Callable[[], Awaitable[T]]
    ) -> tuple[asyncio.Task[T], bool]:
        """See `SingleFlight.join`. A caller who leaves abandons the flight, which then takes up no request's place."""
        under_way = len(self._flights) + len(self._deletions) + len(self._sign_outs)
        if under_way >= self._flight_limit and key not in flights:
            self._on_refused()
            raise TooManyFlights
        return flights.join(key, work)

    async def _read(self, user: UserKey) -> IdentityMapping | None:
        """The user's mapping as the store holds it. Raises `StoreError`."""
        try:
            mapping = await self._store.get(user)
        except MappingUnreadable as error:
            self._cache.pop(user, None)
            self._note(error.unreadable)
            raise
        self._without_seal_key.discard(user)
        return mapping

    def _note(self, unreadable: UnreadableMapping) -> None:
        logger.warning("a stored mapping can't be read", extra={"reason": str(unreadable)})
        if unreadable.reason is Unreadable.SEAL_KEY_NOT_HELD and unreadable.user is not None:
            if len(self._without_seal_key) < _NOTED_AT_MOST:
                self._without_seal_key.add(unreadable.user)
        elif unreadable.user is not None:
            self._without_seal_key.discard(unreadable.user)

    async def _delete_what_is_certainly_unmapped(self) -> None:
        for user, minted in tuple(self._pending.items()):
            if not minted.in_doubt:
                await self._discard(user)

    async def _create(self, user: UserKey) -> Identity:
        try:
            with own_deadline(self._flight_seconds):
                return await self._create_alone(user)
        finally:
            self._wake_reconciler(user)

    async def _run_deletion(self, user: UserKey, *, as_operator: bool) -> None:
        try:
            with own_deadline(self._flight_seconds):
                async with self._alone_with(user):
                    if user in self._pending:
                        await self._reconcile(user)
                    await self._delete(user, as_operator=as_operator)
        finally:
            self._cache.pop(user, None)
            self._wake_reconciler(user)

    async def _run_sign_out(self, user: UserKey) -> None:
        try:
            with own_deadline(self._flight_seconds):
                async with self._alone_with(user):
                    await self._sign_out(user)
        finally:
            self._wake_reconciler(user)

    async def _sign_out(self, user: UserKey) -> None:
        mapping = await self._read(user)
        revoked: str | None = None
        for _ in range(_ROUNDS):
            if mapping is None:
                self._cache.pop(user, None)
                raise IdentityNotFound
            if mapping.deleting:
                mapping = await self._finish_deletion(mapping)  # which ends its tokens
                continue
            if mapping.unsealed:
                # Its user may have written it, and the identity may be anybody's.
                raise MappingUnreadable(
                    UnreadableMapping(user, mapping.version, Unreadable.UNSEALED, users_may_write=True)
                )
            acs_user_id = mapping.acs_user_id
            try:
                if acs_user_id != revoked:
                    await self._revoke(acs_user_id)
                    revoked = acs_user_id
                # The mark comes second: whoever reads it knows that every token from before is revoked. One that
                # someone else wrote meanwhile says nothing about a token issued between it and this revocation.
                await self._store.change(mapping, signed_out_at=self._next_sign_out(mapping))
            except MappingChanged:
                mapping = await self._read(user)
            except (MappedIdentityGone, MappedIdentityNotOwned):
                mapping = await self._read(user)
                if mapping is not None and mapping.acs_user_id == acs_user_id and not mapping.deleting:
                    raise
            else:
                return
        raise StoreUnavailable

    def _next_sign_out(self, mapping: IdentityMapping) -> datetime:
        """Now, or just after the last one where a clock is behind: the same time again would be no change."""
        if mapping.signed_out_at is None:
            return self._now()
        step = timedelta(microseconds=1)
        if mapping.signed_out_at > datetime.max.replace(tzinfo=UTC) - step:  # a Graph user may write any time
            step = -step
        return max(self._now(), mapping.signed_out_at + step)

    async def _revoke(self, acs_user_id: str) -> None:
        if self._token_cache is not None:
            self._token_cache.drop(acs_user_id)
        try:
            await self._acs.revoke_tokens(acs_user_id)
        except IdentityGone as error:
            raise MappedIdentityGone from error
        except IdentityNotOwned as error:
            raise MappedIdentityNotOwned from error

    async def _create_alone(self, user: UserKey) -> Identity:
        async with self._alone_with(user):
            identity = await self._establish(user, mint=True)
            self._cache[user] = identity.acs_user_id
            return identity

    async def _establish(self, user: UserKey, *, mint: bool) -> Identity:
        """Map the user to one live identity; without `mint`, only from what is pending.

        Raises `IdentityNotFound` when there is nothing and nothing may be minted, `MappingUnreadable` when something
        else is there: what was minted is deleted then.
        """
        try:
            return await self._establish_readable(user, mint=mint)
        except MappingUnreadable:
            if user in self._pending:
                await self._discard(user)
            raise

    async def _establish_readable(self, user: UserKey, *, mint: bool) -> Identity:
        mapping = await self._read(user)
        for _ in range(_ROUNDS):
            if mapping is None:
                if user not in self._pending and not mint:
                    raise IdentityNotFound
                mapping = await self._write(user, self._pending.get(user) or await self._mint(user))
            if mapping.deleting:
                mapping = await self._finish_deletion(mapping)
                continue
            own = self._pending.get(user)
            if own is None:
                return Identity(mapping.acs_user_id, created=False)
            if own.acs_user_id != mapping.acs_user_id:
                await self._discard(user)
                return Identity(mapping.acs_user_id, created=False)
            if own.in_doubt and not await self._is_live(own.acs_user_id):
                mapping = await self._undo(mapping)
                if mapping is None:
                    self._pending.pop(user, None)  # it is deleted: it must not be mapped once more
                continue
            del self._pending[user]
            return Identity(mapping.acs_user_id, created=True)
        raise StoreUnavailable

    async def _mint(self, user: UserKey) -> "_Minted":
        if self._minting + len(self._pending) + len(self._orphans) >= self._pending_limit:
            raise StoreUnavailable
        self._refused_writes.stop_minting()
        self._minting += 1
        try:
            minted = self._pending[user] = _Minted(await self._acs.create_identity())
        finally:
            self._minting -= 1
        return minted

    async def _write(self, user: UserKey, minted: "_Minted") -> IdentityMapping:
        """Create the mapping if there is none; the mapping that is there afterwards, ours or another's."""
        was_in_doubt, minted.in_doubt = minted.in_doubt, True
        repeated = False

        def is_repeatable(error: BaseException) -> bool:
            nonlocal repeated
            in_doubt = isinstance(error, StoreUnavailable)
            repeated = repeated or in_doubt  # a refusal of the repetition says nothing about the first attempt
            return in_doubt

        try:
            mapping = await self._retry.call(lambda: self._store.create(user, minted.acs_user_id), is_repeatable)
        except MappingExists as conflict:
            return conflict.existing
        except MappingUnreadable as error:
            self._note(error.unreadable)
            raise
        except StoreError as error:
            self._refused_writes.learn(error)
            if not repeated and not isinstance(error, StoreUnavailable):
                minted.in_doubt = was_in_doubt  # a refusal: nothing was written
            try:
                read = await self._read(user)
            except MappingUnreadable:
                raise
            except StoreError:
                raise error from None
            if read is not None:
                return read
            if isinstance(error, ExtensionLimitReached):
                await self._discard(user)
            raise
        self._refused_writes.forget()
        minted.in_doubt = was_in_doubt or repeated
        return mapping

    async def _is_live(self, acs_user_id: str) -> bool:
        """Ask ACS, with the one operation that says so and changes nothing.

        A mapping whose write was in doubt may have been seen, and the identity deleted, by another process; then
        writing it once more, as a retry does, makes a mapping to a deleted identity.
        """
        try:
            await self._acs.issue_token(acs_user_id)
        except (IdentityGone, IdentityNotOwned):
            return False
        return True

    async def _undo(self, mapping: IdentityMapping) -> IdentityMapping | None:
        """Delete the mapping and its identity; the mapping that is there afterwards, another's if any."""
        try:
            marked = await self._store.change(mapping, deleting=True)
        except MappingChanged:
            return await self._read(mapping.user)
        except StoreUnavailable:
            self._unfinished.add(mapping.user)  # it may be marked
            raise
        return await self._finish_deletion(marked)

    async def _finish_deletion(self, marked: IdentityMapping) -> IdentityMapping | None:
        """The last two steps of a deletion; the mapping that is there afterwards, another's if any."""
        own = self._pending.get(marked.user)
        if own is not None and own.acs_user_id == marked.acs_user_id:
            del self._pending[marked.user]  # from here on the store remembers that it must be deleted
        elif marked.unsealed:
            return await self._remove_unsealed(marked)
        self._unfinished.add(marked.user)
        await self._delete_identity(marked.acs_user_id)
        try:
            await self._store.remove(marked)
        except MappingChanged:
            mapping = await self._read(marked.user)
        else:
            mapping = None
        if mapping is None or not mapping.deleting:
            self._unfinished.discard(marked.user)
        return mapping

    async def _finish_interrupted(self, user: UserKey) -> None:
        mapping = await self._read(user)
        for _ in range(_ROUNDS):
            if mapping is None or not mapping.deleting:
                self._unfinished.discard(user)
                return
            mapping = await self._finish_deletion(mapping)

    async def _delete(self, user: UserKey, *, as_operator: bool) -> None:
        for _ in range(_ROUNDS):
            try:
                return await self._delete_readable(user)
            except MappingUnreadable as error:
                if error.unreadable.reason is Unreadable.SEAL_KEY_NOT_HELD and not as_operator:
                    raise
                with contextlib.suppress(MappingChanged):
                    return await self._remove_unreadable(error.unreadable)
        raise StoreUnavailable

    async def _delete_readable(self, user: UserKey) -> None:
        mapping = await self._read(user)
        first = mapping and mapping.acs_user_id
        for _ in range(_ROUNDS):
            if mapping is None or (mapping.acs_user_id != first and not mapping.deleting):
                return  # if another one is there, this deletion was finished elsewhere, and the user came back since
            mapping = await self._undo(mapping)
        raise StoreUnavailable

    async def _remove_unreadable(self, unreadable: UnreadableMapping) -> None:
        # The identity first: what is interrupted in between is found again by the next call.
        if unreadable.acs_user_id is not None:
            await self._delete_identity(unreadable.acs_user_id)
        await self._store.remove(unreadable)
        if unreadable.acs_user_id is None:
            self._leave_behind()

    async def _remove_unsealed(self, mapping: IdentityMapping) -> IdentityMapping | None:
        """Remove a mapping that its user may have written; its identity may be anybody's."""
        try:
            await self._store.remove(mapping)
        except MappingChanged:
            return await self._read(mapping.user)
        self._leave_behind()
        return None

    def _leave_behind(self) -> None:
        self._left_behind += 1
        logger.warning("a mapping was removed whose identity is not certain: the identity, if any, is left behind")

    async def _delete_identity(self, acs_user_id: str) -> None:
        if self._token_cache is not None:
            self._token_cache.drop(acs_user_id)  # deleting an identity revokes its tokens
        with contextlib.suppress(IdentityGone, IdentityNotOwned):
            await self._acs.delete_identity(acs_user_id)

    async def _discard(self, user: UserKey) -> None:
        """Delete the identity that was minted for nothing, now or later."""
        acs_user_id = self._pending.pop(user).acs_user_id
        self._orphans.add(acs_user_id)
        await self._delete_orphan(acs_user_id)

    async def _delete_orphan(self, acs_user_id: str) -> None:
        try:
            await self._delete_identity(acs_user_id)
        except UpstreamError as error:  # from ACS, or from the managed identity that ACS is called with
            logger.warning("a surplus identity could not be deleted yet", extra={"error": type(error).__name__})
        else:
            self._orphans.discard(acs_user_id)

    async def _reconcile(self, user: UserKey) -> None:
        # Each means that it is settled: the identity was found deleted, or deleted because it can't be mapped.
        with contextlib.suppress(IdentityNotFound, ExtensionLimitReached, MappingUnreadable):
            await self._establish(user, mint=False)

    async def _issue(self, acs_user_id: str, request: TokenRequest | None) -> AcsToken:
        try:
            return await self._acs.issue_token(acs_user_id, request)
        except (IdentityGone, IdentityNotOwned) as error:
            if self._token_cache is not None:
                self._token_cache.drop(acs_user_id)
            raise (MappedIdentityGone if isinstance(error, IdentityGone) else MappedIdentityNotOwned) from error

    def _abandoned(self) -> list[UserKey]:
        return [user for user in self._pending if user not in self._flights]

    def _interrupted(self) -> list[UserKey]:
        flying = {user for user, _ in self._deletions}
        return [user for user in self._unfinished if user not in flying]

    def _wake_reconciler(self, user: UserKey) -> None:
        if user in self._pending or user in self._unfinished or self._orphans:
            self._reconciler.wake()

    @asynccontextmanager
    async def _alone_with(self, user: UserKey) -> AsyncIterator[None]:
        """Keep everyone else in this process from creating, deleting or settling for the user."""
        lock = self._locks.setdefault(user, asyncio.Lock())
        try:
            async with asyncio.timeout(remaining()):
                await lock.acquire()
        except TimeoutError:
            raise StoreUnavailable from None
        try:
            yield
        finally:
            lock.release()


async def _outcome(flight: asyncio.Task[T]) -> T:
    """What the flight returns or raises; `StoreUnavailable` if it is not over at the deadline, or was cut."""
    await asyncio.wait({flight}, timeout=remaining())
    if not flight.done() or flight.cancelled():
        raise StoreUnavailable
    return flight.result()


@dataclass(slots=True)
class _Minted:
    """An identity that was minted and is not known to be mapped.

    `in_doubt`: its mapping may have been written, or may still be, although no answer said so.
    """

    acs_user_id: str = field(repr=False)
    in_doubt: bool = False
