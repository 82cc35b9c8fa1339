"""A hundred expiries of the Python client, with the real MSAL and the real chat SDK."""

import asyncio
import time

import pytest

from local_azure.environment import LocalAzure
from tests.clients.conftest import Client, Service
from tests.clients.moved_time import MovedTime

EXPIRIES = 100
MINUTE = 60.0


@pytest.mark.parametrize(
    ("teams", "lifetime", "operation"),
    [(False, 60 * MINUTE, "issue_access_token"), (True, 75 * MINUTE, "exchange_teams_token")],
    ids=["an ACS identity", "a Teams user"],
)
async def test_a_hundred_tokens_end_and_nobody_notices(
    teams: bool,
    lifetime: float,
    operation: str,
    service: Service,
    client: Client,
    local_azure: LocalAzure,
    moved: MovedTime,
) -> None:
    async with service() as address, await client(address, teams=teams) as tokens:
        credentials = [await tokens.credential() for _ in range(3)]
        least, seen = lifetime, set()
        for _ in range(int(EXPIRIES * lifetime / (5 * MINUTE))):
            await moved.advance(5 * MINUTE, quiet=lambda: not tokens.renewing)
            given = await asyncio.gather(*(each.get_token() for each in credentials))
            least = min(least, *(each.expires_on - time.time() for each in given))
            seen |= {each.token for each in given}
        issued = local_azure.acs.faults.counts[operation]
    assert least > 10 * MINUTE, "a token near its end was handed out"
    assert EXPIRIES <= issued <= EXPIRIES * lifetime / (lifetime - 16 * MINUTE) + 1
    assert len(seen) >= issued - 1
