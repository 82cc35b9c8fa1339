"""The Teams user's token: it must be the caller's own, from an allowed client, for ACS, before ACS is asked."""

from collections.abc import Collection
from dataclasses import dataclass

from quart_app.auth.caller import Caller
from quart_app.auth.refusals import InvalidAccessToken, Reason
from quart_app.auth.signed_tokens import SignedTokens

TEAMS_SCOPES = frozenset({"Teams.ManageCalls", "Teams.ManageChats"})


class TeamsExchangeNotOffered(Exception):
    """The caller is not a user of Microsoft Entra ID, so can't be a Teams user."""


class TeamsClientsUnknown(Exception):
    """No client application is configured whose Teams tokens could be exchanged."""


class TeamsTokenInvalid(Exception):
    """The Teams token can't be exchanged; `part` says why.

    `missing`, `token` (it proves nothing), `audience` (it is not for ACS), `scope`, `user` or `client`.
    `reason` says why as for an access token.
    """

    def __init__(self, part: str, reason: Reason) -> None:
        super().__init__(f"The Teams token can't be exchanged because of its {part}.")
        self.part = part
        self.reason = reason


@dataclass(frozen=True, slots=True)
class TeamsToken:
    """What ACS must be sent with the token: whose it is and which application got it."""

    client_id: str
    object_id: str


class TeamsTokenValidator:
    """Accepts Teams tokens that `client_ids` got for ACS, whose names are `audiences`."""

    def __init__(self, signed_tokens: SignedTokens, client_ids: Collection[str], audiences: Collection[str]) -> None:
        self._signed_tokens = signed_tokens
        self._client_ids = frozenset(client_ids)
        self._audiences = audiences

    async def validate(self, token: str | None, caller: Caller) -> TeamsToken:
        """Verify `token` and that it is the caller's.

        ACS compares `appId` with the token's own client and `userId` with its `oid`
        (azure-rest-api-specs: CommunicationIdentity.json); asking it with the caller's object id and the token's client
        means that nobody can exchange another user's token. One of the scopes is enough here: ACS offers what the
        token allows. Raises `TeamsClientsUnknown`, `TeamsTokenInvalid`, `SigningKeysUnavailable`.
        """
        if not self._client_ids:
            raise TeamsClientsUnknown
        if not token:
            raise TeamsTokenInvalid("missing", Reason.MISSING)
        try:
            verified = await self._signed_tokens.verify(token, self._audiences)
        except InvalidAccessToken as error:
            part = "audience" if error.reason is Reason.AUDIENCE else "token"
            raise TeamsTokenInvalid(part, error.reason) from error
        if verified.scopes is None:
            raise TeamsTokenInvalid("token", Reason.APPLICATION_TOKEN)
        if verified.user != caller.user:
            raise TeamsTokenInvalid("user", Reason.SUBJECT)
        if verified.client_id is None or verified.client_id not in self._client_ids:
            raise TeamsTokenInvalid("client", Reason.CLIENT)
        if not verified.scopes & TEAMS_SCOPES:
            raise TeamsTokenInvalid("scope", Reason.SCOPE)
        return TeamsToken(verified.client_id, verified.user.subject)
