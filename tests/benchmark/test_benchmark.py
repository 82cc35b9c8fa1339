"""The benchmark measures what it says: its load, its upstreams, its figures, and one small run of the command."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from itertools import cycle
from pathlib import Path

import pytest
from aiohttp import web
from azure.communication.identity.aio import CommunicationIdentityClient
from azure.core.exceptions import HttpResponseError

from benchmark.bursts import burst, one_after_another
from benchmark.load import Target, load, request_bytes
from benchmark.throughput import Figures, Sample, percentile
from benchmark.upstreams import NAMES, Repeating
from local_azure.environment import LocalAzure, Ports
from local_azure.faults import Fault
from local_azure.keys import KeyFactory
from local_azure.port_choice import free_port
from tests.conftest import LOGS
from tests.support.service_process import finished, python
from upstream.http_session import new_http_session


class Server:
    """Answers `/<status>` with that status, cuts the connection at `/cut`, and remembers the paths."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self.seen = asyncio.Event()

    async def answer(self, request: web.BaseRequest) -> web.Response:
        self.paths.append(request.path)
        if len(self.paths) >= 20:
            self.seen.set()
        if request.path == "/cut" and request.transport is not None:
            request.transport.abort()
        return web.Response(status=int(request.path[1:]) if request.path[1:].isdigit() else 200)


@pytest.fixture
async def server() -> AsyncIterator[tuple[Server, str]]:
    server = Server()
    runner = web.ServerRunner(web.Server(server.answer), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield server, f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


async def test_the_load_sends_its_requests_in_turn_and_counts_each_answer(server: tuple[Server, str]) -> None:
    serving, url = server
    requests = cycle([request_bytes("GET", f"{url}/{status}", {}) for status in (200, 404)])
    async with load(Target(url, requests), 3) as answers:
        await serving.seen.wait()
    assert sum(answers.statuses.values()) == len(answers.seconds) == answers.total == len(serving.paths)
    assert abs(answers.statuses[200] - answers.statuses[404]) <= 1
    assert answers.broken == 0
    assert min(answers.seconds) > 0


async def test_the_load_goes_on_where_the_server_ends_a_connection_with_an_answer(server: tuple[Server, str]) -> None:
    serving, url = server
    closing = request_bytes("GET", f"{url}/200", {"Connection": "close"})
    async with load(Target(url, cycle([closing])), 2) as answers:
        await serving.seen.wait()
    assert answers.statuses[200] == len(serving.paths)
    assert answers.broken == 0


async def test_the_load_tells_of_connections_that_broke(server: tuple[Server, str]) -> None:
    serving, url = server
    async with load(Target.of("GET", f"{url}/cut"), 20) as answers:
        await serving.seen.wait()
    assert answers.broken > 0
    assert not answers.seconds


async def test_upstreams_repeat_an_answer_until_something_changes_and_never_an_error(
    state_directory: Path, new_key: KeyFactory
) -> None:
    memories = {name: Repeating() for name in NAMES}
    waiting = iter(memories.values())
    async with AsyncExitStack() as stack:
        azure = await stack.enter_async_context(
            LocalAzure(
                state_directory,
                Ports(0, 0, 0, 0),
                new_key=new_key,
                new_runner=lambda application: next(waiting).runner(application),
            )
        )
        environment = azure.service_environment()
        LOGS.known.add(environment["COSMOS_KEY"])
        client = await stack.enter_async_context(
            CommunicationIdentityClient.from_connection_string(environment["ACS_CONNECTION_STRING"], retry_total=0)
        )
        user = await client.create_user()
        first = await client.get_token(user, ["chat"])
        again = await client.get_token(user, ["chat"])
        assert again.token == first.token
        assert azure.acs.faults.counts["issue_access_token"] == 1
        assert memories["acs"].calls == 3
        other = await client.create_user()
        azure.acs.faults.script("issue_access_token", Fault(status=503))
        with pytest.raises(HttpResponseError):
            await client.get_token(other, ["chat"])
        assert (await client.get_token(other, ["chat"])).token != first.token
        await client.get_token(user, ["chat"])
        assert azure.acs.faults.counts["issue_access_token"] == 4


async def test_upstreams_tell_users_apart(state_directory: Path, new_key: KeyFactory) -> None:
    memories = {name: Repeating() for name in NAMES}
    waiting = iter(memories.values())
    async with (
        LocalAzure(
            state_directory,
            Ports(0, 0, 0, 0),
            new_key=new_key,
            new_runner=lambda application: next(waiting).runner(application),
        ) as azure,
        new_http_session(unpack=True) as session,
    ):

        async def status(token: str | None) -> int:
            headers = {"Authorization": f"Bearer {token}"} if token else {}
            async with session.get(f"{azure.service_environment()['GRAPH_BASE_URL']}/v1.0/me", headers=headers) as me:
                return me.status

        token = azure.entra.access_token("alex", scope="User.Read", aud="https://graph.microsoft.com")
        assert await status(token) == 200
        assert await status(None) == 401
        assert await status(azure.entra.access_token("alex")) == 401


async def test_a_burst_opens_its_connections_at_once_and_counts_who_was_refused_and_who_starved(
    server: tuple[Server, str],
) -> None:
    _, url = server
    for path, statuses, starved in ((200, {200: 60}, 0), (503, {503: 60}, 0), ("cut", {}, 20)):
        seconds, told, without = await burst(Target.of("GET", f"{url}/{path}"), 20)
        assert (dict(told), without) == (statuses, starved)
        assert len(seconds) == sum(statuses.values())


async def test_requests_that_are_sent_one_after_another_wait_for_each_other(server: tuple[Server, str]) -> None:
    serving, url = server
    requests = [request_bytes("GET", f"{url}/{status}", {}) for status in (201, 200, 404)]
    seconds, statuses = await one_after_another(url, requests)
    assert serving.paths == ["/201", "/200", "/404"]
    assert statuses == {201: 1, 200: 1, 404: 1}
    assert len(seconds) == 3


def sample(rate: float, *latencies: float) -> Sample:
    return Sample(rate, latencies, cpu=rate / 10, upstream_calls=1, resident=rate, helpers=0.1)


def test_figures_are_medians_of_rounds_and_percentiles_of_all_latencies() -> None:
    figures = Figures.of([sample(100, 1, 2), sample(300, 3), sample(200, *range(4, 101))])
    assert (figures.rate, figures.cpu, figures.resident) == (200, 20, 300)
    assert (figures.p50, figures.p99) == (50, 99)


def test_a_share_is_taken_round_by_round() -> None:
    slow_then_fast = Figures.of([sample(50, 1), sample(100, 1), sample(500, 1)])
    beside = Figures.of([sample(100, 1), sample(200, 1), sample(1000, 1)])
    assert slow_then_fast.share_of(beside) == 0.5


def test_what_one_takes_more_than_another_is_taken_round_by_round() -> None:
    dear, cheap = Figures.of([sample(22, 1), sample(120, 1)]), Figures.of([sample(20, 1), sample(100, 1)])
    assert dear.cpu_beyond(cheap) == pytest.approx(0.15)


@pytest.mark.parametrize(("percent", "expected"), [(0, 1), (50, 3), (99, 5), (100, 5)])
def test_percentiles_are_values_that_occurred(percent: float, expected: float) -> None:
    assert percentile([1, 2, 3, 4, 5], percent) == expected


async def test_a_small_run_prints_each_figure() -> None:
    options = ("--quick", "--only", "throughput", "--store", "sqlite", "--seconds", "0.1")
    status, out, err = await finished(await python(os.environ, "-m", "benchmark", *options), patience=600)
    assert status == 0, err
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in out.splitlines() if "|" in line]
    calls = {(row[0], row[1], row[2]): float(row[7]) for row in rows if len(row) == 10 and row[1].isdecimal()}
    assert len(calls) == 2 * 2 * 7
    for (_, _, what), count in calls.items():
        expected = 0 if what in ("floor: nothing", "GET /api/user, sqlite", "POST /api/user, sqlite") else 1
        assert round(count) == expected, what


async def test_a_peer_is_measured_beside_the_service() -> None:
    peer = f"{sys.executable} -m quart_app.cli serve"
    options = ("--quick", "--only", "bursts", "--store", "sqlite", "--connections", "8")
    command = ("-m", "benchmark", *options, "--peer", peer, "--peer-port", str(free_port()))
    status, out, err = await finished(await python(os.environ, *command), patience=600)
    assert status == 0, err
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in out.splitlines() if line.startswith("| 8 ")]
    assert [row[1] for row in rows] == ["GET /api/token, sqlite", "GET /api/token, peer"]
    assert [row[6:8] for row in rows] == [["0", "0"], ["0", "0"]]
