"""These tests need Node.js packages and a generator of clients: they run with `make openapi`, not with `make test`."""

import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from local_azure.environment import LocalAzure
from quart_app.app import create_app
from quart_app.settings import load_settings
from tests.openapi.tools import TOOLS, Tools
from tests.support.running_service import served
from tests.support.service_process import settings_for

collect_ignore_glob = [] if os.environ.get(TOOLS) else ["test_*.py"]


@pytest.fixture
async def service(local_azure: LocalAzure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    """The address of the service, with the stand-ins behind it."""
    for name, value in settings_for(local_azure, tmp_path).items():
        monkeypatch.setenv(name, value)
    async with create_app(load_settings(None)) as app, served(app) as address:
        yield address


@pytest.fixture
async def documents(service: str, tmp_path: Path) -> list[Path]:
    """The OpenAPI document, and the one that `/docs` shows."""
    files = []
    async with aiohttp.ClientSession(service) as session:
        for path in ("/openapi.json", "/docs/openapi.json"):
            async with session.get(path) as answer:
                file = tmp_path / path[1:].replace("/", "-")
                file.write_text(json.dumps(await answer.json(), indent=1))
                files.append(file)
    return files


@pytest.fixture
def tools(tmp_path: Path) -> Tools:
    return Tools(Path(os.environ[TOOLS]), home=tmp_path)
