"""The Teams exchange: a Teams user's Entra ID access token in, an ACS access token out."""

from collections.abc import Mapping

from quart_app.acs.interface import AcsClient, AcsToken
from quart_app.auth.caller import Caller
from quart_app.auth.teams_tokens import TeamsExchangeNotOffered, TeamsTokenValidator
from quart_app.settings import DoorName


class TeamsExchange:
    """Exchanges Teams tokens of callers who come in by a door of `teams_tokens`, which checks that they are theirs."""

    def __init__(self, acs: AcsClient, teams_tokens: Mapping[DoorName, TeamsTokenValidator]) -> None:
        self._acs = acs
        self._teams_tokens = teams_tokens

    async def exchange(self, teams_token: str, caller: Caller) -> AcsToken:
        """An ACS access token for the caller as a Teams user.

        Raises `TeamsExchangeNotOffered`, `TeamsTokenRefused`, other errors of ACS, and what
        `TeamsTokenValidator.validate` raises.
        """
        teams_tokens = self._teams_tokens.get(caller.door)
        if teams_tokens is None:
            raise TeamsExchangeNotOffered
        checked = await teams_tokens.validate(teams_token, caller)
        return await self._acs.exchange_teams_token(teams_token, checked.client_id, checked.object_id)
