"""The Graph stand-in alone, over TLS, with a directory of its own and tokens that tests mint as they need them."""

import itertools
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

from local_azure.certificates import LocalAuthority
from local_azure.clock import Clock
from local_azure.graph import DirectoryUser, Graph, ServicePrincipal
from local_azure.state import State
from storage.seal import SealKey

SEAL_KEYS = (SealKey(b"the key that seals mappings in tests"), SealKey(b"an older key, which only verifies"))

Verify = Callable[[str], dict[str, Any] | None]

TENANT = "5f0b9c5e-8a3f-4f6e-9f0f-0c6f3f1d2a10"
APP = "7d3f7c1a-2f6d-4f0a-8f39-1f9f0a0b0c0d"
AVERY = DirectoryUser(TENANT, "00000000-0000-4000-8000-00000000000a", "Avery")
BLAKE = DirectoryUser(TENANT, "00000000-0000-4000-8000-00000000000b", "Blake")


class RunningGraph:
    """A running stand-in, its URL, its users, and tokens for it."""

    def __init__(self, state: State, url: str, clock: Clock, verify: Verify | None) -> None:
        self.url = url
        self.users: list[DirectoryUser] = [AVERY, BLAKE]
        self.service_principals: list[ServicePrincipal] = []
        self._claims: dict[str, dict[str, Any]] = {}
        self._numbers = itertools.count()
        self.graph = Graph(
            state,
            url,
            clock=clock,
            verify=verify or self._claims.get,
            users=lambda: self.users,
            service_principals=lambda: self.service_principals,
        )

    def token(self, **claims: Any) -> str:
        """A token with these claims, by default for Graph and issued to the service's app."""
        token = f"token-{next(self._numbers)}"
        self._claims[token] = {"aud": "https://graph.microsoft.com", "tid": TENANT, "appid": APP, **claims}
        return token

    def user_token(self, user: DirectoryUser = AVERY, scopes: str = "User.ReadWrite", **claims: Any) -> str:
        """A delegated token of this user."""
        return self.token(oid=user.object_id, scp=scopes, **{"tid": user.tenant_id, **claims})

    def app_token(self, *roles: str, **claims: Any) -> str:
        """An app-only token with these roles."""
        return self.token(roles=list(roles), **claims)


@asynccontextmanager
async def running_graph(
    directory: Path, clock: Clock = time.time, verify: Verify | None = None
) -> AsyncIterator[RunningGraph]:
    """Start a stand-in whose state and certificates are in `directory`; `verify` takes other tokens than its own."""
    state = State(directory)
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listening.bind(("127.0.0.1", 0))
    running = RunningGraph(state, f"https://localhost:{listening.getsockname()[1]}", clock, verify)
    runner = web.AppRunner(running.graph.application(), access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    try:
        context = LocalAuthority(directory).server_context()
        await web.SockSite(runner, listening, ssl_context=context).start()
        yield running
    finally:
        running.graph.faults.release()
        await runner.cleanup()
        listening.close()
        state.close()
