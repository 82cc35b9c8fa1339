"""The service over real HTTP in the test's own process, where its parts can be reached."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import hypercorn.asyncio
from hypercorn.config import Config
from quart import Quart

from quart_app.serving.hypercorn_patch import patch_hypercorn
from quart_app.serving.server import KEEP_ALIVE_SECONDS
from quart_app.web.errors import refusal_by_the_server


@asynccontextmanager
async def served(app: Quart) -> AsyncIterator[str]:
    """`app` served by Hypercorn on a loopback port that the system chose; its address."""
    config = Config()
    config.bind = ["127.0.0.1:0"]
    config.accesslog = config.errorlog = None
    config.keep_alive_timeout = KEEP_ALIVE_SECONDS
    (listening,) = config.create_sockets().insecure_sockets
    listening.listen()  # from now on connections wait for Hypercorn
    address = f"http://127.0.0.1:{listening.getsockname()[1]}"
    config.bind = [f"fd://{listening.detach()}"]
    patch_hypercorn(refusal_by_the_server)
    stop = asyncio.Event()
    serving = asyncio.create_task(hypercorn.asyncio.serve(app, config, shutdown_trigger=stop.wait))
    try:
        yield address
    finally:
        stop.set()
        await serving
