"""The Teams exchange: a Teams user's Entra ID access token in, an ACS access token out."""

from quart_app.acs.interface import AcsClient, AcsToken
from quart_app.auth.caller import Caller
from quart_app.auth.teams_tokens import TeamsExchangeNotOffered, TeamsTokenValidator


class TeamsExchange:
    """Exchanges Teams tokens that `teams_tokens` finds to be the caller's own; without it, none."""

    def __init__(self, acs: AcsClient, teams_tokens: TeamsTokenValidator | None) -> None:
        self._acs = acs
        self._teams_tokens = teams_tokens

    async def exchange(self, teams_token: str, caller: Caller) -> AcsToken:
        """An ACS access token for the caller as a Teams user.

        Raises `TeamsExchangeNotOffered`, `TeamsTokenRefused`, other errors of ACS, and what
        `TeamsTokenValidator.validate` raises.
        """
        if self._teams_tokens is None:
            raise TeamsExchangeNotOffered
        checked = await self._teams_tokens.validate(teams_token, caller)
        return await self._acs.exchange_teams_token(teams_token, checked.client_id, checked.object_id)
