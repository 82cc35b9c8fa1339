"""Cosmos DB fulfils the store contract; and what is its own: opening, ids, the meaning of its answers.

With COSMOS_TEST_ENDPOINT (and COSMOS_TEST_KEY) set, the contract also runs against that account or emulator, in the
database `acs-auth-tests`, whose container it empties.
"""

import asyncio
import os
import traceback
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from azure.core.credentials import AccessToken
from azure.core.exceptions import ClientAuthenticationError
from azure.cosmos import PartitionKey
from azure.cosmos.aio import CosmosClient
from hypothesis import example, given
from hypothesis import strategies as st

from local_azure.cosmos import Cosmos, forbidden, throttled
from local_azure.faults import Fault
from storage.cosmos import INDEXING_POLICY, CosmosMappingStore, open_cosmos_store
from storage.cosmos_items import item_id
from storage.cosmos_options import CosmosOptions
from storage.mapping import (
    UNKNOWN_CREATION,
    IdentityMapping,
    MappingChanged,
    MappingExists,
    MappingStore,
    MappingUnreadable,
    StoreError,
    StoreMisconfigured,
    StoreThrottled,
    StoreUnavailable,
    StoreUnexpectedAnswer,
    Unreadable,
    UnreadableMapping,
    UserKey,
    WritesRefused,
)
from tests.support import store_contract as contract
from tests.support.acs_ids import acs_id
from tests.support.held_time import time_running_out
from tests.support.running_cosmos import cosmos_in_a_thread, running_cosmos
from tests.support.store_contract import ALICE, BOB, OpenStore, listed

pytestmark = pytest.mark.usefixtures("quick_cosmos_refusals")

TENANT = "72f988bf-86f1-41af-91ab-2d7cd011db47"
USER = UserKey(TENANT, "4f0ab4a4-9d4b-4b4e-8f3c-0a4f6f9e0d11")


@pytest.fixture(scope="module", params=["stand-in", *(["account"] if "COSMOS_TEST_ENDPOINT" in os.environ else [])])
def account(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CosmosOptions]:
    if request.param == "account":
        endpoint, key = os.environ["COSMOS_TEST_ENDPOINT"], os.environ["COSMOS_TEST_KEY"]
        yield CosmosOptions(endpoint, "acs-auth-tests", "contract", key=key, create_if_missing=True)
    else:
        with cosmos_in_a_thread(tmp_path_factory.mktemp("cosmos")) as cosmos:
            yield settings_for(cosmos)


@pytest.fixture
def open_back_end(account: CosmosOptions) -> OpenStore:
    async def open_new() -> MappingStore:
        store = await open_cosmos_store(account)
        async for left in store.mappings():
            await store.remove(left)
        return store

    return open_new


class TestPlainUse(contract.PlainUse): ...


class TestConcurrency(contract.Concurrency): ...


@pytest.mark.parametrize("wrapper", ["bare", "guarded"])
class TestStateMachine(contract.StateMachine): ...


class TestFaults(contract.Faults):
    """Faults on the wire, below the SDK."""

    @pytest.fixture
    def open_back_end(self, cosmos: Cosmos) -> OpenStore:
        async def open_new() -> MappingStore:
            store = await open_cosmos_store(settings_for(cosmos))
            # The SDK looks at the account once more in the background; faults scripted for any call aren't for it.
            async with asyncio.timeout(60):
                while cosmos.counts["get_account"] < 3:  # noqa: ASYNC110  # The SDK doesn't say when it has done so.
                    await asyncio.sleep(0)
            return store

        return open_new

    @pytest.fixture
    def faults(self, cosmos: Cosmos) -> "WireFaults":
        return WireFaults(cosmos)


WIRE_OPERATIONS = {
    "get": "read_item",
    "create": "create_item",
    "change": "*",  # a write, or a read when the mapping is marked already
    "remove": "delete_item",
    "mappings": "query_items",
    "ping": "read_item",
}


class WireFaults:
    """The faults of the store contract as the account makes them."""

    def __init__(self, cosmos: Cosmos) -> None:
        self._faults = cosmos.faults

    def throttle(self, operation: str, *, retry_after: float, times: int | None = 1) -> None:
        self._faults.script(WIRE_OPERATIONS[operation], throttled(round(retry_after * 1000), times=times))

    def fail(self, operation: str, *, times: int | None = 1) -> None:
        self._faults.script(WIRE_OPERATIONS[operation], Fault(status=503, times=times))

    def lose_answer(self, operation: str, *, times: int | None = 1) -> None:
        self._faults.script(WIRE_OPERATIONS[operation], Fault(drop_answer=True, times=times))

    def clear(self) -> None:
        self._faults.clear()


def settings_for(cosmos: Cosmos, **changes: Any) -> CosmosOptions:
    environment = cosmos.service_environment()
    settings = CosmosOptions(
        environment["COSMOS_ENDPOINT"],
        environment["COSMOS_DATABASE"],
        environment["COSMOS_CONTAINER"],
        key=environment["COSMOS_KEY"],
    )
    return replace(settings, **changes)


@asynccontextmanager
async def opened(settings: CosmosOptions) -> AsyncIterator[CosmosMappingStore]:
    store = await open_cosmos_store(settings)
    try:
        yield store
    finally:
        await store.aclose()


@pytest.fixture
async def cosmos_store(cosmos: Cosmos) -> AsyncIterator[CosmosMappingStore]:
    async with opened(settings_for(cosmos)) as store:
        cosmos.counts.clear()
        yield store


async def delete_container(cosmos: Cosmos) -> None:
    settings = settings_for(cosmos)
    assert settings.key is not None
    async with CosmosClient(settings.endpoint, settings.key) as client:
        await client.get_database_client(settings.database).delete_container(settings.container)


class Credential:
    """Hands out one token, or fails."""

    def __init__(self, token: str | Exception) -> None:
        self._token = token
        self.closed = False

    async def get_token(self, *_: str, **__: Any) -> AccessToken:
        if isinstance(self._token, Exception):
            raise self._token
        return AccessToken(self._token, 2**31)

    async def close(self) -> None:
        self.closed = True

    async def __aenter__(self) -> "Credential":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class TestOpening:
    async def test_a_missing_container_is_named_with_the_remedy_and_never_created(self, state_directory: Path) -> None:
        async with running_cosmos(state_directory, partition_key_path=None) as cosmos:
            with pytest.raises(StoreMisconfigured, match=r"'acs/identities' does not exist.*COSMOS_CREATE_IF_MISSING"):
                await open_cosmos_store(settings_for(cosmos))
            assert (cosmos.counts["create_database"], cosmos.counts["create_container"]) == (0, 0)

    async def test_a_development_setting_creates_what_is_missing_without_indexes(self, state_directory: Path) -> None:
        async with running_cosmos(state_directory, partition_key_path=None) as cosmos:
            settings = settings_for(cosmos, create_if_missing=True)
            for _ in range(2):
                async with opened(settings) as store:
                    await store.ping()
            assert settings.key is not None
            async with CosmosClient(settings.endpoint, settings.key) as client:
                made = await client.get_database_client("acs").get_container_client("identities").read()
            assert made["indexingPolicy"] == INDEXING_POLICY
            assert (cosmos.counts["create_database"], cosmos.counts["create_container"]) == (1, 1)

    async def test_processes_that_create_the_container_together_all_open_it(self, state_directory: Path) -> None:
        async with running_cosmos(state_directory, partition_key_path=None) as cosmos:
            settings = settings_for(cosmos, create_if_missing=True)
            stores = await asyncio.gather(*(open_cosmos_store(settings) for _ in range(4)))
            for store in stores:
                await store.aclose()
            assert cosmos.counts["create_container"] > 1

    async def test_another_partition_key_is_refused_with_the_expected_one(self, state_directory: Path) -> None:
        async with running_cosmos(state_directory, partition_key_path="/tenant") as cosmos:
            with pytest.raises(StoreMisconfigured, match="partition key /tenant; mappings need /id"):
                await open_cosmos_store(settings_for(cosmos))

    @pytest.mark.parametrize("seconds", [1, 3600])
    async def test_a_container_that_forgets_its_items_is_refused(self, state_directory: Path, seconds: int) -> None:
        async with running_cosmos(state_directory, partition_key_path=None) as cosmos:
            settings = settings_for(cosmos)
            assert settings.key is not None
            async with CosmosClient(settings.endpoint, settings.key) as client:
                database = await client.create_database("acs")
                await database.create_container("identities", PartitionKey("/id"), default_ttl=seconds)
            with pytest.raises(StoreMisconfigured, match=rf"after {seconds} s.*Turn its time to live off"):
                await open_cosmos_store(settings)

    async def test_a_container_that_forgets_only_items_that_ask_for_it_is_good(self, state_directory: Path) -> None:
        async with running_cosmos(state_directory, partition_key_path=None) as cosmos:
            settings = settings_for(cosmos)
            assert settings.key is not None
            async with CosmosClient(settings.endpoint, settings.key) as client:
                database = await client.create_database("acs")
                await database.create_container("identities", PartitionKey("/id"), default_ttl=-1)
            async with aclosing(await open_cosmos_store(settings)) as store:
                assert await store.get(ALICE) is None

    async def test_an_account_with_several_write_regions_is_refused_because_both_could_create(
        self, state_directory: Path
    ) -> None:
        async with running_cosmos(state_directory, multiple_write_regions=True) as cosmos:
            with pytest.raises(StoreMisconfigured, match="Turn multi-region writes off"):
                await open_cosmos_store(settings_for(cosmos))

    @pytest.mark.parametrize("consistency", ["Strong", "BoundedStaleness"])
    async def test_a_consistency_that_shows_every_write_needs_no_warning(
        self, state_directory: Path, consistency: str
    ) -> None:
        async with (
            running_cosmos(state_directory, consistency=consistency) as cosmos,
            opened(settings_for(cosmos)) as store,
        ):
            assert (store.consistency, store.warnings) == (consistency, ())

    @pytest.mark.parametrize("consistency", ["Session", "ConsistentPrefix", "Eventual"])
    async def test_a_weaker_consistency_works_with_a_warning(self, state_directory: Path, consistency: str) -> None:
        async with (
            running_cosmos(state_directory, consistency=consistency) as cosmos,
            opened(settings_for(cosmos)) as store,
        ):
            created = await store.create(ALICE, acs_id("one"))
            assert await store.get(ALICE) == created
            assert store.consistency == consistency
            assert [consistency in warning for warning in store.warnings] == [True]

    async def test_another_key_is_refused_with_the_remedy(self, cosmos: Cosmos) -> None:
        with pytest.raises(StoreMisconfigured, match="COSMOS_KEY belongs to this account"):
            await open_cosmos_store(settings_for(cosmos, key="YW5vdGhlciBrZXk="))

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"key": "not base64!"}, "COSMOS_KEY is not an account key"),
            ({"key": None}, "either COSMOS_KEY or a managed identity"),
            ({"credential": Credential("token")}, "either COSMOS_KEY or a managed identity"),
            ({"endpoint": "account.documents.azure.com"}, "COSMOS_ENDPOINT must be a URL"),
            ({"key": None, "credential": Credential("token"), "create_if_missing": True}, "needs COSMOS_KEY"),
        ],
        ids=["malformed key", "no credential", "two credentials", "no URL", "creation without a key"],
    )
    async def test_bad_settings_are_refused_before_anything_is_sent(
        self, cosmos: Cosmos, changes: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(StoreMisconfigured, match=message):
            await open_cosmos_store(settings_for(cosmos, **changes))
        assert not cosmos.counts

    async def test_an_account_that_can_not_be_reached_is_unavailable(self, cosmos: Cosmos) -> None:
        with pytest.raises(StoreUnavailable):
            await open_cosmos_store(settings_for(cosmos, endpoint="https://localhost:9"))

    async def test_an_account_that_does_not_answer_is_unavailable_within_the_opening_timeout(
        self, cosmos: Cosmos
    ) -> None:
        cosmos.faults.script("*", Fault(hang=True, times=None))
        with pytest.raises(StoreUnavailable) as caught:
            await open_cosmos_store(settings_for(cosmos, opening_timeout=0.2))
        assert "did not answer within 0.2 s" in caught.value.__notes__[0]

    @pytest.mark.parametrize("status", [409, 412])
    async def test_an_answer_that_makes_no_sense_is_an_outage(self, cosmos: Cosmos, status: int) -> None:
        cosmos.faults.script("get_container", Fault(status=status, headers=OWN))
        with pytest.raises(StoreUnavailable) as caught:
            await open_cosmos_store(settings_for(cosmos))
        assert f"answered {status}, sub-status 0, activity A1" in caught.value.__notes__[0]

    async def test_a_proxy_in_the_environment_is_used(self, cosmos: Cosmos, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("no_proxy", "NO_PROXY", "http_proxy", "HTTP_PROXY"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
        monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
        with pytest.raises(StoreUnavailable):
            await open_cosmos_store(settings_for(cosmos))
        assert not cosmos.counts

    def test_the_settings_do_not_show_the_key(self) -> None:
        settings = CosmosOptions("https://account.documents.azure.com/", "acs", "identities", key="c2VjcmV0")
        assert "c2VjcmV0" not in repr(settings)


class TestEntraId:
    @pytest.fixture
    async def cosmos(self, state_directory: Path) -> AsyncIterator[Cosmos]:
        claims = {"good": {"aud": "https://cosmos.azure.com", "oid": "application"}}
        async with running_cosmos(state_directory, verify=claims.get) as running:
            yield running

    async def test_a_token_is_enough_for_everything_the_store_does(self, cosmos: Cosmos) -> None:
        credential = Credential("good")
        async with opened(settings_for(cosmos, key=None, credential=credential)) as store:
            created = await store.create(ALICE, acs_id("one"))
            assert await listed(store) == [created]
            await store.ping()
            await store.remove(await store.change(created, deleting=True))
            assert await store.get(ALICE) is None
        assert not credential.closed, "It belongs to whoever made it."

    async def test_a_principal_without_the_role_is_told_which_one_it_needs(self, cosmos: Cosmos) -> None:
        cosmos.without_role.add("application")
        with pytest.raises(StoreMisconfigured, match="Cosmos DB Built-in Data Contributor"):
            await open_cosmos_store(settings_for(cosmos, key=None, credential=Credential("good")))

    async def test_a_role_that_is_taken_away_later_is_no_missing_mapping(self, cosmos: Cosmos) -> None:
        async with opened(settings_for(cosmos, key=None, credential=Credential("good"))) as store:
            cosmos.without_role.add("application")
            with pytest.raises(StoreMisconfigured, match="Cosmos DB Built-in Data Contributor"):
                await store.get(ALICE)

    async def test_a_principal_that_may_only_read_takes_nobodys_write(self, cosmos: Cosmos) -> None:
        async with opened(settings_for(cosmos, key=None, credential=Credential("good"))) as store:
            cosmos.faults.script("create_item", forbidden(5300, times=None))
            with pytest.raises(WritesRefused, match="Cosmos DB Built-in Data Contributor"):
                await store.create(ALICE, acs_id("one"))
            assert await store.get(ALICE) is None

    async def test_a_credential_that_gets_no_token_for_now_is_an_outage(self, cosmos: Cosmos) -> None:
        credential = Credential(ClientAuthenticationError("no response from the managed identity endpoint"))
        with pytest.raises(StoreUnavailable):
            await open_cosmos_store(settings_for(cosmos, key=None, credential=credential))

    async def test_a_credential_that_entra_id_refuses_is_misconfigured(self, cosmos: Cosmos) -> None:
        refusal = ClientAuthenticationError("AADSTS700016")
        refusal.response = type("Response", (), {"status_code": 400})()
        with pytest.raises(StoreMisconfigured):
            await open_cosmos_store(settings_for(cosmos, key=None, credential=Credential(refusal)))


class TestItems:
    async def test_an_item_holds_the_users_parts_and_nothing_else(self, cosmos: Cosmos) -> None:
        store = await open_cosmos_store(settings_for(cosmos), now=lambda: datetime(2026, 11, 22, 1, 2, 3, 456, UTC))
        created = await store.create(USER, acs_id("one"))
        await store.aclose()
        (item,) = cosmos.items()
        assert created.version == item["_etag"]
        assert {name: value for name, value in item.items() if not name.startswith("_")} == {
            "id": f"{USER.issuer}:{USER.subject}",
            "issuer": USER.issuer,
            "subject": USER.subject,
            "acsUserId": acs_id("one"),
            "createdAt": "2026-11-22T01:02:03.000456+00:00",
            "deleting": False,
        }

    def test_entra_ids_are_readable(self) -> None:
        assert item_id(USER) == f"{USER.issuer}:{USER.subject}"

    def test_other_ids_are_hashed(self) -> None:
        assert item_id(UserKey("https://issuer.example/", "auth0|1")).startswith("sha256~")

    @given(st.text(max_size=200), st.text(max_size=200))
    @example("sha256~", "a" * 64)
    @example("a" * 127, "b" * 127)
    @example("\ud800", "é")
    def test_every_user_has_an_id_that_cosmos_db_accepts(self, issuer: str, subject: str) -> None:
        name = item_id(UserKey(issuer, subject))
        assert 0 < len(name.encode()) <= 255
        assert not set(name) & set("/\\?#")
        assert name != "ping"

    @given(*[st.text(st.sampled_from("ab:~/\"', "), max_size=6)] * 4)
    def test_different_users_have_different_ids(self, a: str, b: str, c: str, d: str) -> None:
        assert (item_id(UserKey(a, b)) == item_id(UserKey(c, d))) == ((a, b) == (c, d))

    async def test_mappings_are_read_page_by_page(self, cosmos: Cosmos) -> None:
        async with opened(settings_for(cosmos, page_size=2)) as store:
            created = [await store.create(UserKey("tenant", f"user-{n}"), acs_id(f"{n}")) for n in range(5)]
            assert await listed(store) == created
        assert cosmos.counts["query_items"] == 3

    async def test_a_listing_goes_on_with_the_page_that_failed(self, cosmos: Cosmos) -> None:
        async with opened(settings_for(cosmos, page_size=2)) as store:
            created = [await store.create(UserKey("tenant", f"user-{n}"), acs_id(f"{n}")) for n in range(5)]
            mappings = store.mappings()
            found = [await anext(mappings), await anext(mappings)]
            for fault in (Fault(status=500), throttled(), Fault(drop_answer=True)):
                cosmos.faults.script("query_items", fault)
                with pytest.raises((StoreUnavailable, StoreThrottled)):
                    await anext(mappings)
            assert [*found, *[mapping async for mapping in mappings]] == created


def item(user: UserKey = USER, **changes: Any) -> dict[str, Any]:
    """An item of this user as it should be, but for the changes; `...` leaves a member out."""
    sound: dict[str, object] = {
        "id": item_id(user),
        "issuer": user.issuer,
        "subject": user.subject,
        "acsUserId": acs_id("one"),
        "createdAt": "2026-11-22T01:02:03+00:00",
        "deleting": False,
    }
    return {name: value for name, value in {**sound, **changes}.items() if value is not ...}


async def put(cosmos: Cosmos, *items: dict[str, Any]) -> None:
    """Write items as anybody with the account's key can."""
    settings = settings_for(cosmos)
    assert settings.key is not None
    async with CosmosClient(settings.endpoint, settings.key) as client:
        container = client.get_database_client(settings.database).get_container_client(settings.container)
        there = {each["id"] for each in cosmos.items()}
        for each in items:
            name = each["id"]
            await (container.replace_item(name, each) if name in there else container.create_item(each))


class TestDamagedItems:
    async def test_what_serializers_leave_out_is_false(self, cosmos: Cosmos, cosmos_store: CosmosMappingStore) -> None:
        await put(cosmos, item(deleting=...))
        found = await cosmos_store.get(USER)
        assert found is not None
        assert (found.acs_user_id, found.deleting, found.signed_out_at) == (acs_id("one"), False, None)

    async def test_a_sign_out_that_is_null_is_none(self, cosmos: Cosmos, cosmos_store: CosmosMappingStore) -> None:
        await put(cosmos, item(signedOutAt=None))
        found = await cosmos_store.get(USER)
        assert found is not None
        assert found.signed_out_at is None

    @pytest.mark.parametrize("time", [*contract.UNKNOWN_TIMES.values(), ..., 1764072000, True, [], {}])
    async def test_a_time_that_is_none_is_an_unknown_creation(
        self, cosmos: Cosmos, cosmos_store: CosmosMappingStore, time: object
    ) -> None:
        await put(cosmos, item(createdAt=time))
        found = await cosmos_store.get(USER)
        assert found is not None
        assert found.created_at == UNKNOWN_CREATION
        assert await listed(cosmos_store) == [found]

    @pytest.mark.parametrize(
        "changes",
        [
            *[{"acsUserId": value} for value in [*contract.NO_ACS_USER_IDS.values(), ...]],
            *[{"deleting": value} for value in [*contract.NO_DELETION_MARKS.values(), None, 0, 1]],
            *[{"signedOutAt": value} for value in contract.NO_SIGN_OUTS.values()],
            *[{"issuer": value} for value in (..., None, "", 5, "tenant", TENANT.upper(), [TENANT])],
            *[{"subject": value} for value in (..., None, "", 5, "bob")],
        ],
        ids=repr,
    )
    async def test_a_value_that_is_not_of_its_form_is_no_mapping_and_no_absence(
        self, cosmos: Cosmos, cosmos_store: CosmosMappingStore, changes: dict[str, Any]
    ) -> None:
        await put(cosmos, item(**changes))
        with pytest.raises(MappingUnreadable) as error:
            await cosmos_store.get(USER)
        with pytest.raises(MappingUnreadable):
            await cosmos_store.create(USER, acs_id("two"))
        unreadable = error.value.unreadable
        assert (unreadable.user, unreadable.reason, unreadable.users_may_write) == (USER, Unreadable.DAMAGED, False)
        # Whose identity it is, is certain only where the item is the user's and the id sound.
        certain = "acsUserId" not in changes and "issuer" not in changes and "subject" not in changes
        assert unreadable.acs_user_id == (acs_id("one") if certain else None)
        assert acs_id("one") not in f"{error.value}{unreadable!r}"
        assert await contract.unreadable_in(cosmos_store) == [unreadable]
        await cosmos_store.remove(unreadable)
        assert await cosmos_store.get(USER) is None
        await cosmos_store.remove(unreadable)

    async def test_one_that_was_changed_since_it_was_read_is_not_removed(
        self, cosmos: Cosmos, cosmos_store: CosmosMappingStore
    ) -> None:
        await put(cosmos, item(deleting="false"))
        (unreadable,) = await contract.unreadable_in(cosmos_store)
        await put(cosmos, item())
        with pytest.raises(MappingChanged):
            await cosmos_store.remove(unreadable)
        assert await cosmos_store.get(USER) is not None

    async def test_items_of_others_are_listed_as_what_they_are_and_stop_nothing(
        self, cosmos: Cosmos, cosmos_store: CosmosMappingStore
    ) -> None:
        hashed = UserKey("https://issuer.example/", "auth0|1")
        await put(cosmos, {"id": "a-note"}, item(ALICE), {"id": item_id(BOB), "text": 1}, item(hashed, subject=...))
        found = {
            stored.key: stored async for stored in cosmos_store.mappings() if isinstance(stored, UnreadableMapping)
        }
        assert {key: stored.user for key, stored in found.items()} == {
            "a-note": None,
            item_id(BOB): BOB,
            item_id(hashed): None,
        }
        assert [stored.user async for stored in cosmos_store.mappings() if isinstance(stored, IdentityMapping)] == [
            ALICE
        ]
        await cosmos_store.remove(found["a-note"])
        assert {each["id"] for each in cosmos.items()} == {item_id(ALICE), item_id(BOB), item_id(hashed)}

    @pytest.mark.parametrize("body", ["null", "[]", '"text"', "5", "{}", '{"id": 5}', '{"id": "another"}'])
    async def test_an_answer_that_is_no_such_item_is_an_outage_and_no_absence(
        self, cosmos: Cosmos, cosmos_store: CosmosMappingStore, body: str
    ) -> None:
        await put(cosmos, item())
        cosmos.faults.script("read_item", Fault(status=200, body=body, content_type="application/json"))
        with pytest.raises(StoreUnavailable):
            await cosmos_store.get(USER)
        assert await cosmos_store.get(USER) is not None


OWN = {"x-ms-activity-id": "A1"}
"""By which an answer is known as Cosmos DB's own."""


class TestAnswers:
    async def test_a_deleted_container_is_an_error_and_no_missing_mapping(
        self, cosmos: Cosmos, cosmos_store: CosmosMappingStore
    ) -> None:
        created = await cosmos_store.create(ALICE, acs_id("one"))
        await delete_container(cosmos)
        for call in (
            cosmos_store.get(ALICE),
            cosmos_store.create(BOB, acs_id("two")),
            cosmos_store.change(created, deleting=True),
            cosmos_store.remove(created),
            listed(cosmos_store),
            cosmos_store.ping(),
        ):
            with pytest.raises(StoreMisconfigured, match="does not exist"):
                await call

    async def test_a_create_that_finds_no_container_is_misconfigured_whatever_the_sub_status(
        self, cosmos: Cosmos, cosmos_store: CosmosMappingStore
    ) -> None:
        cosmos.faults.script("create_item", Fault(status=404, headers=OWN))
        with pytest.raises(StoreMisconfigured, match="'acs/identities' does not exist"):
            await cosmos_store.create(ALICE, acs_id("one"))

    async def test_a_listing_that_finds_no_container_is_misconfigured_whatever_the_sub_status(
        self, cosmos: Cosmos, cosmos_store: CosmosMappingStore
    ) -> None:
        cosmos.faults.script("query_items", Fault(status=404, headers=OWN))
        with pytest.raises(StoreMisconfigured, match="'acs/identities' does not exist"):
            await listed(cosmos_store)

    async def test_a_missing_container_is_known_by_its_message_and_is_no_missing_mapping(
        self, cosmos: Cosmos, cosmos_store: CosmosMappingStore
    ) -> None:
        body = {"code": "NotFound", "message": "Message: Owner resource does not exist"}
        cosmos.faults.script("read_item", Fault(status=404, headers=OWN, body=body))
        with pytest.raises(StoreMisconfigured, match="'acs/identities' does not exist") as caught:
            await cosmos_store.get(ALICE)
        assert caught.value.cause is not None
        assert caught.value.cause.code == "404/1003"

    async def test_a_read_that_lags_behind_its_session_is_an_outage_and_no_missing_mapping(
        self, cosmos: Cosmos, cosmos_store: CosmosMappingStore
    ) -> None:
        cosmos.faults.script("read_item", Fault(status=404, headers={"x-ms-substatus": "1002"}))
        with pytest.raises(StoreUnavailable):
            await cosmos_store.get(ALICE)

    async def test_a_conflict_whose_item_can_not_be_read_is_tried_again_and_then_an_outage(
        self, cosmos: Cosmos, cosmos_store: CosmosMappingStore
    ) -> None:
        cosmos.faults.script("create_item", Fault(status=409, headers=OWN, times=None))
        with pytest.raises(StoreUnavailable):
            await cosmos_store.create(ALICE, acs_id("one"))
        assert (cosmos.counts["create_item"], cosmos.counts["read_item"]) == (3, 3)

    async def test_a_conflict_with_a_mapping_that_is_removed_meanwhile_ends_in_a_new_one(
        self, cosmos: Cosmos, cosmos_store: CosmosMappingStore
    ) -> None:
        cosmos.faults.script("create_item", Fault(status=409, headers=OWN))
        created = await cosmos_store.create(ALICE, acs_id("one"))
        assert await cosmos_store.get(ALICE) == created

    async def test_a_create_whose_answer_was_lost_meets_its_own_write(
        self, cosmos: Cosmos, cosmos_store: CosmosMappingStore
    ) -> None:
        cosmos.faults.script("create_item", Fault(drop_answer=True))
        with pytest.raises(StoreUnavailable):
            await cosmos_store.create(ALICE, acs_id("one"))
        with pytest.raises(MappingExists) as conflict:
            await cosmos_store.create(ALICE, acs_id("one"))
        assert conflict.value.existing.acs_user_id == acs_id("one")
        assert len(cosmos.items()) == 1

    @pytest.mark.parametrize("status", [429, 449])
    async def test_a_refused_write_says_when_to_come_back(
        self, cosmos: Cosmos, cosmos_store: CosmosMappingStore, status: int
    ) -> None:
        cosmos.faults.script("create_item", Fault(status=status, headers={"x-ms-retry-after-ms": "1250"}))
        with pytest.raises(StoreThrottled) as caught:
            await cosmos_store.create(ALICE, acs_id("one"))
        assert caught.value.retry_after == 1.25

    @pytest.mark.parametrize(
        ("status", "sub_status", "kind"),
        [
            (400, 1001, StoreMisconfigured),
            (400, 0, StoreMisconfigured),
            (401, 0, StoreMisconfigured),
            (403, 0, StoreMisconfigured),
            (403, 5301, StoreMisconfigured),
            (403, 3, StoreUnavailable),
            (403, 1008, StoreUnavailable),
            (404, 1013, StoreUnavailable),
            (408, 0, StoreUnavailable),
            (410, 1002, StoreUnavailable),
            (500, 0, StoreUnavailable),
            (503, 0, StoreUnavailable),
        ],
    )
    async def test_every_other_status_has_its_meaning(
        self, cosmos: Cosmos, cosmos_store: CosmosMappingStore, status: int, sub_status: int, kind: type[StoreError]
    ) -> None:
        cosmos.faults.script("read_item", Fault(status=status, headers={"x-ms-substatus": str(sub_status)}))
        with pytest.raises(kind):
            await cosmos_store.get(ALICE)

    @pytest.mark.parametrize(("sub_status", "dropped"), [(3, 1), (1008, 1), (0, 0), (5301, 0)])
    async def test_connections_to_a_region_that_takes_no_more_writes_are_dropped(
        self,
        cosmos: Cosmos,
        cosmos_store: CosmosMappingStore,
        monkeypatch: pytest.MonkeyPatch,
        sub_status: int,
        dropped: int,
    ) -> None:
        sessions: list[aiohttp.ClientSession] = []
        monkeypatch.setattr("storage.cosmos.drop_connections", sessions.append)
        cosmos.faults.script("create_item", forbidden(sub_status))
        with pytest.raises(StoreError):
            await cosmos_store.create(ALICE, acs_id("one"))
        assert len(sessions) == dropped

    async def test_an_answer_that_is_no_json_is_an_outage(
        self, cosmos: Cosmos, cosmos_store: CosmosMappingStore
    ) -> None:
        cosmos.faults.script("read_item", Fault(status=200, body="<html>"))
        with pytest.raises(StoreUnavailable):
            await cosmos_store.get(ALICE)

    @pytest.mark.parametrize("status", [401, 403, 404, 429, 500])
    async def test_no_error_tells_who_the_user_is_but_how_to_find_the_call(
        self, cosmos: Cosmos, cosmos_store: CosmosMappingStore, status: int
    ) -> None:
        secrets = [USER.subject, acs_user_id := acs_id("one")]
        created = await cosmos_store.create(USER, acs_user_id)
        body = {"code": "x", "message": "Server used the following payload to sign: " + " ".join(secrets)}
        headers = {"x-ms-substatus": "1", "x-ms-activity-id": "A1"}
        cosmos.faults.script("*", Fault(status=status, body=body, headers=headers, times=None))
        for call in (
            cosmos_store.get(USER),
            cosmos_store.create(USER, acs_user_id),
            cosmos_store.change(created, deleting=True),
            cosmos_store.remove(created),
            listed(cosmos_store),
        ):
            with pytest.raises(StoreError) as caught:
                await call
            text = "".join(traceback.format_exception(caught.value))
            assert not [secret for secret in secrets if secret in text]
            assert "activity A1" in text

    @pytest.mark.parametrize("status", [409, 412])
    async def test_an_answer_that_makes_no_sense_is_an_outage(
        self, cosmos: Cosmos, cosmos_store: CosmosMappingStore, status: int
    ) -> None:
        cosmos.faults.script("read_item", Fault(status=status, headers=OWN, times=None))
        for call in (cosmos_store.get(ALICE), cosmos_store.ping()):
            with pytest.raises(StoreUnavailable):
                await call

    @pytest.mark.parametrize("odd", [AttributeError(), TypeError(), KeyError("x"), RecursionError(), ValueError("url")])
    async def test_nothing_that_the_sdk_raises_leaves_untyped(
        self, cosmos: Cosmos, cosmos_store: CosmosMappingStore, odd: Exception, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        created = await cosmos_store.create(ALICE, acs_id("one"))

        async def never_should(*_: object, **__: object) -> None:
            raise odd

        monkeypatch.setattr("azure.core.pipeline.transport.AioHttpTransport.send", never_should)
        for call in (
            cosmos_store.get(ALICE),
            cosmos_store.create(ALICE, acs_id("one")),
            cosmos_store.change(created, deleting=True),
            cosmos_store.remove(created),
            cosmos_store.ping(),
            listed(cosmos_store),
            open_cosmos_store(settings_for(cosmos)),
        ):
            with pytest.raises(StoreUnavailable) as caught:
                await call
            assert caught.value.cause is not None
            assert caught.value.cause.code == type(odd).__name__

    async def test_a_status_that_is_not_known_is_an_unexpected_answer_and_a_strangers_is_passing_trouble(
        self, cosmos: Cosmos, cosmos_store: CosmosMappingStore
    ) -> None:
        for headers, kind in ((OWN, StoreUnexpectedAnswer), ({}, StoreUnavailable)):
            cosmos.faults.script("read_item", Fault(status=402, headers=headers))
            with pytest.raises(kind):
                await cosmos_store.get(ALICE)

    @pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 409, 412, 413])
    async def test_what_a_stranger_answers_proves_nothing(
        self, cosmos: Cosmos, cosmos_store: CosmosMappingStore, status: int
    ) -> None:
        created = await cosmos_store.create(ALICE, acs_id("one"))
        cosmos.faults.script("*", Fault(status=status, body="<html>", times=None))
        for call in (
            cosmos_store.get(ALICE),
            cosmos_store.create(BOB, acs_id("two")),
            cosmos_store.change(created, deleting=True),
            cosmos_store.remove(created),
            listed(cosmos_store),
            cosmos_store.ping(),
        ):
            with pytest.raises(StoreUnavailable):
                await call
        cosmos.faults.clear()
        assert await cosmos_store.get(ALICE) == created

    async def test_a_call_ends_at_its_timeout_even_if_the_connection_would_wait_longer(self, cosmos: Cosmos) -> None:
        async with opened(settings_for(cosmos, call_timeout=4, read_timeout=60)) as store:
            cosmos.faults.script("read_item", Fault(hang=True))
            async with time_running_out(cosmos.faults, "read_item", 4):
                with pytest.raises(StoreUnavailable):
                    await store.get(ALICE)
            assert await store.get(ALICE) is None

    async def test_the_first_call_after_an_outage_succeeds(
        self, cosmos: Cosmos, cosmos_store: CosmosMappingStore
    ) -> None:
        created = await cosmos_store.create(ALICE, acs_id("one"))
        cosmos.faults.script("*", *[Fault(status=503), Fault(reset=True), Fault(status=500)] * 5)
        for _ in range(10):
            with pytest.raises(StoreUnavailable):
                await cosmos_store.get(ALICE)
        cosmos.faults.clear()
        assert await cosmos_store.get(ALICE) == created

    async def test_a_container_made_anew_is_used_without_a_restart(
        self, cosmos: Cosmos, cosmos_store: CosmosMappingStore
    ) -> None:
        await cosmos_store.create(ALICE, acs_id("one"))
        await delete_container(cosmos)
        async with opened(settings_for(cosmos, create_if_missing=True)):
            pass
        assert await cosmos_store.get(ALICE) is None

    async def test_a_closed_store_is_unavailable(self, cosmos: Cosmos) -> None:
        async with opened(settings_for(cosmos)) as store:
            pass
        with pytest.raises(StoreUnavailable):
            await store.get(ALICE)
