"""The ACS client as the service uses it: every call measured, bounded by the deadline, repeated where that is safe."""

from collections.abc import Callable

from quart_app.acs.interface import ACS, AcsClient, AcsToken, AcsUnavailable, TokenRequest
from upstream.calls import UpstreamCalls
from upstream.errors import Throttled
from upstream.measuring import Measure, unmeasured
from upstream.retrying import RetryPolicy


class GuardedAcsClient:
    """`AcsClient` around `client`: metrics(deadline(retry(client))). At the deadline, calls raise `AcsUnavailable`.

    `on_minted` and `on_deleted` are called for each identity that ACS made or deleted.
    """

    def __init__(
        self,
        client: AcsClient,
        retry: RetryPolicy | None = None,
        measure: Measure = unmeasured,
        *,
        on_minted: Callable[[], None] = lambda: None,
        on_deleted: Callable[[], None] = lambda: None,
    ) -> None:
        self._client = client
        self._calls = UpstreamCalls(ACS, _too_late, retry or RetryPolicy(), measure)
        self._on_minted = on_minted
        self._on_deleted = on_deleted

    async def create_identity(self) -> str:
        """See `AcsClient.create_identity`.

        Repeated only after 429 or when no connection was made: a reset, a timeout or a 5xx proves nothing, and a
        second request could mint a second identity.
        """
        acs_user_id = await self._calls.call(
            "create_identity", self._client.create_identity, repeat_on=_nothing_happened
        )
        self._on_minted()
        return acs_user_id

    async def delete_identity(self, acs_user_id: str) -> None:
        """See `AcsClient.delete_identity`."""
        await self._calls.call("delete_identity", lambda: self._client.delete_identity(acs_user_id))
        self._on_deleted()

    async def issue_token(self, acs_user_id: str, request: TokenRequest | None = None) -> AcsToken:
        """See `AcsClient.issue_token`."""
        return await self._calls.call("issue_token", lambda: self._client.issue_token(acs_user_id, request))

    async def revoke_tokens(self, acs_user_id: str) -> None:
        """See `AcsClient.revoke_tokens`. Repeating it revokes only more."""
        await self._calls.call("revoke_tokens", lambda: self._client.revoke_tokens(acs_user_id))

    async def exchange_teams_token(self, teams_token: str, client_id: str, user_object_id: str) -> AcsToken:
        """See `AcsClient.exchange_teams_token`."""
        return await self._calls.call(
            "exchange_teams_token",
            lambda: self._client.exchange_teams_token(teams_token, client_id, user_object_id),
        )

    async def aclose(self) -> None:
        """See `AcsClient.aclose`."""
        await self._client.aclose()


def _too_late(begun: bool) -> AcsUnavailable:
    return AcsUnavailable(nothing_happened=not begun)


def _nothing_happened(error: BaseException) -> bool:
    return isinstance(error, Throttled) or (isinstance(error, AcsUnavailable) and error.nothing_happened)
