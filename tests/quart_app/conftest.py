"""The whole service, built as in production, pointed at the stand-ins by its settings alone."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from quart import Quart
from quart.typing import TestClientProtocol as Client

from local_azure.environment import LocalAzure
from quart_app.app import create_app
from quart_app.settings import Settings, load_settings
from tests.support.service_process import settings_for

Bearer = Callable[[str], dict[str, str]]


@pytest.fixture
def configured(local_azure: LocalAzure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """The settings are environment variables, with mappings in SQLite; a test changes them."""
    for name, value in settings_for(local_azure, tmp_path).items():
        monkeypatch.setenv(name, value)
    return monkeypatch


@pytest.fixture
def settings(configured: pytest.MonkeyPatch) -> Settings:
    return load_settings(None)


@pytest.fixture
async def app(settings: Settings) -> AsyncIterator[Quart]:
    async with create_app(settings) as app:
        yield app


@pytest.fixture
def client(app: Quart) -> Client:
    return app.test_client()


@pytest.fixture
def bearer(local_azure: LocalAzure) -> Bearer:
    """The Authorization header of a signed-in local user, by name."""
    return lambda name: {"Authorization": f"Bearer {local_azure.entra.access_token(name)}"}
