"""A service, the stand-ins and a Python client that lives beside them, all in one moved time."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msal
import pytest
import requests
import time_machine

from acs_auth_client import AcsTokens
from local_azure.entra.directory import API, COMMAND_LINE, HOME_TENANT, TEAMS, Application
from local_azure.environment import LocalAzure
from quart_app.app import create_app
from quart_app.settings import load_settings
from tests.clients.moved_time import MovedTime
from tests.support.running_service import served

SCOPE = f"{API.app_id_uri}/access_as_user"
SETTINGS = {"STORAGE_BACKEND": "sqlite", "ACS_TOKEN_LIFETIME_MINUTES": "60"}

Service = Callable[..., AbstractAsyncContextManager[str]]
Client = Callable[..., Awaitable[AcsTokens]]


@pytest.fixture(autouse=True)
def moved() -> Iterator[MovedTime]:
    with time_machine.travel(datetime(2026, 11, 26, 12, tzinfo=UTC), tick=False) as traveller:
        yield MovedTime(traveller)


@pytest.fixture
def service(moved: MovedTime, local_azure: LocalAzure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Service:
    """Runs the service; its settings may be overridden. It gives the service's address."""

    @asynccontextmanager
    async def run(**settings: str) -> AsyncIterator[str]:
        values = {"SQLITE_PATH": str(tmp_path / "mappings.sqlite"), **SETTINGS, **settings}
        for name, value in {**local_azure.service_environment(), **values}.items():
            monkeypatch.setenv(name, value)
        async with create_app(load_settings(None)) as app, served(app) as address:
            yield address

    return run


class SignedIn:
    """MSAL with a user who has signed in with a device code, and who does so again when asked."""

    def __init__(self, local_azure: LocalAzure, user: str, application: Application) -> None:
        self.asked: list[str | None] = []
        self.declines = False
        self._user = user
        session = requests.Session()
        if application.single_page:  # the only Teams client of the directory is one: Entra ID wants an origin of it
            session.headers["Origin"] = "http://localhost"
        self.msal = msal.PublicClientApplication(
            application.client_id,
            authority=f"{local_azure.entra.url}/{HOME_TENANT.tenant_id}",
            instance_discovery=False,
            client_capabilities=["CP1"],
            http_client=session,
        )
        self.msal_session = session

    def __call__(self, scopes: list[str], claims: str | None) -> dict[str, Any]:
        """Sign in. The claims of a challenge are kept in `asked`."""
        self.asked.append(claims)
        if self.declines:
            return {"error": "access_denied"}
        flow = self.msal.initiate_device_flow(scopes, claims_challenge=claims)
        form = {"user_code": flow["user_code"], "user": self._user}
        self.msal_session.post(flow["verification_uri"], data=form, timeout=10).raise_for_status()
        answer: dict[str, Any] = self.msal.acquire_token_by_device_flow(flow, claims_challenge=claims)
        return answer


@pytest.fixture
def signed_in() -> Iterator[list[SignedIn]]:
    """Everybody whom `client` let sign in."""
    everybody: list[SignedIn] = []
    yield everybody
    for each in everybody:
        each.msal_session.close()


@pytest.fixture
def client(moved: MovedTime, local_azure: LocalAzure, signed_in: list[SignedIn]) -> Client:
    """Makes a client of the service at an address, for a user who signs in when asked; its jitter is the mean."""

    async def make(address: str, user: str = "alex", *, teams: bool = False, draw: float = 0.5) -> AcsTokens:
        # MSAL asks for the tenant's addresses when it is made.
        user_of_msal = await asyncio.to_thread(SignedIn, local_azure, user, TEAMS if teams else COMMAND_LINE)
        signed_in.append(user_of_msal)
        return AcsTokens(
            address,
            user_of_msal.msal,
            SCOPE,
            teams=teams,
            sign_in=user_of_msal,
            sleep=moved.sleep,
            draw=lambda: draw,
        )

    return make
