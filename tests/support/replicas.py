"""The service as several processes would run it, each with memory of its own."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from quart.typing import TestClientProtocol as Client

from quart_app.app import create_app
from quart_app.settings import load_settings


@asynccontextmanager
async def replica() -> AsyncIterator[Client]:
    """A service by the environment's settings."""
    async with create_app(load_settings(None)) as app:
        yield app.test_client()
