"""The stand-ins can be given limits: they answer 429 as the services do, with when to come back."""

from typing import Any, cast

import pytest
from azure.communication.identity.aio import CommunicationIdentityClient
from azure.core.exceptions import HttpResponseError

from local_azure.environment import LocalAzure
from local_azure.limits import WindowLimit
from quart_app.settings import load_settings
from quart_app.stores import open_mapping_store
from storage.mapping import StoreThrottled, UserKey
from tests.conftest import FakeClock
from upstream.retrying import RetryPolicy


def test_a_window_takes_its_amount_and_says_when_the_next_one_begins() -> None:
    clock = FakeClock(90.0)
    limit = WindowLimit(2, 30, clock)
    assert [limit.take() for _ in range(3)] == [None, None, 30]
    clock.advance(20)
    assert limit.take() == 10
    clock.advance(10)
    assert limit.take() is None
    assert (limit.spent, limit.refused) == (3, 2)


def test_the_last_call_of_a_window_may_cost_more_than_is_left() -> None:
    limit = WindowLimit(10, 1, FakeClock(0.25))
    assert [limit.take(6.0), limit.take(6.0), limit.take(6.0)] == [None, None, 0.75]


async def test_acs_answers_429_to_the_operation_that_is_called_too_often(local_azure: LocalAzure) -> None:
    local_azure.acs.limits["issue_access_token"] = WindowLimit(1, 30, FakeClock(12.5))
    connection_string = local_azure.acs.service_environment()["ACS_CONNECTION_STRING"]
    async with CommunicationIdentityClient.from_connection_string(connection_string, retry_total=0) as client:
        user = await client.create_user()
        await client.get_token(user, ["chat"])
        with pytest.raises(HttpResponseError) as refused:
            await client.get_token(user, ["chat"])
        assert refused.value.status_code == 429
        assert cast(Any, refused.value.response).headers["Retry-After"] == "18"
        await client.create_user()


async def test_cosmos_db_answers_429_when_its_request_units_are_spent(
    local_azure: LocalAzure, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, value in {**local_azure.service_environment(), "STORAGE_BACKEND": "cosmos"}.items():
        monkeypatch.setenv(variable, value)
    async with open_mapping_store(load_settings(None), RetryPolicy(attempts=1)) as store:
        local_azure.cosmos.throughput = WindowLimit(3, 1, FakeClock(0.4))
        assert await store.get(UserKey("tenant", "one")) is None  # 2 request units with Strong consistency
        assert await store.get(UserKey("tenant", "one")) is None
        with pytest.raises(StoreThrottled) as refused:
            await store.get(UserKey("tenant", "one"))
        assert refused.value.retry_after == pytest.approx(0.6)
        assert local_azure.cosmos.throughput.spent == 4
