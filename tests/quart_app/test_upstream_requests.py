"""How many requests each call sends upstream, on the wire: none beyond the necessary."""

from collections import Counter
from collections.abc import AsyncIterator

import pytest
from quart.typing import TestClientProtocol as Client

from local_azure.environment import LocalAzure
from quart_app.app import create_app
from quart_app.settings import Settings, load_settings
from quart_app.web.readiness import Readiness
from tests.quart_app.conftest import Bearer

READ = {"cosmos": {"read_item": 1}, "graph": {"get_me": 1}, "sqlite": {}}
WRITE = {"cosmos": {"create_item": 1}, "graph": {"create_extension": 1}, "sqlite": {}}
DELETE = {
    "cosmos": {"read_item": 1, "replace_item": 1, "delete_item": 1},
    # Graph has no etag, so both changes look first.
    "graph": {"get_me": 3, "update_extension": 1, "delete_extension": 1},
    "sqlite": {},
}


@pytest.fixture(params=["cosmos", "graph", "sqlite"])
def store(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, settings: Settings) -> str:
    monkeypatch.setenv("STORAGE_BACKEND", request.param)
    monkeypatch.setattr(Readiness, "start", lambda _: None)  # its own requests come when they come
    return str(request.param)


@pytest.fixture
async def client(store: str) -> AsyncIterator[Client]:
    async with create_app(load_settings(None)) as app:
        yield app.test_client()


@pytest.fixture
async def other_replica(store: str) -> AsyncIterator[Client]:
    async with create_app(load_settings(None)) as app:
        yield app.test_client()


class Wire:
    """The requests that arrived at the stand-ins, by operation."""

    def __init__(self, azure: LocalAzure, client: Client, headers: dict[str, str]) -> None:
        self._stand_ins = (azure.entra, azure.graph, azure.acs, azure.cosmos)
        self._client = client
        self._headers = headers

    async def of(self, method: str, path: str) -> tuple[int, Counter[str]]:
        """The status of a call, and what it sent."""
        before = self._count()
        ask = {"GET": self._client.get, "POST": self._client.post, "DELETE": self._client.delete}[method]
        answer = await ask(path, headers=self._headers)
        return answer.status_code, self._count() - before

    def _count(self) -> Counter[str]:
        return sum((stand_in.faults.counts for stand_in in self._stand_ins), Counter())


async def warm(azure: LocalAzure, client: Client, headers: dict[str, str]) -> Wire:
    """Once signing keys, connections and on-behalf-of tokens are there."""
    wire = Wire(azure, client, headers)
    assert (await wire.of("GET", "/api/user"))[0] in (200, 404)
    return wire


async def test_each_call_sends_what_it_needs_and_no_more(
    store: str, client: Client, local_azure: LocalAzure, bearer: Bearer
) -> None:
    wire = await warm(local_azure, client, bearer("alex"))
    assert await wire.of("POST", "/api/user") == (201, Counter({**READ[store], "create_identity": 1, **WRITE[store]}))
    assert await wire.of("GET", "/api/token") == (201, Counter(issue_access_token=1))
    assert await wire.of("GET", "/api/token") == (201, Counter(issue_access_token=1))
    assert await wire.of("POST", "/api/user") == (200, Counter(READ[store]))
    assert await wire.of("GET", "/api/user") == (200, Counter(READ[store]))
    assert await wire.of("DELETE", "/api/user") == (204, Counter({**DELETE[store], "delete_identity": 1}))
    assert await wire.of("GET", "/api/token") == (404, Counter(READ[store]))


async def test_a_replica_that_does_not_know_the_mapping_reads_it_once(
    store: str, client: Client, other_replica: Client, local_azure: LocalAzure, bearer: Bearer
) -> None:
    headers = bearer("alex")
    wire = await warm(local_azure, other_replica, headers)
    await client.post("/api/user", headers=headers)
    assert await wire.of("GET", "/api/token") == (201, Counter({**READ[store], "issue_access_token": 1}))
    assert await wire.of("GET", "/api/token") == (201, Counter(issue_access_token=1))


async def test_a_refused_caller_costs_no_request(
    store: str, client: Client, local_azure: LocalAzure, bearer: Bearer
) -> None:
    await warm(local_azure, client, bearer("alex"))
    for headers in ({}, {"Authorization": "Bearer x"}, {"Authorization": bearer("alex")["Authorization"] + "x"}):
        wire = Wire(local_azure, client, headers)
        assert await wire.of("GET", "/api/token") == (401, Counter())
