"""The command line against the stand-ins: in this process where that does, as a process of its own where it matters."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from local_azure.environment import LocalAzure
from local_azure.graph.open_extensions import OpenExtension
from quart_app.cli import main
from storage.graph_extensions import IDENTITY, SEAL
from storage.mapping import MappingStore, UserKey
from storage.seal import Seals, parse_seal_keys
from storage.sqlite import open_sqlite_store
from tests.support.service_process import environment_for

EXTENSION = "com.contoso.identityMapping"

AcsAuth = Callable[..., "asyncio.Future[Result]"]


@pytest.fixture
def environment(local_azure: LocalAzure, tmp_path: Path) -> dict[str, str | None]:
    """The settings that the commands read; a test changes them."""
    return dict(environment_for(local_azure, tmp_path))


@pytest.fixture
async def sqlite_store(environment: dict[str, str | None]) -> AsyncIterator[MappingStore]:
    """The SQLite store that the commands find, open beside them."""
    store = await open_sqlite_store(Path(str(environment["SQLITE_PATH"])))
    yield store
    await store.aclose()


@pytest.fixture
def acs_auth(environment: dict[str, str | None]) -> AcsAuth:
    """`await acs_auth("doctor", "--json")`: the command in a thread with an event loop of its own, and its result."""

    def call(*arguments: str, typed: str | None = None) -> "asyncio.Future[Result]":
        def invoke() -> Result:
            return CliRunner().invoke(main, arguments, env=environment, input=typed, catch_exceptions=False)

        return asyncio.ensure_future(asyncio.to_thread(invoke))

    return call


def seals_of(local_azure: LocalAzure) -> Seals:
    """What seals for the service that uses these stand-ins."""
    return Seals(parse_seal_keys(local_azure.service_environment()["GRAPH_SEAL_KEYS"]), EXTENSION)


def extend(
    local_azure: LocalAzure, tenant: str, user: str, acs_user_id: str, *, sealed: bool = True, **more: object
) -> None:
    """Give a user a mapping in Microsoft Graph; without a seal it is as the samples write it."""
    seal = {SEAL: seals_of(local_azure).seal(UserKey(tenant, user), acs_user_id)} if sealed else {}
    extension = OpenExtension(EXTENSION, {IDENTITY: acs_user_id, **seal, **more})
    local_azure.graph.extensions.create(tenant, user, "sample", extension)
