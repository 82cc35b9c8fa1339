"""`DELETE /api/token`, over the wire, with each store: what ends, what stays, and what no replica answers again."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from quart.typing import TestClientProtocol as Client

from local_azure.acs.identities import TokenStatus
from local_azure.environment import LocalAzure
from local_azure.faults import Fault
from soak.deployment import STORES
from tests.quart_app.conftest import Bearer
from tests.support.answers import error_of
from tests.support.replicas import replica


@pytest.fixture(params=STORES)
def environment(request: pytest.FixtureRequest, configured: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    configured.setenv("STORAGE_BACKEND", request.param)
    configured.setenv("ACS_TOKEN_REUSE_MINUTES", "30")
    return configured


@pytest.fixture
async def client(environment: pytest.MonkeyPatch) -> AsyncIterator[Client]:
    async with replica() as client:
        yield client


async def token_of(client: Client, headers: dict[str, str], query: str = "") -> dict[str, Any]:
    answer = await client.get(f"/api/token{query}", headers=headers)
    assert answer.status_code == 201
    return dict(await answer.get_json())


async def signed_out(client: Client, headers: dict[str, str]) -> None:
    answer = await client.delete("/api/token", headers=headers)
    assert (answer.status_code, await answer.get_data()) == (204, b"")


async def test_a_kept_token_is_not_answered_by_any_replica_after_a_sign_out_at_another(
    client: Client, bearer: Bearer, local_azure: LocalAzure
) -> None:
    await client.post("/api/user", headers=bearer("alex"))
    await client.post("/api/user", headers=bearer("megan"))
    before = [await token_of(client, bearer("alex"), query) for query in ("", "?scope=voip.join", "?minutes=60")]
    others = await token_of(client, bearer("megan"))
    assert await token_of(client, bearer("alex")) == before[0], "it was not kept"
    async with replica() as other:
        await signed_out(other, bearer("alex"))
        after = [await token_of(each, bearer("alex")) for each in (client, other)]
    assert {local_azure.acs.token_status(each["token"]) for each in before} == {TokenStatus.REVOKED}
    assert {local_azure.acs.token_status(each["token"]) for each in after} == {TokenStatus.GOOD}
    assert {each["user"]["communicationUserId"] for each in after} == {before[0]["user"]["communicationUserId"]}
    assert await token_of(client, bearer("megan")) == others
    assert local_azure.acs.token_status(others["token"]) is TokenStatus.GOOD


async def test_each_sign_out_ends_what_was_issued_since_the_last(
    client: Client, bearer: Bearer, local_azure: LocalAzure
) -> None:
    await client.post("/api/user", headers=bearer("alex"))
    async with replica() as other:
        for _ in range(2):
            token = (await token_of(client, bearer("alex")))["token"]
            assert local_azure.acs.token_status(token) is TokenStatus.GOOD
            await signed_out(other, bearer("alex"))
            assert local_azure.acs.token_status(token) is TokenStatus.REVOKED


async def test_who_has_no_identity_is_told_so(client: Client, bearer: Bearer, local_azure: LocalAzure) -> None:
    answer = await client.delete("/api/token", headers=bearer("alex"))
    assert await error_of(answer) == (404, "identity_not_found")
    assert local_azure.acs.faults.counts["revoke_access_tokens"] == 0


async def test_a_sign_out_finishes_a_deletion_that_was_interrupted(
    client: Client, bearer: Bearer, local_azure: LocalAzure
) -> None:
    await client.post("/api/user", headers=bearer("alex"))
    token = (await token_of(client, bearer("alex")))["token"]
    local_azure.acs.faults.script("delete_identity", Fault(status=400, times=None))
    assert (await client.delete("/api/user", headers=bearer("alex"))).status_code >= 500
    local_azure.acs.faults.clear()
    async with replica() as other:
        answer = await other.delete("/api/token", headers=bearer("alex"))
    assert await error_of(answer) == (404, "identity_not_found")
    assert local_azure.acs.token_status(token) is not TokenStatus.GOOD
    assert local_azure.acs.live_identities() == []


async def test_an_acs_that_is_down_is_told_and_a_repeated_sign_out_is_complete(
    client: Client, bearer: Bearer, local_azure: LocalAzure
) -> None:
    await client.post("/api/user", headers=bearer("alex"))
    token = await token_of(client, bearer("alex"))
    local_azure.acs.faults.script("revoke_access_tokens", Fault(status=503, times=None))
    assert await error_of(await client.delete("/api/token", headers=bearer("alex"))) == (503, "service_unavailable")
    local_azure.acs.faults.clear()
    await signed_out(client, bearer("alex"))
    assert local_azure.acs.token_status(token["token"]) is TokenStatus.REVOKED
    assert await token_of(client, bearer("alex")) != token


async def test_an_identity_that_acs_no_longer_knows_is_a_conflict(
    client: Client, bearer: Bearer, local_azure: LocalAzure
) -> None:
    await client.post("/api/user", headers=bearer("alex"))
    local_azure.acs.forget(local_azure.acs.live_identities()[0])
    assert (await client.delete("/api/token", headers=bearer("alex"))).status_code == 409
