"""The Cosmos DB stand-in, seen through Microsoft's own asynchronous SDK."""

import asyncio
import base64
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from azure.core import MatchConditions
from azure.core.credentials import AccessToken
from azure.cosmos import PartitionKey
from azure.cosmos.aio import ContainerProxy, CosmosClient
from azure.cosmos.exceptions import (
    CosmosAccessConditionFailedError,
    CosmosHttpResponseError,
    CosmosResourceExistsError,
    CosmosResourceNotFoundError,
)

from local_azure.cosmos import Cosmos, throttled
from local_azure.faults import Fault
from tests.conftest import FakeClock
from tests.support.running_cosmos import running_cosmos

pytestmark = pytest.mark.usefixtures("quick_cosmos_refusals")

NOW = 1_700_000_000.0


@pytest.fixture
async def client(cosmos: Cosmos) -> AsyncIterator[CosmosClient]:
    async with connect(cosmos) as opened:
        yield opened


@pytest.fixture
def container(client: CosmosClient) -> ContainerProxy:
    return identities(client)


def connect(cosmos: Cosmos, **options: Any) -> CosmosClient:
    environment = cosmos.service_environment()
    return CosmosClient(environment["COSMOS_ENDPOINT"], options.pop("credential", environment["COSMOS_KEY"]), **options)


def identities(client: CosmosClient) -> ContainerProxy:
    return client.get_database_client("acs").get_container_client("identities")


async def refusal(cosmos: Cosmos, **options: Any) -> CosmosHttpResponseError:
    """The error with which the account refuses a client that connects."""
    client = connect(cosmos, **options)
    try:
        with pytest.raises(CosmosHttpResponseError) as caught:
            await client.__aenter__()
    finally:
        await client.close()
    return caught.value


class Token:
    """A credential that hands out one token and remembers the scopes it was asked for."""

    def __init__(self, token: str) -> None:
        self.token = token
        self.scopes: list[str] = []

    async def get_token(self, *scopes: str, **_: Any) -> AccessToken:
        self.scopes.extend(scopes)
        return AccessToken(self.token, 2**31)

    async def close(self) -> None:
        pass

    async def __aenter__(self) -> "Token":
        return self

    async def __aexit__(self, *_: object) -> None:
        pass


class TestAccount:
    async def test_advertises_its_own_address_so_that_discovery_stays_on(self, cosmos: Cosmos) -> None:
        async with connect(cosmos) as client:
            account = await client._get_database_account()
        endpoint = cosmos.service_environment()["COSMOS_ENDPOINT"] + "/"
        assert [place["databaseAccountEndpoint"] for place in account.WritableLocations] == [endpoint]
        assert [place["databaseAccountEndpoint"] for place in account.ReadableLocations] == [endpoint]

    async def test_tells_its_default_consistency(self, state_directory: Path) -> None:
        async with running_cosmos(state_directory, consistency="Eventual") as cosmos, connect(cosmos) as client:
            account = await client._get_database_account()
        assert account.ConsistencyPolicy == {"defaultConsistencyLevel": "Eventual"}

    async def test_is_read_twice_before_the_first_call_and_the_container_once(self, cosmos: Cosmos) -> None:
        async with connect(cosmos) as client:
            for number in range(3):
                await identities(client).create_item({"id": f"user-{number}"})
        assert cosmos.counts == Counter(get_account=2, get_container=1, create_item=3)


class TestKeyAuthentication:
    async def test_another_key_is_refused_with_401(self, cosmos: Cosmos) -> None:
        other = base64.b64encode(b"k" * 64).decode()
        refused = await refusal(cosmos, credential=other)
        assert refused.status_code == 401
        assert "payload is built as per the protocol" in str(refused)

    async def test_a_call_without_authorization_is_refused_with_401(self, cosmos: Cosmos) -> None:
        url = cosmos.service_environment()["COSMOS_ENDPOINT"]
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            assert answer.status == 401
            assert "authorization is missing" in (await answer.json())["message"]

    @pytest.mark.parametrize("header", ["garbage", "type=master&ver=1.0&sig=!", "type=resource&ver=1.0&sig=YQ=="])
    async def test_a_malformed_authorization_is_refused_with_401(self, cosmos: Cosmos, header: str) -> None:
        url = cosmos.service_environment()["COSMOS_ENDPOINT"]
        async with aiohttp.ClientSession(headers={"authorization": header}) as session, session.get(url) as answer:
            assert answer.status == 401

    async def test_the_signature_covers_verb_resource_and_date(self, cosmos: Cosmos) -> None:
        async with connect(cosmos) as client:
            await identities(client).create_item({"id": "a"})
        signed = {
            name: value
            for name, value in cosmos.faults.calls[-1].headers.items()
            if name.lower() in ("authorization", "x-ms-date")
        }
        url = cosmos.service_environment()["COSMOS_ENDPOINT"] + "/dbs/acs/colls/identities"
        async with aiohttp.ClientSession(headers={**signed, "x-ms-documentdb-partitionkey": '["a"]'}) as session:
            async with session.post(url + "/docs", json={"id": "a"}) as answer:
                assert answer.status == 409
            async with session.get(url + "/docs") as answer:
                assert answer.status == 401
            async with session.post(url, json={"id": "a"}) as answer:
                assert answer.status == 401
            async with session.post(url + "/docs", json={}, headers={"x-ms-date": "another"}) as answer:
                assert answer.status == 401

    async def test_a_date_far_from_the_servers_clock_is_refused_with_403(self, state_directory: Path) -> None:
        async with running_cosmos(state_directory, clock=FakeClock(NOW)) as cosmos:
            refused = await refusal(cosmos)
        assert refused.status_code == 403
        assert "not valid at the current time" in str(refused)


class TestTokenAuthentication:
    @pytest.fixture
    async def cosmos(self, state_directory: Path) -> AsyncIterator[Cosmos]:
        claims = {
            "for-account": {"aud": "https://localhost", "oid": "application"},
            "for-cosmos": {"aud": "https://cosmos.azure.com", "oid": "application"},
            "for-graph": {"aud": "https://graph.microsoft.com", "oid": "application"},
        }
        async with running_cosmos(state_directory, verify=claims.get) as running:
            yield running

    @pytest.mark.parametrize("token", ["for-account", "for-cosmos"])
    async def test_a_token_for_the_account_or_for_cosmos_db_opens_the_data_plane(
        self, cosmos: Cosmos, token: str
    ) -> None:
        credential = Token(token)
        async with connect(cosmos, credential=credential) as client:
            await identities(client).create_item({"id": "a"})
            assert (await identities(client).read_item("a", "a"))["id"] == "a"
        assert set(credential.scopes) == {"https://localhost/.default"}

    @pytest.mark.parametrize("token", ["for-graph", "forged"])
    async def test_any_other_token_is_refused_with_401(self, cosmos: Cosmos, token: str) -> None:
        assert (await refusal(cosmos, credential=Token(token))).status_code == 401

    async def test_a_principal_without_the_role_is_refused_with_403(self, cosmos: Cosmos) -> None:
        cosmos.without_role.add("application")
        refused = await refusal(cosmos, credential=Token("for-account"))
        assert (refused.status_code, refused.sub_status) == (403, 5301)
        assert "does not have required RBAC permissions" in str(refused)

    async def test_a_token_can_not_create_databases_or_containers(self, cosmos: Cosmos) -> None:
        async with connect(cosmos, credential=Token("for-account")) as client:
            with pytest.raises(CosmosHttpResponseError, match="cannot be authorized by AAD token") as caught:
                await client.create_database("another")
            assert (caught.value.status_code, caught.value.sub_status) == (403, 5300)
            with pytest.raises(CosmosHttpResponseError, match="cannot be authorized by AAD token"):
                await client.get_database_client("acs").create_container("another", PartitionKey("/id"))


class TestDatabasesAndContainers:
    async def test_are_created_if_they_do_not_exist(self, client: CosmosClient, cosmos: Cosmos) -> None:
        for _ in range(2):
            database = await client.create_database_if_not_exists("fresh")
            made = await database.create_container_if_not_exists("things", PartitionKey("/tenant"), default_ttl=5)
        properties = await made.read()
        assert properties["partitionKey"] == {"paths": ["/tenant"], "kind": "Hash", "version": 2}
        assert properties["defaultTtl"] == 5
        assert properties["indexingPolicy"]["indexingMode"] == "consistent"
        assert {"_rid", "_self", "_etag", "_ts"} <= properties.keys()
        assert (cosmos.counts["create_database"], cosmos.counts["create_container"]) == (1, 1)

    async def test_that_exist_answer_409(self, client: CosmosClient) -> None:
        with pytest.raises(CosmosResourceExistsError):
            await client.create_database("acs")
        with pytest.raises(CosmosResourceExistsError):
            await client.get_database_client("acs").create_container("identities", PartitionKey("/id"))

    async def test_a_container_needs_a_partition_key(self, cosmos: Cosmos, client: CosmosClient) -> None:
        with pytest.raises(CosmosHttpResponseError) as caught:
            await client.get_database_client("acs").create_container("bare", PartitionKey(path=[]))
        assert caught.value.status_code == 400

    async def test_a_missing_container_is_told_from_a_missing_item_by_the_sub_status(
        self, client: CosmosClient, container: ContainerProxy
    ) -> None:
        with pytest.raises(CosmosResourceNotFoundError) as item:
            await container.read_item("nobody", "nobody")
        assert not item.value.sub_status
        await client.get_database_client("acs").delete_container("identities")
        with pytest.raises(CosmosResourceNotFoundError, match="Owner resource does not exist") as owner:
            await container.read_item("nobody", "nobody")
        assert owner.value.sub_status == 1003

    async def test_a_seeded_account_may_lack_its_container(self, state_directory: Path) -> None:
        async with running_cosmos(state_directory, partition_key_path=None) as cosmos, connect(cosmos) as client:
            with pytest.raises(CosmosResourceNotFoundError):
                await identities(client).read()

    async def test_a_container_created_anew_is_noticed_by_its_resource_id(
        self, client: CosmosClient, container: ContainerProxy, cosmos: Cosmos
    ) -> None:
        await container.create_item({"id": "a"})
        database = client.get_database_client("acs")
        async with connect(cosmos) as other:
            await other.get_database_client("acs").delete_container("identities")
            await other.get_database_client("acs").create_container("identities", PartitionKey("/id"))
        cosmos.counts.clear()
        await database.get_container_client("identities").create_item({"id": "a"})
        # The SDK recovers by itself: refused with 400/1024, container read again, sent again.
        assert cosmos.counts == Counter(create_item=2, get_container=1)


class TestItems:
    async def test_carry_system_properties_and_a_quoted_etag(self, container: ContainerProxy) -> None:
        created = await container.create_item({"id": "tenant:user", "value": "ä"})
        read = await container.read_item("tenant:user", "tenant:user")
        assert dict(read) == dict(created)
        assert read["value"] == "ä"
        assert {"_rid", "_self", "_ts", "_attachments"} <= read.keys()
        assert read["_etag"].startswith('"')
        assert read["_etag"].endswith('"')
        assert read.get_response_headers()["etag"] == read["_etag"]

    async def test_answers_carry_charge_activity_session_and_lsn(self, container: ContainerProxy) -> None:
        headers = (await container.create_item({"id": "a"})).get_response_headers()
        later = (await container.create_item({"id": "b"})).get_response_headers()
        charge, _, decimals = headers["x-ms-request-charge"].partition(".")
        assert int(charge) > 0
        assert len(decimals) == 2
        assert len(headers["x-ms-activity-id"]) == 36
        assert int(later["lsn"]) == int(headers["lsn"]) + 1
        assert later["x-ms-session-token"] == f"0:-1#{later['lsn']}"

    async def test_a_second_create_answers_409_and_changes_nothing(self, container: ContainerProxy) -> None:
        created = await container.create_item({"id": "a", "n": 1})
        with pytest.raises(CosmosResourceExistsError, match="Entity with the specified id already exists"):
            await container.create_item({"id": "a", "n": 2})
        assert dict(await container.read_item("a", "a")) == dict(created)

    async def test_only_one_of_many_simultaneous_creates_wins(self, container: ContainerProxy, cosmos: Cosmos) -> None:
        results = await asyncio.gather(
            *(container.create_item({"id": "a", "n": n}) for n in range(20)), return_exceptions=True
        )
        winners = [result for result in results if not isinstance(result, BaseException)]
        assert [winner["n"] for winner in winners] == [item["n"] for item in cosmos.items()]
        assert len(winners) == 1
        assert sum(isinstance(result, CosmosResourceExistsError) for result in results) == 19

    async def test_a_missing_item_answers_404(self, container: ContainerProxy) -> None:
        text = "Entity with the specified id does not exist in the system"
        with pytest.raises(CosmosResourceNotFoundError, match=text):
            await container.read_item("nobody", "nobody")
        with pytest.raises(CosmosResourceNotFoundError, match=text):
            await container.replace_item("nobody", {"id": "nobody"})
        with pytest.raises(CosmosResourceNotFoundError, match=text):
            await container.delete_item("nobody", "nobody")

    async def test_an_item_is_not_found_under_another_partition_key(self, container: ContainerProxy) -> None:
        await container.create_item({"id": "a"})
        with pytest.raises(CosmosResourceNotFoundError):
            await container.read_item("a", "b")

    async def test_a_replace_gives_a_new_etag(self, container: ContainerProxy) -> None:
        created = await container.create_item({"id": "a", "n": 1})
        replaced = await container.replace_item("a", {"id": "a", "n": 2})
        assert replaced["_etag"] != created["_etag"]
        assert replaced["_rid"] == created["_rid"]
        assert (await container.read_item("a", "a"))["n"] == 2

    async def test_if_match_guards_replace_and_delete_with_412(self, container: ContainerProxy) -> None:
        old = await container.create_item({"id": "a", "n": 1})
        new = await container.replace_item(
            "a", {"id": "a", "n": 2}, etag=old["_etag"], match_condition=MatchConditions.IfNotModified
        )
        for change in (
            container.replace_item("a", {"id": "a"}, etag=old["_etag"], match_condition=MatchConditions.IfNotModified),
            container.delete_item("a", "a", etag=old["_etag"], match_condition=MatchConditions.IfNotModified),
        ):
            with pytest.raises(CosmosAccessConditionFailedError, match="pre-condition is not met"):
                await change
        await container.delete_item("a", "a", etag=new["_etag"], match_condition=MatchConditions.IfNotModified)
        with pytest.raises(CosmosResourceNotFoundError):
            await container.read_item("a", "a")

    async def test_a_partition_key_unlike_the_item_answers_400_with_1001(self, cosmos: Cosmos) -> None:
        async with connect(cosmos) as client:
            container = identities(client)
            await container.create_item({"id": "a"})
            connection = client.client_connection
            with pytest.raises(CosmosHttpResponseError, match="match the one specified in the header") as caught:
                await connection.CreateItem(
                    container.container_link, {"id": "b"}, {"partitionKey": "c", "disableAutomaticIdGeneration": True}
                )
        assert (caught.value.status_code, caught.value.sub_status) == (400, 1001)

    async def test_a_container_with_another_partition_key_finds_nothing_by_id(self, state_directory: Path) -> None:
        async with running_cosmos(state_directory, partition_key_path="/tenant") as cosmos, connect(cosmos) as client:
            await identities(client).create_item({"id": "a", "tenant": "t"})
            assert (await identities(client).read_item("a", "t"))["id"] == "a"
            with pytest.raises(CosmosResourceNotFoundError):
                await identities(client).read_item("a", "a")

    async def test_survive_a_restart_with_the_same_key(self, state_directory: Path) -> None:
        async with running_cosmos(state_directory) as first, connect(first) as client:
            created = await identities(client).create_item({"id": "a"})
            key = first.service_environment()["COSMOS_KEY"]
        async with running_cosmos(state_directory) as second, connect(second, credential=key) as client:
            assert dict(await identities(client).read_item("a", "a")) == dict(created)

    async def test_the_session_token_satisfies_a_client_with_session_consistency(self, state_directory: Path) -> None:
        async with running_cosmos(state_directory, consistency="Session") as cosmos, connect(cosmos) as client:
            await identities(client).create_item({"id": "a"})
            await identities(client).read_item("a", "a")
            sent = cosmos.faults.calls[-1].headers
        assert sent["x-ms-consistency-level"] == "Session"
        assert sent["x-ms-session-token"].startswith("0:-1#")

    async def test_expire_by_their_own_ttl_in_a_container_with_ttl(self, state_directory: Path) -> None:
        clock = FakeClock(time.time())
        async with running_cosmos(state_directory, clock=clock) as cosmos, connect(cosmos) as client:
            container = await client.get_database_client("acs").create_container(
                "short", PartitionKey("/id"), default_ttl=-1
            )
            await container.create_item({"id": "kept"})
            await container.create_item({"id": "gone", "ttl": 60})
            clock.advance(61)
            assert [item["id"] async for item in container.read_all_items()] == ["kept"]
            with pytest.raises(CosmosResourceNotFoundError):
                await container.read_item("gone", "gone")
            await container.create_item({"id": "gone"})


class TestQueries:
    @pytest.fixture
    async def container(self, client: CosmosClient) -> ContainerProxy:
        filled = identities(client)
        for number in range(5):
            await filled.create_item({"id": f"user-{number}", "even": number % 2 == 0, "n": {"value": number}})
        return filled

    async def test_filter_by_parameters_over_all_partitions(self, container: ContainerProxy) -> None:
        found = container.query_items(
            "SELECT * FROM c WHERE c.even = @even AND c.n.value >= @from",
            parameters=[{"name": "@even", "value": True}, {"name": "@from", "value": 1}],
        )
        assert [item["id"] async for item in found] == ["user-2", "user-4"]

    async def test_are_paged_by_a_continuation_that_another_client_may_continue(
        self, container: ContainerProxy, cosmos: Cosmos
    ) -> None:
        pages: Any = container.query_items("SELECT * FROM c", max_item_count=2).by_page()
        assert [item["id"] async for item in await anext(pages)] == ["user-0", "user-1"]
        async with connect(cosmos) as other:
            rest = identities(other).query_items("SELECT * FROM c", max_item_count=2).by_page(pages.continuation_token)
            assert [[item["id"] async for item in page] async for page in rest] == [["user-2", "user-3"], ["user-4"]]
        assert cosmos.counts["query_items"] == 3

    async def test_count_their_items_in_a_header(self, container: ContainerProxy) -> None:
        seen: list[str] = []
        found = container.query_items(
            "SELECT * FROM c",
            max_item_count=3,
            response_hook=lambda headers, _: seen.append(headers["x-ms-item-count"]),
        )
        assert len([item async for item in found]) == 5
        assert seen == ["3", "2"]

    async def test_may_be_ordered_inside_one_partition_only(self, container: ContainerProxy) -> None:
        ordered = container.query_items("SELECT * FROM c ORDER BY c.id DESC", partition_key="user-1")
        assert [item["id"] async for item in ordered] == ["user-1"]
        with pytest.raises(CosmosHttpResponseError, match="no query plans"):
            await anext(container.query_items("SELECT * FROM c ORDER BY c.id"))

    @pytest.mark.parametrize(
        ("query", "answer"),
        [
            ("SELECT c.id FROM c WHERE c.n.value < 2", [{"id": "user-0"}, {"id": "user-1"}]),
            ("select c.id, c.n.value AS number FROM c WHERE c.n.value > 3", [{"id": "user-4", "number": 4}]),
            ("SELECT c.id, c.missing FROM c WHERE c.id = 'user-1'", [{"id": "user-1"}]),
            ("SELECT VALUE c.n.value FROM c", [0, 1, 2, 3, 4]),
            ("SELECT VALUE c.missing FROM c", []),
            ("SELECT VALUE COUNT(1) FROM c", [5]),
            ("SELECT VALUE COUNT( 1 ) FROM c WHERE c.even = true", [3]),
            ("SELECT VALUE COUNT(1) FROM c WHERE c.id = 'nobody'", [0]),
        ],
    )
    async def test_may_choose_properties_or_count(
        self, container: ContainerProxy, query: str, answer: list[Any]
    ) -> None:
        assert [found async for found in container.query_items(query)] == answer

    async def test_a_projection_is_paged_and_ordered_like_whole_items(self, container: ContainerProxy) -> None:
        pages: Any = container.query_items("SELECT c.id FROM c", max_item_count=2).by_page()
        assert [[item["id"] async for item in page] async for page in pages] == [
            ["user-0", "user-1"],
            ["user-2", "user-3"],
            ["user-4"],
        ]
        counted: Any = container.query_items("SELECT VALUE COUNT(1) FROM c", max_item_count=2)
        assert [count async for count in counted] == [5]
        ordered = container.query_items("SELECT c.id FROM c ORDER BY c.id DESC", partition_key="user-1")
        assert [item async for item in ordered] == [{"id": "user-1"}]

    @pytest.mark.parametrize(
        "query",
        [
            "DROP TABLE c",
            "SELECT d.id FROM c",
            "SELECT c.id, MAX(c.n) FROM c",
            "SELECT * FROM c WHERE d.id = 'a'",
            "SELECT * FROM c WHERE c.id = @no",
        ],
    )
    async def test_that_it_does_not_know_answer_400(self, container: ContainerProxy, query: str) -> None:
        with pytest.raises(CosmosHttpResponseError) as caught:
            await anext(container.query_items(query))
        assert caught.value.status_code == 400

    async def test_every_item_is_read_page_by_page_without_a_query(
        self, container: ContainerProxy, cosmos: Cosmos
    ) -> None:
        assert [item["id"] async for item in container.read_all_items(max_item_count=2)] == [
            f"user-{number}" for number in range(5)
        ]
        assert (cosmos.counts["list_items"], cosmos.counts["query_items"]) == (3, 0)

    async def test_one_partition_key_range_covers_everything(self, container: ContainerProxy, cosmos: Cosmos) -> None:
        assert len([feed_range async for feed_range in container.read_feed_ranges()]) == 1
        assert cosmos.counts["read_partition_key_ranges"] >= 1


class TestFaults:
    async def test_throttling_tells_when_to_come_back(self, cosmos: Cosmos, container: ContainerProxy) -> None:
        await container.create_item({"id": "a"})
        cosmos.faults.script("read_item", throttled(5, times=2))
        assert (await container.read_item("a", "a"))["id"] == "a"
        assert cosmos.counts["read_item"] == 3

    @pytest.mark.parametrize("status", [408, 449, 500, 503])
    async def test_any_status_can_be_scripted(self, cosmos: Cosmos, container: ContainerProxy, status: int) -> None:
        cosmos.faults.script("create_item", Fault(status=status, times=None))
        with pytest.raises(CosmosHttpResponseError) as caught:
            await container.create_item({"id": "a"})
        assert caught.value.status_code == status
        assert cosmos.items() == []

    async def test_a_dropped_answer_makes_the_sdk_meet_its_own_write(
        self, cosmos: Cosmos, container: ContainerProxy
    ) -> None:
        await container.create_item({"id": "warm"})
        cosmos.faults.script("create_item", Fault(drop_answer=True))
        with pytest.raises(CosmosResourceExistsError):
            await container.create_item({"id": "a"})
        assert [item["id"] for item in cosmos.items()] == ["warm", "a"]
        assert cosmos.counts["create_item"] == 3
