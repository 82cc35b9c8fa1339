"""An upstream that moves while connections to its old address stand: how soon the service follows.

The old address stays up and answers, which is what makes it a trap: nothing breaks, so connections are kept.
"""

import asyncio
import shutil
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from aiohttp import web

from local_azure.certificates import LocalAuthority
from local_azure.cosmos import forbidden
from local_azure.entra.directory import HOME_TENANT, USERS
from local_azure.environment import LocalAzure
from quart_app.acs.client import AcsOptions, SdkAcsClient
from quart_app.app import create_app
from quart_app.auth.on_behalf_of.errors import OnBehalfOfUnavailable
from quart_app.auth.on_behalf_of.msal_http import HttpClient
from quart_app.settings import AcsConnectionString, load_settings
from quart_app.web.readiness import Readiness
from storage.graph import open_graph_store
from storage.graph_options import GraphOptions
from storage.mapping import UserKey
from tests.conftest import FakeClock
from tests.support.forwarder import forwarding
from tests.support.running_cosmos import running_cosmos
from tests.support.running_graph import SEAL_KEYS
from upstream import http_session
from upstream.errors import Unavailable
from upstream.http_session import MAXIMUM_AGE_SECONDS, new_http_session

Call = Callable[[], Awaitable[object]]
ALEX = UserKey(HOME_TENANT.tenant_id, USERS["alex"].object_id)


@asynccontextmanager
async def lost_region(directory: Path) -> AsyncIterator[int]:
    """An address that answers everything with 503 and keeps its connections."""

    async def unavailable(_: web.Request) -> web.Response:
        return web.Response(status=503)

    application = web.Application()
    application.router.add_route("*", "/{path:.*}", unavailable)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        await web.SockSite(runner, listening, ssl_context=LocalAuthority(directory).server_context()).start()
        try:
            yield listening.getsockname()[1]
        finally:
            await runner.cleanup()


def port_of(url: str) -> int:
    return int(url.rstrip("/").rpartition(":")[2])


def acs_at(local_azure: LocalAzure, port: int) -> AcsConnectionString:
    """The connection string of the stand-in, with another port."""
    told = AcsConnectionString.parse(local_azure.acs.service_environment()["ACS_CONNECTION_STRING"])
    return replace(told, endpoint=f"https://localhost:{port}")


def acs_port(local_azure: LocalAzure) -> int:
    return port_of(AcsConnectionString.parse(local_azure.acs.service_environment()["ACS_CONNECTION_STRING"]).endpoint)


@asynccontextmanager
async def acs(local_azure: LocalAzure, port: int) -> AsyncIterator[Call]:
    minting = SdkAcsClient(AcsOptions(("voip",), connection_string=acs_at(local_azure, acs_port(local_azure))))
    client = SdkAcsClient(AcsOptions(("voip",), connection_string=acs_at(local_azure, port)))
    try:
        identity = await minting.create_identity()
        yield lambda: client.issue_token(identity)
    finally:
        await minting.aclose()
        await client.aclose()


class AlexTokens:
    def __init__(self, local_azure: LocalAzure) -> None:
        self._local_azure = local_azure

    async def access_token(self, user: UserKey) -> str:
        return self._local_azure.entra.graph_token("alex", scope="User.ReadWrite")

    def refused(self, user: UserKey) -> None:
        raise AssertionError("the token was refused")


@asynccontextmanager
async def graph(local_azure: LocalAzure, port: int) -> AsyncIterator[Call]:
    store = await open_graph_store(GraphOptions(SEAL_KEYS, f"https://localhost:{port}"), AlexTokens(local_azure))
    try:
        yield lambda: store.get(ALEX)
    finally:
        await store.aclose()


@asynccontextmanager
async def signing_keys(local_azure: LocalAzure, port: int) -> AsyncIterator[Call]:
    async with new_http_session(unpack=True) as session:

        async def ask() -> None:
            path = f"/{HOME_TENANT.tenant_id}/v2.0/.well-known/openid-configuration"
            async with session.get(f"https://localhost:{port}{path}") as answer:
                await answer.read()
                if answer.status != 200:
                    raise OnBehalfOfUnavailable

        yield ask


@asynccontextmanager
async def on_behalf_of(local_azure: LocalAzure, port: int) -> AsyncIterator[Call]:
    client = HttpClient(5, 4)
    path = f"/{HOME_TENANT.tenant_id}/v2.0/.well-known/openid-configuration"
    try:
        yield lambda: asyncio.to_thread(client.get, f"https://localhost:{port}{path}")
    finally:
        await client.aclose()


UPSTREAMS = {
    "acs": (acs, acs_port),
    "graph": (graph, lambda local_azure: port_of(local_azure.graph.service_environment()["GRAPH_BASE_URL"])),
    "entra_keys": (signing_keys, lambda local_azure: port_of(local_azure.entra.url)),
    "entra_on_behalf_of": (on_behalf_of, lambda local_azure: port_of(local_azure.entra.url)),
}


@pytest.mark.parametrize("upstream", UPSTREAMS)
async def test_a_name_that_leads_elsewhere_is_followed_within_the_maximum_age(
    upstream: str, local_azure: LocalAzure, state_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = FakeClock(time.monotonic())
    monkeypatch.setattr(http_session, "monotonic", clock)
    opened, port = UPSTREAMS[upstream]
    async with (
        lost_region(state_directory) as lost,
        forwarding(lost) as name,
        opened(local_azure, name.port) as call,
    ):
        with pytest.raises(Unavailable):
            await call()
        name.target = port(local_azure)
        with pytest.raises(Unavailable):  # on the connection that stands: nothing told that it leads astray
            await call()
        clock.advance(MAXIMUM_AGE_SECONDS + 1)
        await call()
        assert name.connections == {lost: 1, name.target: 1}


@pytest.mark.parametrize("sub_status", [3, 1008])
async def test_a_write_follows_a_failover_of_cosmos_db_within_the_call_that_learns_of_it(
    sub_status: int, local_azure: LocalAzure, configured: pytest.MonkeyPatch, state_directory: Path, tmp_path: Path
) -> None:
    configured.setattr(Readiness, "start", lambda _: None)  # its own requests come when they come
    one, other = tmp_path / "one", tmp_path / "other"
    shutil.copytree(state_directory, one, ignore=shutil.ignore_patterns("*.sqlite*"))
    async with running_cosmos(one):
        pass  # an account, of which both regions have the key
    shutil.copytree(one, other)
    async with AsyncExitStack() as stack:
        regions = [await stack.enter_async_context(running_cosmos(directory)) for directory in (one, other)]
        told, moved_to = (region.service_environment() for region in regions)
        name = await stack.enter_async_context(forwarding(port_of(told["COSMOS_ENDPOINT"])))
        configured.setenv("STORAGE_BACKEND", "cosmos")
        configured.setenv("COSMOS_ENDPOINT", f"https://localhost:{name.port}")
        configured.setenv("COSMOS_KEY", told["COSMOS_KEY"])
        app = await stack.enter_async_context(create_app(load_settings(None)))
        client = app.test_client()

        async def post(user: str) -> int:
            headers = {"Authorization": f"Bearer {local_azure.entra.access_token(user)}"}
            return (await client.post("/api/user", headers=headers)).status_code

        assert [await post(user) for user in ("alex", "megan", "pradeep")] == [201] * 3
        for operation in ("create_item", "read_item"):
            regions[0].faults.script(operation, forbidden(sub_status, times=None))
        name.target = port_of(moved_to["COSMOS_ENDPOINT"])
        assert [await post(user) for user in ("zoe", "alex")] == [201, 201]


async def test_a_mint_does_not_meet_a_kept_connection_that_is_cut_by_now(local_azure: LocalAzure) -> None:
    async with forwarding(acs_port(local_azure)) as name:
        client = SdkAcsClient(AcsOptions(("voip",), connection_string=acs_at(local_azure, name.port)))
        try:
            for _ in range(8):
                identity = await client.create_identity()
                await client.issue_token(identity)
                name.cut()
        finally:
            await client.aclose()
    assert len(local_azure.acs.live_identities()) == 8


async def test_on_behalf_of_gets_past_a_first_address_that_answers_nothing(
    local_azure: LocalAzure, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = port_of(local_azure.entra.url)
    loop = asyncio.get_running_loop()
    with socket.socket() as silent, socket.socket() as waiting, socket.socket() as refused:
        silent.bind(("127.0.0.2", port))
        silent.listen(0)
        for filling in (waiting, refused):  # its backlog is full, so whoever comes next gets no answer
            filling.setblocking(False)
            filling.connect_ex(("127.0.0.2", port))

        async def addresses(*_: object, **__: object) -> list[object]:
            return [
                (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (address, port))
                for address in ("127.0.0.2", "127.0.0.1")
            ]

        monkeypatch.setattr(loop, "getaddrinfo", addresses)
        client = HttpClient(120, 4)
        path = f"/{HOME_TENANT.tenant_id}/v2.0/.well-known/openid-configuration"
        began = time.monotonic()
        try:
            await asyncio.to_thread(client.get, f"https://localhost:{port}{path}")
        finally:
            await client.aclose()
    assert time.monotonic() - began < 60  # 0.3 s on an idle machine; 120 s if the addresses were tried one by one
