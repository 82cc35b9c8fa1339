"""What the application is put together with."""

from functools import partial

import pytest

from local_azure.environment import LocalAzure
from quart_app.identities import TokenCache
from tests.conftest import FakeClock
from tests.quart_app.conftest import Bearer
from tests.support.replicas import replica


@pytest.mark.parametrize("path", ["//api/user", "/api//user", "/api/user//"])
async def test_there_is_one_spelling_of_a_path(
    configured: pytest.MonkeyPatch, local_azure: LocalAzure, bearer: Bearer, path: str
) -> None:
    async with replica() as client:
        assert (await client.get(path, headers=bearer("alex"))).status_code == 404


async def test_a_token_is_answered_again_for_as_many_minutes_as_are_set(
    configured: pytest.MonkeyPatch, local_azure: LocalAzure, bearer: Bearer
) -> None:
    clock = FakeClock(0)
    configured.setattr("quart_app.app.TokenCache", partial(TokenCache, timer=clock))
    configured.setenv("ACS_TOKEN_REUSE_MINUTES", "30")
    asked = []
    async with replica() as client:
        await client.post("/api/user", headers=bearer("alex"))
        for seconds in (0, 30 * 60 - 1, 1):
            clock.advance(seconds)
            assert (await client.get("/api/token", headers=bearer("alex"))).status_code == 201
            asked.append(local_azure.acs.faults.counts["issue_access_token"])
    assert asked == [1, 1, 2]
