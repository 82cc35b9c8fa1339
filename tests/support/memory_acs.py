"""A working ACS in memory, with scripted faults, for tests of what stands on it."""

import itertools

from quart_app.acs.interface import AcsToken, IdentityGone, IdentityNotOwned, TokenRequest
from tests.support.acs_ids import acs_id
from tests.support.scripted import Scripted

EXPIRES_ON = "2026-11-23T00:00:00.0000000+00:00"


class MemoryAcsClient(Scripted):
    """Fulfils `AcsClient`, whose method names are the operations for faults.

    `minted` holds every id in order, `live` those not deleted, `good_tokens` each identity's that are not revoked.
    """

    def __init__(self) -> None:
        super().__init__()
        self.minted: list[str] = []
        self.live: set[str] = set()
        self.closed = False
        self.good_tokens: dict[str, set[str]] = {}
        self._numbers = itertools.count(1)
        self._token_numbers = itertools.count(1)

    async def create_identity(self) -> str:
        async def mint() -> str:
            acs_user_id = acs_id(f"own_{next(self._numbers)}")
            self.minted.append(acs_user_id)
            self.live.add(acs_user_id)
            return acs_user_id

        return await self._call("create_identity", mint)

    async def delete_identity(self, acs_user_id: str) -> None:
        async def delete() -> None:
            _require_own(acs_user_id)
            self.live.discard(acs_user_id)
            self.good_tokens.pop(acs_user_id, None)

        await self._call("delete_identity", delete)

    async def issue_token(self, acs_user_id: str, request: TokenRequest | None = None) -> AcsToken:
        async def issue() -> AcsToken:
            self._require_live(acs_user_id)
            token = f"token {next(self._token_numbers)} of {acs_user_id}"
            self.good_tokens.setdefault(acs_user_id, set()).add(token)
            return AcsToken(token, EXPIRES_ON)

        return await self._call("issue_token", issue)

    async def revoke_tokens(self, acs_user_id: str) -> None:
        async def revoke() -> None:
            self._require_live(acs_user_id)
            self.good_tokens.pop(acs_user_id, None)

        await self._call("revoke_tokens", revoke)

    def _require_live(self, acs_user_id: str) -> None:
        _require_own(acs_user_id)
        if acs_user_id not in self.live:
            raise IdentityGone

    async def exchange_teams_token(self, teams_token: str, client_id: str, user_object_id: str) -> AcsToken:
        async def exchange() -> AcsToken:
            return AcsToken("token of a Teams user", EXPIRES_ON)

        return await self._call("exchange_teams_token", exchange)

    async def aclose(self) -> None:
        self.closed = True


def _require_own(acs_user_id: str) -> None:
    if not acs_user_id.startswith(acs_id("own_")):
        raise IdentityNotOwned
