"""Serving as a platform meets it: real processes and sockets, SIGTERM with clients of every kind connected."""

import asyncio
import gc
import itertools
import signal
import socket
import sys
import weakref
from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
import pytest

from local_azure.environment import LocalAzure
from local_azure.faults import Fault
from local_azure.port_choice import free_port
from local_azure.service_process import ServiceProcess
from quart_app.serving import server
from quart_app.serving.server import StartUpFailed, _bind, _drained, _Server, _spare_the_garbage_collector
from quart_app.serving.stopping import Stopping
from quart_app.settings import ServerSettings
from quart_app.web.limits import BUSY_RETRY_AFTER_SECONDS
from tests.support.service_process import PATIENCE_SECONDS, environment_for, not_accepting, serving, stopped

DRAIN_SECONDS = 0.5
IN_FLIGHT = 200

PROGRAM = f"""
from quart_app.telemetry.logs import configure_logging
from quart_app.serving.server import run
from quart_app.settings import load_settings

settings = load_settings(None)
configure_logging(settings.server.environment)
run(settings, drain_seconds={DRAIN_SECONDS})
"""
BRIEFLY_DRAINED = ("-c", PROGRAM)


@pytest.fixture
def environment(local_azure: LocalAzure, tmp_path: Path) -> dict[str, str]:
    return environment_for(local_azure, tmp_path)


async def connected(service: ServiceProcess, limit: int = 65536) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection to the service, of which at most so many bytes are buffered here."""
    address = urlsplit(service.url)
    return await asyncio.open_connection(address.hostname, address.port, limit=limit)


async def status_of(session: aiohttp.ClientSession, url: str, headers: dict[str, str] | None = None) -> int:
    async with session.get(url, headers=headers) as answer:
        return answer.status


async def test_sigterm_during_two_hundred_requests_loses_none(
    environment: dict[str, str], local_azure: LocalAzure, capsys: pytest.CaptureFixture[str]
) -> None:
    environment |= {"MAX_CONCURRENT_REQUESTS": str(IN_FLIGHT), "REQUEST_DEADLINE_SECONDS": "60"}
    names = ["alex", "megan", "pradeep", "zoe"]
    may_answer = asyncio.Event()
    local_azure.acs.faults.script("create_identity", Fault(until=may_answer, times=len(names)))
    connector = aiohttp.TCPConnector(limit=0)
    async with serving(environment) as service, aiohttp.ClientSession(service.url, connector=connector) as session:

        async def post(name: str) -> tuple[int, str | None, str]:
            headers = {"Authorization": f"Bearer {local_azure.entra.access_token(name)}"}
            for _ in range(IN_FLIGHT):
                async with session.post("/api/user", headers=headers) as answer:
                    if answer.status != 503:  # a place may be taken for a moment by the request that counts them, below
                        return answer.status, answer.headers.get("Connection"), (await answer.json())["acsUserIdentity"]
            raise AssertionError("refused again and again")

        requests = [asyncio.create_task(post(name)) for name in itertools.islice(itertools.cycle(names), IN_FLIGHT)]
        async with asyncio.timeout(PATIENCE_SECONDS):
            good = {"Authorization": f"Bearer {local_azure.entra.access_token('guest')}"}
            while await status_of(session, "/api/user", good) != 503:
                pass  # one more than are served at once is refused: then all are being served
        service.process.send_signal(signal.SIGTERM)
        await not_accepting(service)
        in_flight = sum(not request.done() for request in requests)
        may_answer.set()
        answers = await asyncio.gather(*requests, return_exceptions=True)
        status, log = await stopped(service)
    answered = [answer for answer in answers if not isinstance(answer, BaseException)]
    with capsys.disabled():
        sys.stdout.write(
            f"\nSIGTERM during {in_flight} requests in flight: {len(answered)} of {len(answers)} answered\n"
        )
    assert (in_flight, len(answered)) == (IN_FLIGHT, IN_FLIGHT)
    assert sorted(answer[0] for answer in answered) == [200] * (IN_FLIGHT - len(names)) + [201] * len(names)
    assert {answer[1] for answer in answered} == {"close"}
    assert sorted({answer[2] for answer in answered}) == sorted(local_azure.acs.live_identities())
    assert status == 0
    assert "Traceback" not in log


Client = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def idle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert b" 200 " in await reader.readline()


async def silent(_: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
    """Connected, and nothing more."""


async def stuck_in_its_headers(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"GET /health/live HTTP/1.1\r\nHost: loc")
    await writer.drain()


async def stuck_in_its_body(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"POST /api/user HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{")
    await writer.drain()


async def not_reading(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    transport = writer.transport
    assert isinstance(transport, asyncio.ReadTransport)
    transport.pause_reading()
    request = b"GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: localhost\r\n\r\n"
    writer.write(request * 20)
    await writer.drain()


@pytest.mark.parametrize("client", [idle, silent, stuck_in_its_headers, stuck_in_its_body, not_reading])
async def test_no_client_holds_up_the_stop(client: Client, environment: dict[str, str]) -> None:
    async with serving(environment, BRIEFLY_DRAINED) as service:
        reader, writer = await connected(service, limit=1024)
        try:
            await client(reader, writer)
            async with aiohttp.ClientSession(service.url) as session:  # a round trip later it has seen that client
                assert await status_of(session, "/health/live") == 200
            service.process.send_signal(signal.SIGTERM)
            status, log = await stopped(service)
            assert status == 0
            assert "Traceback" not in log
        finally:
            writer.transport.abort()


async def test_a_request_that_never_ends_is_cut_at_the_end_of_the_drain_time(
    environment: dict[str, str], local_azure: LocalAzure
) -> None:
    environment["REQUEST_DEADLINE_SECONDS"] = "100"
    local_azure.acs.faults.script("create_identity", Fault(hang=True, times=None))
    token = local_azure.entra.access_token("alex")
    async with serving(environment, BRIEFLY_DRAINED) as service, aiohttp.ClientSession(service.url) as session:
        headers = {"Authorization": f"Bearer {token}"}
        posting = asyncio.create_task(session.post("/api/user", headers=headers))
        await local_azure.acs.faults.arrived("create_identity")
        service.process.send_signal(signal.SIGTERM)
        status, _ = await stopped(service)
        assert status == 0
        answer = await posting
        assert answer.status == 500


@pytest.mark.parametrize(("hops", "trusted"), [("0", False), ("1", True)])
async def test_proxy_headers_count_only_when_a_proxy_is_declared(
    hops: str, trusted: bool, environment: dict[str, str]
) -> None:
    environment["TRUSTED_PROXY_HOPS"] = hops
    forwarded = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "192.0.2.1", "X-Forwarded-Host": "auth.example.com"}
    async with (
        serving(environment) as service,
        aiohttp.ClientSession(service.url) as session,
        session.get("/health/live", headers=forwarded) as answer,
    ):
        assert answer.status == 200
        assert ("Strict-Transport-Security" in answer.headers) is trusted
        assert "Server" not in answer.headers


async def test_more_header_bytes_than_any_client_needs_are_refused(environment: dict[str, str]) -> None:
    async with serving(environment) as service:
        reader, writer = await connected(service)
        try:
            writer.write(b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * 70_000)
            await writer.drain()
            async with asyncio.timeout(PATIENCE_SECONDS):
                assert b" 431 " in await reader.readline()
                await reader.read()  # to the end: the connection is closed
        finally:
            writer.transport.abort()


async def test_half_requests_and_stalled_readers_take_no_place_from_a_good_caller(
    environment: dict[str, str], local_azure: LocalAzure
) -> None:
    """Anonymous callers who announce a body and send none, or ask for a large page and read nothing."""
    environment |= {"MAX_CONCURRENT_REQUESTS": "5", "REQUEST_DEADLINE_SECONDS": "60"}
    good = {"Authorization": f"Bearer {local_azure.entra.access_token('alex')}"}
    half = b"POST /api/user HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n"
    stalled = b"GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: localhost\r\n\r\n"
    async with serving(environment) as service, aiohttp.ClientSession(service.url) as session:
        writers = []
        for request in [half] * 40 + [stalled] * 60:
            _, writer = await connected(service, limit=1)
            writer.write(request)
            writers.append(writer)
        # All of them came in one moment: whoever came with them may be asked to come back, once.
        statuses = [await status_of(session, "/api/user", good)]
        if statuses == [503]:
            await asyncio.sleep(BUSY_RETRY_AFTER_SECONDS)
        statuses += [await status_of(session, "/api/user", good) for _ in range(5)]
        for writer in writers:
            writer.transport.abort()
    assert statuses in ([404] * 6, [503] + [404] * 5)


async def test_a_body_that_does_not_arrive_is_not_waited_for(environment: dict[str, str]) -> None:
    async with serving(environment) as service:
        reader, writer = await connected(service)
        try:
            await stuck_in_its_body(reader, writer)
            async with asyncio.timeout(PATIENCE_SECONDS):
                assert b" 401 " in await reader.readline()
                await reader.read()  # the connection ends, because the body may still come
        finally:
            writer.transport.abort()


async def test_the_port_is_the_one_that_is_set(environment: dict[str, str]) -> None:
    port = free_port()
    environment["PORT"] = str(port)
    async with serving(environment), aiohttp.ClientSession() as session:
        assert await status_of(session, f"http://127.0.0.1:{port}/health/live") == 200


def test_on_windows_too_a_port_is_taken_by_one_service_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    settings = ServerSettings.model_validate({"host": "127.0.0.1", "port": free_port()})
    with _bind(settings), pytest.raises(StartUpFailed, match=f"Port {settings.port} is taken by another program"):
        _bind(settings)


async def test_a_start_that_is_given_up_is_not_listening_any_more() -> None:
    bound = socket.socket()
    bound.bind(("127.0.0.1", 0))
    address = bound.getsockname()
    starting = _Server(bound, 0, DRAIN_SECONDS, Stopping(PATIENCE_SECONDS))
    starting.cut()  # nothing to stop yet
    starting.listen()
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not await is_listened_on(address):
            pass
        starting.cut()
        assert starting._serving is not None
        await asyncio.wait({starting._serving})
        assert not await is_listened_on(address)


async def is_listened_on(address: tuple[str, int]) -> bool:
    try:
        _, writer = await asyncio.open_connection(*address)
    except ConnectionRefusedError:
        return False
    writer.transport.abort()
    return True


@pytest.mark.parametrize("reaction", ["ends", "fails", "goes on"])
async def test_at_the_end_of_the_drain_time_serving_is_cut_and_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, reaction: str
) -> None:
    monkeypatch.setattr(server, "_CANCEL_SECONDS", 0.01)
    gc.collect()  # what other tests left
    caplog.clear()
    over = asyncio.Event()

    async def serve() -> None:
        try:
            await over.wait()
        except asyncio.CancelledError:
            if reaction == "ends":
                raise
            if reaction == "fails":
                raise ConnectionResetError from None
            await over.wait()

    serving = asyncio.create_task(serve())
    await _drained(serving, 0)
    assert serving.done() is (reaction != "goes on")
    over.set()
    await asyncio.wait({serving})
    del serving
    gc.collect()  # an error that nobody looked at would be reported now
    assert [record.getMessage() for record in caplog.records] == [
        "connections were still open at the end of the drain time; they are cut"
    ]


@pytest.mark.parametrize(("scopes", "told"), [("chat,voip", 1), ("voip", 0)])
async def test_a_start_tells_once_that_chat_retires_where_tokens_are_good_for_it(
    environment: dict[str, str], scopes: str, told: int
) -> None:
    environment["ACS_TOKEN_SCOPES"] = scopes
    async with serving(environment) as service:
        service.process.send_signal(signal.SIGTERM)
        status, log = await stopped(service)
    assert status == 0
    assert log.count("docs/retirement.md") == log.count("2028-09-30") == told


def test_garbage_that_has_grown_old_does_not_pile_up() -> None:
    class Cycle:
        def __init__(self) -> None:
            self.itself = self

    thresholds = gc.get_threshold()
    try:
        _spare_the_garbage_collector()
        gc.collect()
        alive: weakref.WeakSet[Cycle] = weakref.WeakSet()
        served: deque[Cycle] = deque(maxlen=30_000)  # as requests are, which live for longer than a pass or two
        most = 0
        for _ in range(300_000):
            served.append(one := Cycle())
            alive.add(one)
            most = max(most, len(alive))
        assert most < 200_000
    finally:
        gc.unfreeze()
        gc.set_threshold(*thresholds)
        gc.enable()


def test_after_the_start_garbage_is_collected_but_what_the_start_made_is_not_looked_at() -> None:
    class Cycle:
        def __init__(self) -> None:
            self.itself = self

    thresholds = gc.get_threshold()
    gc.disable()
    try:
        _spare_the_garbage_collector()
        assert gc.isenabled()
        assert gc.get_freeze_count() > 10_000
        garbage = weakref.ref(Cycle())
        gc.collect()
        assert garbage() is None
    finally:
        gc.unfreeze()
        gc.set_threshold(*thresholds)
        gc.enable()
