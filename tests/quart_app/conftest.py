"""The whole service, built as in production, pointed at the stand-ins by its settings alone."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from quart import Quart
from quart.typing import TestClientProtocol as Client

from local_azure.environment import LocalAzure
from quart_app.app import create_app
from quart_app.settings import Settings, load_settings

Bearer = Callable[[str], dict[str, str]]


@pytest.fixture
def settings(local_azure: LocalAzure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name, value in local_azure.service_environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("STORAGE_BACKEND", "sqlite")
    monkeypatch.setenv("SQLITE_PATH", str(tmp_path / "mappings.sqlite"))
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
