"""Which of the service's calls go through the proxy that the environment names: docs/proxies.md."""

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import aiohttp
import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.trace import SpanContext

from local_azure.entra.directory import MANAGED_IDENTITY as IDENTITY
from local_azure.environment import LocalAzure
from quart_app.acs.client import AcsOptions, SdkAcsClient
from quart_app.acs.interface import AcsUnavailable
from quart_app.auth.on_behalf_of.errors import OnBehalfOfUnavailable
from quart_app.auth.on_behalf_of.msal_http import HttpClient
from quart_app.credentials import managed_identity
from quart_app.settings import AcsConnectionString, EntraSettings
from quart_app.telemetry.azure_monitor import azure_exporters
from quart_app.telemetry.otlp import ToldSpanExporter
from storage.cosmos import open_cosmos_store
from storage.cosmos_options import CosmosOptions
from storage.mapping import StoreUnavailable
from upstream.http_session import new_http_session
from upstream.retrying import RetryPolicy


class Proxy:
    """Refuses everything and notes the first line and the headers of what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.url = ""

    async def refuse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.asked.append((await reader.readuntil(b"\r\n\r\n")).decode())
        writer.write(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()


@pytest.fixture(params=["upper", "lower"])
async def proxy(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Proxy]:
    """The proxy of HTTP_PROXY and HTTPS_PROXY; nothing is exempt from it."""
    recorder = Proxy()
    server = await asyncio.start_server(recorder.refuse, "127.0.0.1", 0)
    recorder.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name in ("HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name if request.param == "upper" else name.lower(), recorder.url)
    yield recorder
    server.close()


async def test_the_identity_endpoint_is_never_asked_through_a_proxy(
    local_azure: LocalAzure, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in local_azure.entra.managed_identity_environment().items():
        monkeypatch.setenv(name, value)
    settings = EntraSettings.model_construct(managed_identity_client_id=IDENTITY.client_id)
    async with managed_identity(settings, RetryPolicy(attempts=1)) as identity:
        assert await identity.token("https://communication.azure.com/.default")
    assert proxy.asked == []


KEY = "a2V5"


async def ask_acs() -> None:
    string = AcsConnectionString.parse(f"endpoint=https://acs.invalid/;accesskey={KEY}")
    client = SdkAcsClient(AcsOptions(("voip",), connection_string=string))
    try:
        with pytest.raises(AcsUnavailable):
            await client.create_identity()
    finally:
        await client.aclose()


async def ask_cosmos() -> None:
    with pytest.raises(StoreUnavailable):
        await open_cosmos_store(CosmosOptions("https://cosmos.invalid", "d", "c", key=KEY))


async def ask_entra_on_behalf_of() -> None:
    client = HttpClient(5, 1)
    try:
        with pytest.raises(OnBehalfOfUnavailable):
            await asyncio.to_thread(client.get, "https://entra.invalid/tenant")
    finally:
        await client.aclose()


async def ask_with_a_session_of_the_house() -> None:
    """As signing keys and Microsoft Graph are."""
    async with new_http_session() as session:
        with pytest.raises(aiohttp.ClientHttpProxyError):
            await session.get("https://graph.invalid/")


@pytest.mark.parametrize(
    ("ask", "host"),
    [
        (ask_acs, "acs.invalid"),
        (ask_cosmos, "cosmos.invalid"),
        (ask_entra_on_behalf_of, "entra.invalid"),
        (ask_with_a_session_of_the_house, "graph.invalid"),
    ],
)
@pytest.mark.usefixtures("quick_cosmos_refusals")
async def test_every_other_upstream_is_asked_through_a_tunnel_that_shows_no_secret(
    ask: Callable[[], Awaitable[None]], host: str, proxy: Proxy
) -> None:
    await ask()
    assert proxy.asked
    for asked in proxy.asked:
        assert asked.startswith(f"CONNECT {host}:443 ")
        assert "authorization" not in asked.lower()


async def test_what_no_proxy_names_is_asked_directly(
    local_azure: LocalAzure, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_PROXY", "localhost,127.0.0.1")
    async with new_http_session() as session, session.get(local_azure.entra.url) as answer:
        await answer.read()
    assert proxy.asked == []


async def test_a_netrc_file_says_who_the_service_is_to_the_proxy(
    local_azure: LocalAzure, proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login proxy-user password proxy-password\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    async with new_http_session() as session:
        with pytest.raises(aiohttp.ClientHttpProxyError):
            await session.get("https://graph.invalid/", headers={"Authorization": "Bearer x"})
    (asked,) = proxy.asked
    assert "Proxy-Authorization: Basic" in asked


async def test_a_netrc_file_says_nothing_to_an_upstream(
    proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("default login somebody password something\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")  # the same server again, as an upstream
    async with new_http_session() as session:
        for headers in ({"Authorization": "Bearer x"}, {}):
            async with session.get(proxy.url, headers=headers) as answer:
                assert answer.status == 502
    with_its_own, without = proxy.asked
    assert "Authorization: Bearer x" in with_its_own
    assert "authorization" not in without.lower()


def a_span() -> ReadableSpan:
    return ReadableSpan("GET /api/token", context=SpanContext(1, 1, is_remote=False), start_time=1, end_time=2)


async def test_telemetry_for_azure_goes_through_a_tunnel(proxy: Proxy) -> None:
    spans, metrics = azure_exporters(f"InstrumentationKey={uuid.uuid4()};IngestionEndpoint=https://ingestion.invalid/")
    assert await asyncio.to_thread(spans.export, [a_span()]) is not SpanExportResult.SUCCESS
    await asyncio.to_thread(spans.shutdown)
    await asyncio.to_thread(metrics.shutdown)
    assert proxy.asked
    assert all(asked.startswith("CONNECT ingestion.invalid:443 ") for asked in proxy.asked)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "collector.invalid"])
async def test_only_a_collector_elsewhere_is_asked_through_the_proxy(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    collector = Proxy()
    server = await asyncio.start_server(collector.refuse, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://{host}:{port}")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")  # seconds, for a repetition as well
    exporter = ToldSpanExporter()
    await asyncio.to_thread(exporter.export, [a_span()])
    await asyncio.to_thread(exporter.shutdown)
    server.close()
    asked, silent = (proxy, collector) if host == "collector.invalid" else (collector, proxy)
    assert silent.asked == []
    assert asked.asked[0].startswith("POST ")
