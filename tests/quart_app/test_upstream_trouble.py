"""Several replicas, throttled and failing stores: what callers notice of it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, nullcontext
from pathlib import Path

import aiohttp
import pytest
from quart.typing import TestClientProtocol as Client

from local_azure.entra.directory import HOME_TENANT, User
from local_azure.environment import LocalAzure
from local_azure.faults import Fault, Faults
from quart_app.app import create_app
from quart_app.settings import load_settings
from quart_app.telemetry.instruments import Telemetry
from quart_app.web.readiness import Readiness
from tests.support.answers import error_of
from tests.support.held_time import held_time, time_running_out
from tests.support.service_process import environment_for, serving

DEADLINE_SECONDS = 2.0  # less than any time limit of a store
RETRY_AFTER_SECONDS = 2.0

CREATES = {"cosmos": "create_item", "graph": "create_extension"}
READS = {"cosmos": "read_item", "graph": "get_me"}


class Waits(Telemetry):
    """Notes how long calls wait before they are repeated; at the last wait of so many, `all_wait` is called."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.expected = 0
        self.all_wait: Callable[[], None] = lambda: None

    def retried(self, error: Exception, attempt: int, wait: float) -> None:
        self.seconds.append(wait)
        if len(self.seconds) == self.expected:
            asyncio.get_running_loop().call_soon(self.all_wait)


def new_user(number: int) -> User:
    """A user of the home tenant beyond those of the directory."""
    object_id = f"aaaaaaaa-0000-4000-8000-{number:012}"
    name = f"user{number}"
    return User(name, HOME_TENANT.tenant_id, object_id, name, f"{name}@contoso.localhost", HOME_TENANT.tenant_id)


def authorization(local_azure: LocalAzure, user: User | str) -> dict[str, str]:
    return {"Authorization": f"Bearer {local_azure.entra.access_token(user)}"}


def faults_of(local_azure: LocalAzure, storage: str) -> Faults:
    return (local_azure.cosmos if storage == "cosmos" else local_azure.graph).faults


@pytest.fixture(params=["cosmos", "graph"])
def storage(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def waits() -> Waits:
    return Waits()


@pytest.fixture
async def client(
    storage: str, waits: Waits, configured: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> AsyncIterator[Client]:
    configured.setenv("STORAGE_BACKEND", storage)
    if request.node.get_closest_marker("short_deadline"):
        configured.setenv("REQUEST_DEADLINE_SECONDS", str(DEADLINE_SECONDS))
    configured.setattr(Readiness, "start", lambda _: None)  # its own requests come when they come
    async with create_app(load_settings(None), waits) as app:
        yield app.test_client()


async def test_four_replicas_give_twenty_new_users_one_identity_each(local_azure: LocalAzure, tmp_path: Path) -> None:
    users = [new_user(number) for number in range(20)]
    async with AsyncExitStack() as stack:
        replicas = []
        for _ in range(4):
            environment = {**environment_for(local_azure, tmp_path, "cosmos"), "REQUEST_DEADLINE_SECONDS": "60"}
            replicas.append(await stack.enter_async_context(serving(environment)))
        session = await stack.enter_async_context(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)))

        async def post(number: int, url: str) -> tuple[int, int, str]:
            headers = authorization(local_azure, users[number])
            async with session.post(f"{url}/api/user", headers=headers) as answer:
                return number, answer.status, (await answer.json()).get("acsUserIdentity", "")

        answers = await asyncio.gather(
            *(post(number, replicas[turn % 4].url) for turn in range(20) for number in range(20))
        )
    assert len(answers) == 400
    assert {status for _, status, _ in answers} <= {200, 201}
    identities = {(number, identity) for number, _, identity in answers}
    assert len(identities) == 20
    assert sorted(local_azure.acs.live_identities()) == sorted(identity for _, identity in identities)
    assert len(local_azure.cosmos.items()) == 20


async def test_a_throttled_store_delays_callers_and_fails_none(
    client: Client, local_azure: LocalAzure, storage: str, waits: Waits
) -> None:
    users = ["alex", "megan", "pradeep", "zoe", "guest"]
    for user in users:  # signed in, tokens on their behalf obtained
        assert (await client.get("/api/user", headers=authorization(local_azure, user))).status_code == 404
    throttled = Fault(status=429, headers={"Retry-After": "2", "x-ms-retry-after-ms": "2000"}, times=len(users))
    faults_of(local_azure, storage).script(CREATES[storage], throttled)
    waits.expected = len(users)
    with held_time() as held:
        waits.all_wait = lambda: held.advance(RETRY_AFTER_SECONDS)
        answers = await asyncio.gather(
            *(client.post("/api/user", headers=authorization(local_azure, user)) for user in users)
        )
    assert [answer.status_code for answer in answers] == [201] * len(users)
    assert waits.seconds == [RETRY_AFTER_SECONDS] * len(users)
    assert len(local_azure.acs.live_identities()) == len(users)


@pytest.mark.parametrize(
    "fault",
    [
        Fault(status=503, times=None),
        pytest.param(Fault(hang=True, times=None), marks=pytest.mark.short_deadline),
    ],
    ids=["503", "hang"],
)
async def test_an_outage_is_answered_within_the_deadline_and_the_first_call_after_it_succeeds(
    client: Client, local_azure: LocalAzure, storage: str, fault: Fault
) -> None:
    headers = authorization(local_azure, "alex")
    assert (await client.get("/api/user", headers=headers)).status_code == 404
    faults = faults_of(local_azure, storage)
    faults.script("*", fault)
    async with time_running_out(faults, READS[storage], DEADLINE_SECONDS) if fault.hang else nullcontext():
        answer = await client.post("/api/user", headers=headers)
    assert await error_of(answer) == (503, "service_unavailable")
    assert int(answer.headers["Retry-After"]) >= 1
    faults.clear()
    faults.release()  # what hung was abandoned by the caller only: its work goes on, and the next call may join it
    assert (await client.post("/api/user", headers=headers)).status_code in (200, 201)
    assert (await client.get("/api/token", headers=headers)).status_code == 201
    assert len(local_azure.acs.live_identities()) == 1


async def test_an_outage_right_after_minting_leaves_one_identity_which_is_the_mapped_one(
    client: Client, local_azure: LocalAzure, storage: str
) -> None:
    headers = authorization(local_azure, "alex")
    assert (await client.get("/api/user", headers=headers)).status_code == 404
    faults_of(local_azure, storage).script(CREATES[storage], Fault(drop_answer=True), Fault(status=503, times=None))
    answer = await client.post("/api/user", headers=headers)
    faults_of(local_azure, storage).clear()
    again = await client.post("/api/user", headers=headers)
    assert (answer.status_code, again.status_code) == (201, 200)
    assert local_azure.acs.live_identities() == [(await again.get_json())["acsUserIdentity"]]


async def test_a_slow_acs_is_asked_for_one_identity_however_often_the_caller_comes_back(
    client: Client, local_azure: LocalAzure
) -> None:
    headers = authorization(local_azure, "alex")
    assert (await client.get("/api/user", headers=headers)).status_code == 404
    local_azure.acs.faults.script("create_identity", Fault(until=(answers := asyncio.Event())))
    with held_time() as held:
        calls = [asyncio.create_task(client.post("/api/user", headers=headers)) for _ in range(3)]
        await local_azure.acs.faults.arrived("create_identity", 1)
        for _ in range(25):
            held.advance(1)
            for _ in range(50):
                await asyncio.sleep(0)
        assert all(call.done() for call in calls), "the deadline of 10 s did not end them"
    assert [(await call).status_code for call in calls] == [503] * 3
    answers.set()
    created = await client.post("/api/user", headers=headers)
    assert created.status_code == 200, "it was made for those who asked before"
    assert local_azure.acs.live_identities() == [(await created.get_json())["acsUserIdentity"]]
    assert local_azure.acs.faults.counts["create_identity"] == 1
