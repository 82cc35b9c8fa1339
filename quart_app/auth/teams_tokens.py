"""The Teams user's token: it must be the caller's own, from an allowed client, for ACS, before ACS is asked."""

from collections.abc import Collection
from dataclasses import dataclass

from quart_app.auth.caller import Caller
from quart_app.auth.signed_tokens import InvalidAccessToken, SignedTokens

ACS_AUDIENCES = (
    "https://auth.msft.communication.azure.com",
    "https://auth.msft.communication.azure.com/",
    "1fd5118e-2576-4263-8130-9503064c837a",
)
"""The resource Azure Communication Services in Entra ID
(https://learn.microsoft.com/azure/communication-services/quickstarts/manage-teams-identity)."""

TEAMS_SCOPES = frozenset({"Teams.ManageCalls", "Teams.ManageChats"})


class TeamsTokenInvalid(Exception):
    """The Teams token can't be exchanged; `part` says why: `missing`, `token`, `user`, `client`."""

    def __init__(self, part: str) -> None:
        super().__init__(f"The Teams token can't be exchanged because of its {part}.")
        self.part = part


@dataclass(frozen=True, slots=True)
class TeamsToken:
    """What ACS wants to hear with the token: whose it is and which application got it."""

    client_id: str
    object_id: str


class TeamsTokenValidator:
    """Takes Teams tokens that `client_ids` obtained."""

    def __init__(self, signed_tokens: SignedTokens, client_ids: Collection[str]) -> None:
        self._signed_tokens = signed_tokens
        self._client_ids = frozenset(client_ids)

    async def validate(self, token: str | None, caller: Caller) -> TeamsToken:
        """Verify `token` and that it is the caller's.

        ACS compares `appId` with the token's own client and `userId` with its `oid`
        (azure-rest-api-specs: CommunicationIdentity.json); asking it with the caller's object id and the token's client
        means that nobody can exchange another user's token. Raises `TeamsTokenInvalid`, `SigningKeysUnavailable`.
        """
        if not token:
            raise TeamsTokenInvalid("missing")
        try:
            verified = await self._signed_tokens.verify(token, ACS_AUDIENCES)
        except InvalidAccessToken as error:
            raise TeamsTokenInvalid("token") from error
        if verified.scopes is None or not verified.scopes & TEAMS_SCOPES:
            raise TeamsTokenInvalid("token")
        if (verified.tenant_id, verified.object_id) != (caller.user.issuer, caller.user.subject):
            raise TeamsTokenInvalid("user")
        if verified.client_id is None or verified.client_id not in self._client_ids:
            raise TeamsTokenInvalid("client")
        return TeamsToken(verified.client_id, verified.object_id)
