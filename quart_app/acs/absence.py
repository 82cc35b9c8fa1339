"""Whether an answer of ACS proves that an identity is gone. Absence needs proof, because what follows can't be undone.

What ACS answers for a deleted identity is on record only as a message. Any other refusal may come from the endpoint of
a deleted resource, or from a gateway that knows nothing of identities. So what "gone" looks like is learned from the
resource itself, by a canary.
"""

import logging
import time
from collections.abc import Callable
from contextlib import suppress

from quart_app.acs.interface import (
    AcsClient,
    AcsError,
    AcsToken,
    Answered,
    IdentityGone,
    IdentityNotOwned,
    IdentityRefused,
    TokenRequest,
)
from upstream.deadline import own_deadline
from upstream.single_flight import SingleFlight

logger = logging.getLogger(__name__)

FOREIGN_IDENTITY = "8:acs:00000000-0000-4000-8000-000000000000_00000000-0000-0000-0000-000000000000"
"""Well formed, and of no resource: asked for its token, ACS checks our credential, then says that it is not ours."""

LEARNING_SECONDS = 20.0
UNLEARNED_PAUSE_SECONDS = 300.0


class AbsenceUnproven(AcsError):
    """The resource did not show what "gone" looks like; the message says why. Nothing may be removed."""


class ProvingAcsClient:
    """`AcsClient` around `client` that believes "gone" only where it is proven.

    ACS's known message counts at once. For any other refusal of a call about an identity, what "gone" looks like is
    learned: a canary identity is minted, must get a token, is deleted, and is asked for a token and deleted again. The
    status and code of these answers, and no others, mean gone. A made-up foreign identity is asked too: if its answer
    is the same, no answer means gone. This is done once per process, at the first such refusal; after a failure, again
    only when `UNLEARNED_PAUSE_SECONDS` have passed. Without `canaries` nothing is minted, and only the known message
    counts. `timer` is in seconds.
    """

    def __init__(
        self, client: AcsClient, *, canaries: bool = True, timer: Callable[[], float] = time.monotonic
    ) -> None:
        self._client = client
        self._canaries = canaries
        self._timer = timer
        self._learning: SingleFlight[None, frozenset[Answered]] = SingleFlight()
        self._learned: frozenset[Answered] | None = None
        self._failed: tuple[AbsenceUnproven, float] | None = None
        self._canary: str | None = None
        self._may_be_deleted = False

    async def create_identity(self) -> str:
        """See `AcsClient.create_identity`."""
        return await self._client.create_identity()

    async def delete_identity(self, acs_user_id: str) -> None:
        """See `AcsClient.delete_identity`."""
        try:
            await self._client.delete_identity(acs_user_id)
        except IdentityRefused as refusal:
            if not await self._means_gone(refusal):
                raise refusal.otherwise from None

    async def revoke_tokens(self, acs_user_id: str) -> None:
        """See `AcsClient.revoke_tokens`."""
        try:
            await self._client.revoke_tokens(acs_user_id)
        except IdentityRefused as refusal:
            raise (IdentityGone() if await self._means_gone(refusal) else refusal.otherwise) from None

    async def issue_token(self, acs_user_id: str, request: TokenRequest | None = None) -> AcsToken:
        """See `AcsClient.issue_token`."""
        try:
            return await self._client.issue_token(acs_user_id, request)
        except IdentityRefused as refusal:
            raise (IdentityGone() if await self._means_gone(refusal) else refusal.otherwise) from None

    async def exchange_teams_token(self, teams_token: str, client_id: str, user_object_id: str) -> AcsToken:
        """See `AcsClient.exchange_teams_token`."""
        return await self._client.exchange_teams_token(teams_token, client_id, user_object_id)

    async def prove(self) -> None:
        """Learn what "gone" looks like, if that is not yet known, before anything is removed for being gone.

        Raises `AbsenceUnproven`, and `AcsUnavailable` and the like when ACS could not be asked.
        """
        await self._answers_that_mean_gone()

    async def aclose(self) -> None:
        """See `AcsClient.aclose`."""
        await self._learning.aclose()
        await self._client.aclose()

    async def _means_gone(self, refusal: IdentityRefused) -> bool:
        if not self._canaries:
            return False
        try:
            return refusal.answered in await self._answers_that_mean_gone()
        except AbsenceUnproven:
            return False

    async def _answers_that_mean_gone(self) -> frozenset[Answered]:
        if self._learned is not None:
            return self._learned
        if self._failed is not None and self._timer() - self._failed[1] < UNLEARNED_PAUSE_SECONDS:
            raise self._failed[0]
        return await self._learning.do(None, self._learn)

    async def _learn(self) -> frozenset[Answered]:
        with own_deadline(LEARNING_SECONDS):
            try:
                learned = await self._ask_the_canary()
            except AbsenceUnproven as error:
                self._failed = error, self._timer()
                logger.warning("%s Nothing is removed for being gone.", error)
                raise
        self._learned, self._failed = learned, None
        logger.info("learned what ACS answers for a deleted identity", extra={"answers": sorted(map(str, learned))})
        return learned

    async def _ask_the_canary(self) -> frozenset[Answered]:
        canary = await self._living_canary()
        await self._delete(canary)
        gone = await self._refusal_of_token(canary)
        if gone is None:
            raise AbsenceUnproven("ACS issues a token for an identity that was deleted a moment ago.")
        again = await self._refusal_of_deletion(canary)
        foreign = await self._refusal_of_token(FOREIGN_IDENTITY)
        if foreign is not None and foreign in (gone, again):
            raise AbsenceUnproven("ACS gives the same answer for a deleted identity and for one of another resource.")
        return frozenset(answer for answer in (gone, again) if isinstance(answer, Answered))

    async def _living_canary(self) -> str:
        # One that an earlier try could not delete is used again, so that there is never more than one.
        if self._canary is not None:
            try:
                await self._client.issue_token(self._canary)
            except (IdentityGone, IdentityNotOwned, IdentityRefused):
                if not self._may_be_deleted:
                    raise AbsenceUnproven(_USELESS) from None
            else:
                return self._canary
        self._canary, self._may_be_deleted = await self._client.create_identity(), False
        try:
            await self._client.issue_token(self._canary)
        except (IdentityGone, IdentityNotOwned, IdentityRefused):
            with suppress(AcsError):
                await self._delete(self._canary)
            raise AbsenceUnproven(_USELESS) from None
        return self._canary

    async def _delete(self, canary: str) -> None:
        self._may_be_deleted = True
        try:
            await self._client.delete_identity(canary)
        except (IdentityNotOwned, IdentityRefused):
            self._may_be_deleted = False
            raise AbsenceUnproven("ACS does not delete an identity that was created a moment ago.") from None
        self._canary = None

    async def _refusal_of_token(self, acs_user_id: str) -> "Answered | type[AcsError] | None":
        """How the token is refused: with an answer to recognise again, or with one that speaks for itself."""
        try:
            await self._client.issue_token(acs_user_id)
        except IdentityRefused as refusal:
            return refusal.answered
        except (IdentityGone, IdentityNotOwned) as error:
            return type(error)
        return None

    async def _refusal_of_deletion(self, acs_user_id: str) -> "Answered | type[AcsError] | None":
        try:
            await self._client.delete_identity(acs_user_id)
        except IdentityRefused as refusal:
            return refusal.answered
        except IdentityNotOwned as error:
            return type(error)
        return None


_USELESS = "ACS issues no token for an identity that was created a moment ago."
