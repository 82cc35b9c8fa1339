"""`ACS_TOKEN_REUSE_MINUTES`: when an ACS token is answered again, and what must never be."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from quart.typing import TestClientProtocol as Client

from local_azure.environment import LocalAzure
from local_azure.faults import Fault
from quart_app.acs.interface import AcsToken, TokenRequest
from quart_app.identities import IdentityService, TokenCache
from quart_app.identities.token_cache import VARIANTS
from quart_app.settings import InvalidSettings, load_settings
from storage.mapping import UserKey
from tests.conftest import FakeClock
from tests.quart_app.conftest import Bearer
from tests.support.acs_ids import acs_id
from tests.support.answers import error_of
from tests.support.memory_acs import MemoryAcsClient
from tests.support.memory_store import MemoryMappingStore
from tests.support.replicas import replica

NOT_OWNED = {"error": {"code": "IdentityNotOwned", "message": "Provided identity doesn't belong to the resource."}}


@pytest.fixture
def environment(configured: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    configured.setenv("ACS_TOKEN_REUSE_MINUTES", "30")
    return configured


@pytest.fixture
async def client(environment: pytest.MonkeyPatch) -> AsyncIterator[Client]:
    async with replica() as client:
        yield client


async def token_of(client: Client, headers: dict[str, str], path: str = "/api/token", **more: str) -> dict[str, Any]:
    answer = await client.get(path, headers={**headers, **more})
    assert answer.status_code == 201
    assert answer.headers["Cache-Control"] == "no-store"
    return dict(await answer.get_json())


async def test_a_fresh_token_is_answered_again_without_asking_acs(
    client: Client, bearer: Bearer, local_azure: LocalAzure
) -> None:
    await client.post("/api/user", headers=bearer("alex"))
    first = await token_of(client, bearer("alex"))
    assert await token_of(client, bearer("alex")) == first
    assert await token_of(client, bearer("alex"), path="/getToken") == first
    assert local_azure.acs.faults.counts["issue_access_token"] == 1
    assert local_azure.acs.verify_token(first["token"])


async def test_by_default_no_token_is_answered_twice(
    environment: pytest.MonkeyPatch, bearer: Bearer, local_azure: LocalAzure
) -> None:
    environment.delenv("ACS_TOKEN_REUSE_MINUTES")
    async with replica() as client:
        await client.post("/api/user", headers=bearer("alex"))
        assert await token_of(client, bearer("alex")) != await token_of(client, bearer("alex"))


async def test_no_user_gets_anothers_token(client: Client, bearer: Bearer, local_azure: LocalAzure) -> None:
    for user in ("alex", "megan"):
        await client.post("/api/user", headers=bearer(user))
    tokens = {user: await token_of(client, bearer(user)) for user in ("alex", "megan", "alex", "megan")}
    assert tokens["alex"]["user"] != tokens["megan"]["user"]
    for body in tokens.values():
        skype_id = local_azure.acs.verify_token(body["token"])["skypeid"]
        assert f"8:{skype_id}" == body["user"]["communicationUserId"]


@pytest.mark.parametrize("directive", ["no-cache", "no-store", "max-age=0", "No-Cache", "private, no-cache"])
async def test_a_client_can_insist_on_a_new_token(client: Client, bearer: Bearer, directive: str) -> None:
    await client.post("/api/user", headers=bearer("alex"))
    first = await token_of(client, bearer("alex"))
    assert await token_of(client, bearer("alex"), **{"Cache-Control": directive}) != first


async def test_a_token_that_a_client_insisted_on_takes_the_place_of_the_kept_one(
    client: Client, bearer: Bearer
) -> None:
    await client.post("/api/user", headers=bearer("alex"))
    await token_of(client, bearer("alex"))
    newer = await token_of(client, bearer("alex"), **{"Cache-Control": "no-cache"})
    assert await token_of(client, bearer("alex")) == newer


async def test_no_store_keeps_neither_the_new_token_nor_the_old_one(client: Client, bearer: Bearer) -> None:
    await client.post("/api/user", headers=bearer("alex"))
    first = await token_of(client, bearer("alex"))
    second = await token_of(client, bearer("alex"), **{"Cache-Control": "no-store"})
    third = await token_of(client, bearer("alex"))
    assert len({first["expiresOn"], second["expiresOn"], third["expiresOn"]}) == 3


@pytest.mark.parametrize("directive", ["", "max-age=60", "no-transform", "nonsense, =, no-cachet"])
async def test_other_directives_change_nothing(client: Client, bearer: Bearer, directive: str) -> None:
    await client.post("/api/user", headers=bearer("alex"))
    first = await token_of(client, bearer("alex"))
    assert await token_of(client, bearer("alex"), **{"Cache-Control": directive}) == first


async def test_a_browser_may_send_the_directive_from_another_origin(
    environment: pytest.MonkeyPatch, bearer: Bearer
) -> None:
    environment.setenv("CORS_ALLOWED_ORIGINS", "https://app.example.com")
    async with replica() as client:
        asked = {
            "Origin": "https://app.example.com",
            "Access-Control-Request-Method": "GET",
            "Access-Control-Request-Headers": "authorization,cache-control",
        }
        answer = await client.options("/api/token", headers=asked)
    assert "cache-control" in answer.headers["Access-Control-Allow-Headers"].lower()


async def test_nothing_is_answered_after_a_deletion(client: Client, bearer: Bearer) -> None:
    await client.post("/api/user", headers=bearer("alex"))
    await token_of(client, bearer("alex"))
    await client.delete("/api/user", headers=bearer("alex"))
    assert await error_of(await client.get("/api/token", headers=bearer("alex"))) == (404, "identity_not_found")


async def test_what_another_replica_deleted_is_not_answered(
    client: Client, bearer: Bearer, local_azure: LocalAzure
) -> None:
    await client.post("/api/user", headers=bearer("alex"))
    await token_of(client, bearer("alex"))
    async with replica() as other:
        await other.delete("/api/user", headers=bearer("alex"))
    assert await error_of(await client.get("/api/token", headers=bearer("alex"))) == (404, "identity_not_found")


async def test_what_another_replica_replaced_is_answered_with_the_new_identitys_token(
    client: Client, bearer: Bearer, local_azure: LocalAzure
) -> None:
    await client.post("/api/user", headers=bearer("alex"))
    before = await token_of(client, bearer("alex"))
    async with replica() as other:
        await other.delete("/api/user", headers=bearer("alex"))
        await other.post("/api/user", headers=bearer("alex"))
    after = await token_of(client, bearer("alex"))
    assert after["user"] != before["user"]
    assert after["user"] == {"communicationUserId": local_azure.acs.live_identities()[0]}
    assert local_azure.acs.verify_token(after["token"])


async def test_a_deletion_that_another_replica_has_only_begun_ends_the_answers(
    client: Client, bearer: Bearer, local_azure: LocalAzure
) -> None:
    await client.post("/api/user", headers=bearer("alex"))
    await token_of(client, bearer("alex"))
    async with replica() as other:
        local_azure.acs.faults.script("delete_identity", Fault(status=400, times=None))
        assert (await other.delete("/api/user", headers=bearer("alex"))).status_code >= 500
        assert await error_of(await client.get("/api/token", headers=bearer("alex"))) == (404, "identity_not_found")
        local_azure.acs.faults.clear()


async def test_an_identity_of_another_resource_is_a_conflict_as_ever(
    client: Client, bearer: Bearer, local_azure: LocalAzure
) -> None:
    await client.post("/api/user", headers=bearer("alex"))
    local_azure.acs.faults.script("issue_access_token", Fault(status=401, body=NOT_OWNED, times=None))
    for _ in range(2):  # nothing was kept that could hide it
        answer = await client.get("/api/token", headers=bearer("alex"))
        assert await error_of(answer) == (409, "identity_resource_mismatch")


async def test_once_acs_refused_an_identity_its_kept_token_is_gone(
    client: Client, bearer: Bearer, local_azure: LocalAzure
) -> None:
    """An identity deleted past this service: until a client insists on a new token, nothing here can know."""
    await client.post("/api/user", headers=bearer("alex"))
    kept = await token_of(client, bearer("alex"))
    local_azure.acs.forget(kept["user"]["communicationUserId"])
    assert await token_of(client, bearer("alex")) == kept
    insisting = {**bearer("alex"), "Cache-Control": "no-cache"}
    assert (await client.get("/api/token", headers=insisting)).status_code == 409
    assert (await client.get("/api/token", headers=bearer("alex"))).status_code == 409


async def test_a_store_that_fails_is_never_replaced_by_a_kept_token(
    environment: pytest.MonkeyPatch, bearer: Bearer, local_azure: LocalAzure
) -> None:
    environment.setenv("STORAGE_BACKEND", "cosmos")
    async with replica() as client:
        await client.post("/api/user", headers=bearer("alex"))
        await token_of(client, bearer("alex"))
        local_azure.cosmos.faults.script("read_item", Fault(status=503, times=None))
        answer = await client.get("/api/token", headers=bearer("alex"))
        assert await error_of(answer) == (503, "service_unavailable")


async def test_acs_that_is_down_does_not_matter_to_a_kept_token(
    client: Client, bearer: Bearer, local_azure: LocalAzure
) -> None:
    await client.post("/api/user", headers=bearer("alex"))
    kept = await token_of(client, bearer("alex"))
    local_azure.acs.faults.script("*", Fault(status=503, times=None))
    assert await token_of(client, bearer("alex")) == kept


@pytest.mark.parametrize(
    ("reuse", "lifetime", "is_fault"), [("60", "60", True), ("59", "60", False), ("-1", "60", True)]
)
async def test_a_token_must_outlive_its_reuse(
    environment: pytest.MonkeyPatch, reuse: str, lifetime: str, is_fault: bool
) -> None:
    environment.setenv("ACS_TOKEN_REUSE_MINUTES", reuse)
    environment.setenv("ACS_TOKEN_LIFETIME_MINUTES", lifetime)
    if not is_fault:
        assert load_settings(None).acs.token_reuse_minutes == int(reuse)
        return
    with pytest.raises(InvalidSettings) as caught:
        load_settings(None)
    [fault] = caught.value.faults
    assert fault.startswith("ACS_TOKEN_REUSE_MINUTES")


ALEX = UserKey("tenant", "alex")


async def test_a_token_is_answered_until_its_minutes_are_over() -> None:
    clock = FakeClock(0)
    communication = MemoryAcsClient()
    service = IdentityService(MemoryMappingStore(), communication, token_cache=TokenCache(1800, timer=clock))
    await service.get_or_create(ALEX)
    counts = []
    for seconds in (0, 1799, 1, 0):
        clock.advance(seconds)
        await service.issue_token(ALEX)
        counts.append(communication.counts["issue_token"])
    assert counts == [1, 1, 2, 2]
    await service.aclose()


async def test_a_mapping_from_memory_is_not_enough_for_a_kept_token() -> None:
    """Without ACS in between, only the store can say that another process deleted the identity."""
    store, communication = MemoryMappingStore(), MemoryAcsClient()
    async with AsyncExitStack() as stack:
        services = [
            IdentityService(store, communication, cache_seconds=3600, token_cache=TokenCache(1800)) for _ in range(2)
        ]
        for service in services:
            stack.push_async_callback(service.aclose)
        await services[0].get_or_create(ALEX)
        first = await services[0].issue_token(ALEX)
        await services[1].delete(ALEX)
        second = await services[1].get_or_create(ALEX)
        answered = await services[0].issue_token(ALEX)
    assert answered.acs_user_id == second.acs_user_id != first.acs_user_id


async def test_a_token_is_kept_also_where_no_mapping_is_remembered() -> None:
    store, communication = MemoryMappingStore(), MemoryAcsClient()
    service = IdentityService(store, communication, cache_seconds=0, token_cache=TokenCache(1800))
    await service.get_or_create(ALEX)
    first = await service.issue_token(ALEX)
    assert await service.issue_token(ALEX) == first
    assert communication.counts["issue_token"] == 1
    await service.aclose()


async def test_a_deletion_that_overtakes_an_issuing_leaves_nothing_to_answer() -> None:
    store, communication = MemoryMappingStore(), MemoryAcsClient()
    kept = TokenCache(1800)
    service = IdentityService(store, communication, token_cache=kept)
    await service.get_or_create(ALEX)
    issuing = asyncio.create_task(service.issue_token(ALEX))
    await asyncio.gather(issuing, service.delete(ALEX), return_exceptions=True)
    created = await service.get_or_create(ALEX)
    assert created.created
    assert (await service.issue_token(ALEX)).acs_user_id == created.acs_user_id
    await service.aclose()


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from(["keep", "drop", "wait"])), max_size=60))
def test_kept_tokens_are_bounded_fresh_and_each_its_own_identitys(steps: list[tuple[str, str]]) -> None:
    clock, model = FakeClock(0), dict[tuple[str, str], tuple[float, AcsToken]]()
    kept = TokenCache(10, size=3, timer=clock)
    for number, (identity, step) in enumerate(steps):
        match step:
            case "keep":
                token = AcsToken(f"{identity}-{number}", "")
                kept.keep(identity, None, str(number % 2), token)
                model[identity, str(number % 2)] = (clock.now, token)
            case "drop":
                kept.drop(identity)
                for version in "01":
                    model.pop((identity, version), None)
            case "wait":
                clock.advance(4)
        found = {
            (identity, version): answer
            for identity in "abcdef"
            for version in "01"
            if (answer := kept.find(identity, None, version)) is not None
        }
        assert len({identity for identity, _ in found}) <= 3
        for each, answered in found.items():
            issued_at, newest = model[each]
            assert (answered, clock.now - issued_at < 10) == (newest, True)


VOIP, ALL = TokenRequest(("voip",), 60), TokenRequest(("chat", "voip"), 1440)


@pytest.mark.parametrize(
    ("request_", "version"), [(ALL, "1"), (None, "1"), (TokenRequest(("voip",), 61), "1"), (VOIP, "2")]
)
def test_another_request_or_another_version_of_the_mapping_has_another_token(
    request_: TokenRequest | None, version: str
) -> None:
    kept = TokenCache(10, timer=FakeClock(0))
    kept.keep(acs_id("one"), VOIP, "1", AcsToken("t", ""))
    assert kept.find(acs_id("one"), VOIP, "1") == AcsToken("t", "")
    assert kept.find(acs_id("one"), request_, version) is None


def test_a_token_of_a_shorter_life_is_never_answered_up_to_its_end() -> None:
    clock = FakeClock(0)
    kept = TokenCache(120 * 60, timer=clock)
    kept.keep(acs_id("one"), VOIP, "1", AcsToken("an hour", ""))
    kept.keep(acs_id("one"), ALL, "1", AcsToken("a day", ""))
    clock.advance(59 * 60)
    assert kept.find(acs_id("one"), VOIP, "1") is None
    assert kept.find(acs_id("one"), ALL, "1") == AcsToken("a day", "")


def test_one_identity_has_no_more_than_so_many_kept_tokens() -> None:
    kept = TokenCache(10, timer=FakeClock(0))
    requests = [TokenRequest(("voip",), 60 + number) for number in range(VARIANTS + 1)]
    for request_ in requests:
        kept.keep(acs_id("one"), request_, "1", AcsToken(str(request_.minutes), ""))
    assert [kept.find(acs_id("one"), request_, "1") is not None for request_ in requests] == [False] + [True] * VARIANTS
