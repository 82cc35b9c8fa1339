"""Takes in telemetry, as Azure Monitor and as an OTLP collector do, and keeps none."""

import gzip
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from aiohttp import web

from local_azure.certificates import LocalAuthority

_DEPLOYED = {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.05"}
"""As infra/resources.bicep has it."""


@asynccontextmanager
async def telemetry_settings(authority: LocalAuthority) -> AsyncIterator[Mapping[str, Mapping[str, str]]]:
    """The kinds of telemetry, by name, each with the service's settings for it, while somebody takes it in.

    `authority` is one whose certificates the service trusts.
    """
    runner = web.AppRunner(_application(), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=authority.server_context()).start()
    url = f"https://localhost:{runner.addresses[0][1]}"
    azure = {
        "APPLICATIONINSIGHTS_CONNECTION_STRING": "InstrumentationKey=00000000-0000-4000-8000-000000000000;"
        f"IngestionEndpoint={url}"
    }
    otlp = {"OTEL_EXPORTER_OTLP_ENDPOINT": url}
    yield {
        "no telemetry": {},
        "Azure Monitor, one trace in 20": {**azure, **_DEPLOYED},
        "Azure Monitor, every trace": azure,
        "OTLP, one trace in 20": {**otlp, **_DEPLOYED},
        "OTLP, every trace": otlp,
        "OTLP, metrics only": {"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": f"{url}/v1/metrics"},
        "OTLP, traces only, one in 20": {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{url}/v1/traces", **_DEPLOYED},
    }
    await runner.cleanup()


def _application() -> web.Application:
    async def track(request: web.Request) -> web.Response:
        body = await request.read()
        items = json.loads(gzip.decompress(body) if body.startswith(b"\x1f\x8b") else body)
        return web.json_response({"itemsReceived": len(items), "itemsAccepted": len(items), "errors": []})

    async def export(request: web.Request) -> web.Response:
        await request.read()
        return web.Response(content_type="application/x-protobuf")

    application = web.Application(client_max_size=64 * 2**20)
    application.router.add_post("/v2.1/track", track)
    application.router.add_post("/v1/{signal}", export)
    return application
