"""All stand-ins together: start them on loopback, tell where they are, close them."""

import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from aiohttp import web

from local_azure.acs import Acs, DeletedIdentityAnswer
from local_azure.certificates import LocalAuthority
from local_azure.clock import Clock
from local_azure.console_control import ConsoleControl, console_faults
from local_azure.cosmos import Cosmos
from local_azure.entra import Entra
from local_azure.entra.directory import APPLICATIONS
from local_azure.faults import Faults
from local_azure.graph import DirectoryUser, Graph, ServicePrincipal
from local_azure.keys import KeyFactory, new_rsa_key
from local_azure.state import State
from local_azure.user_states import UserStates

LOOPBACK = "127.0.0.1"

STAND_IN_NAMES = {"entra": "Entra ID", "graph": "Graph", "acs": "ACS", "cosmos": "Cosmos DB"}
"""What users read for each of `Ports`."""


class StandIn(Protocol):
    """One service: an aiohttp application whose route names are the operations that `faults` knows."""

    faults: Faults

    def application(self) -> web.Application:
        """A fresh application; its first middleware is `faults.middleware`."""
        ...


@dataclass(frozen=True, slots=True)
class Ports:
    """The port of each stand-in on loopback; 0 lets the system choose."""

    entra: int = 5001
    graph: int = 5002
    acs: int = 5003
    cosmos: int = 5004


def _new_runner(application: web.Application) -> web.BaseRunner:
    return web.AppRunner(application, access_log=None, shutdown_timeout=0.5)


class LocalAzure:
    """The running stand-ins. Use as an async context manager.

    They listen on the address `host`, and call themselves localhost anyway. `user_states` deletes and marks users.
    `deleted_identity` is what ACS answers for a deleted identity. `new_runner`
    decides how the application of each, in the order of `Ports`, is served. Raises `OSError` when a port is taken.
    """

    def __init__(
        self,
        directory: Path,
        ports: Ports | None = None,
        *,
        clock: Clock = time.time,
        new_key: KeyFactory = new_rsa_key,
        deleted_identity: DeletedIdentityAnswer | None = None,
        host: str = LOOPBACK,
        new_runner: Callable[[web.Application], web.BaseRunner] = _new_runner,
    ) -> None:
        ports = ports or Ports()
        self._host = host
        self._new_runner = new_runner
        self.authority = LocalAuthority(directory)
        self._sockets: list[socket.socket] = []
        try:
            entra, graph, acs, cosmos = (
                self._listen(port) for port in (ports.entra, ports.graph, ports.acs, ports.cosmos)
            )
        except OSError:
            for opened in self._sockets:
                opened.close()
            raise
        self.state = State(directory)
        self.user_states = UserStates(self.state, clock)
        self.entra = Entra(self.state, _url(entra), clock=clock, new_key=new_key)
        verify = self.entra.verify
        self.graph = Graph(
            self.state,
            _url(graph),
            clock=clock,
            verify=verify,
            users=self._directory,
            service_principals=_service_principals,
        )
        self.acs = Acs(
            self.state, _url(acs), clock=clock, new_key=new_key, verify=verify, deleted_identity=deleted_identity
        )
        self.cosmos = Cosmos(self.state, _url(cosmos), clock=clock, verify=verify)
        self._stand_ins: list[tuple[StandIn, socket.socket]] = [
            (self.entra, entra),
            (self.graph, graph),
            (self.acs, acs),
            (self.cosmos, cosmos),
        ]
        self._runners: list[web.BaseRunner] = []

    async def __aenter__(self) -> Self:
        context = self.authority.server_context()
        faults = console_faults(entra=self.entra.faults, acs=self.acs.faults, cosmos=self.cosmos.faults)
        for stand_in, listening in self._stand_ins:
            application = stand_in.application()
            if stand_in is self.entra:
                ConsoleControl(self.entra, faults).add_routes(application)
            runner = self._new_runner(application)
            await runner.setup()
            self._runners.append(runner)
            await web.SockSite(runner, listening, ssl_context=context).start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for stand_in, _ in self._stand_ins:
            stand_in.faults.release()
        for runner in self._runners:
            await runner.cleanup()
        for listening in self._sockets:
            listening.close()
        self.state.close()

    def service_environment(self, *, secrets: bool = True) -> dict[str, str]:
        """The settings that point the service at these stand-ins, and the trust in their certificates.

        Without `secrets` the managed identity takes the place of every secret.
        """
        authority = str(self.authority.certificate_path)
        settings = {
            "SSL_CERT_FILE": authority,
            "REQUESTS_CA_BUNDLE": authority,
            **self.entra.service_environment(),
            **self.graph.service_environment(),
            **self.acs.service_environment(),
            **self.cosmos.service_environment(),
        }
        if secrets:
            return settings
        endpoint = settings["ACS_CONNECTION_STRING"].partition(";")[0].removeprefix("endpoint=")
        kept = {name: value for name, value in settings.items() if name not in _SECRETS}
        return {**kept, "ACS_ENDPOINT": endpoint, **self.entra.managed_identity_environment()}

    def _directory(self) -> list[DirectoryUser]:
        return [DirectoryUser(user.tenant_id, user.object_id, user.name) for user in self.entra.users.values()]

    def _listen(self, port: int) -> socket.socket:
        listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._sockets.append(listening)
        if sys.platform != "win32":  # there it would let two programs listen on one port
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((self._host, port))
        return listening


_SECRETS = ("ACS_CONNECTION_STRING", "COSMOS_KEY", "ENTRA_CLIENT_SECRET")


def _service_principals() -> list[ServicePrincipal]:
    return [ServicePrincipal(app.object_id, app.client_id, app.name) for app in APPLICATIONS.values()]


def _url(listening: socket.socket) -> str:
    return f"https://localhost:{listening.getsockname()[1]}"
