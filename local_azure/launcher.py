"""`acs-auth-local run`: the stand-ins, the service and one round trip, until Ctrl-C."""

import asyncio
import contextlib
import errno
import shlex
import signal
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import jwt

from local_azure.acs import DeletedIdentityAnswer
from local_azure.entra.directory import USERS
from local_azure.environment import LOOPBACK, LocalAzure, Ports
from local_azure.round_trip import Echo, RoundTrip, RoundTripFailed
from local_azure.service_process import ServiceEnded, ServiceNotReady, ServiceProcess

WARNING = "For development only: everything here binds to loopback, uses well-known credentials and trusts everybody."
STOPPING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class CannotRun(Exception):
    """Something stands in the way; the message says what, in one sentence. `status` is the exit status."""

    def __init__(self, message: str, status: int = 1) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Options:
    """What to run.

    `state_directory` is absolute; `command` is how the user started this program. Without `secrets` the service has the
    managed identity alone. `deleted_identity` is what ACS answers for a deleted identity.
    """

    state_directory: Path
    storage: str
    port: int
    ports: Ports
    with_service: bool
    command: tuple[str, ...]
    secrets: bool = True
    deleted_identity: DeletedIdentityAnswer | None = None


async def run(options: Options, echo: Echo) -> None:
    """Run until one of `STOPPING_SIGNALS`, which is a normal end. Raises `CannotRun`."""
    echo(WARNING)
    with contextlib.suppress(asyncio.CancelledError), _cancelled_by_signals():
        async with _open(options) as azure:
            _describe(options, azure, echo)
            if not options.with_service:
                echo("Press Ctrl-C to stop.")
                await asyncio.Event().wait()
            try:
                await _run_service(options, azure, echo)
            except ServiceEnded as ended:
                raise CannotRun(str(ended), ended.status) from ended
            except (ServiceNotReady, RoundTripFailed) as failed:
                raise CannotRun(str(failed)) from failed
            except (TimeoutError, aiohttp.ClientError) as failed:
                raise CannotRun(f"The round trip failed: {failed or type(failed).__name__}.") from failed
    echo("\nStopped.")


async def _run_service(options: Options, azure: LocalAzure, echo: Echo) -> None:
    settings = {
        **azure.service_environment(secrets=options.secrets),
        "ENVIRONMENT": "development",
        "STORAGE_BACKEND": options.storage,
        "SQLITE_PATH": str(options.state_directory / "mappings.sqlite"),
    }
    async with ServiceProcess(settings, options.port, options.state_directory) as service:
        await service.ready()
        trip = RoundTrip(
            entra_url=_url(options.ports.entra),
            service_url=service.url,
            trust=ssl.create_default_context(cafile=azure.authority.certificate_path),
            verify=azure.acs.verify_token,
            token_header=jwt.get_unverified_header,
        )
        user = next(iter(USERS.values()))
        await trip.make(user, echo)
        _suggest(options, service.url, user.alias, echo)
        await service.end()


def _open(options: Options) -> LocalAzure:
    ports = options.ports
    used = [
        (ports.entra, "--entra-port"),
        (ports.graph, "--graph-port"),
        (ports.acs, "--acs-port"),
        (ports.cosmos, "--cosmos-port"),
    ]
    if options.with_service:
        used.append((options.port, "--port"))
    _require_free(used)
    try:
        return LocalAzure(options.state_directory, options.ports, deleted_identity=options.deleted_identity)
    except OSError as error:
        raise CannotRun(f"The stand-ins can't start in {options.state_directory}: {error.strerror}.") from error


def _require_free(used: list[tuple[int, str]]) -> None:
    with contextlib.ExitStack() as held:
        for port, option in used:
            listening = held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listening.bind((LOOPBACK, port))
                listening.listen(1)  # only a listening socket keeps another one with SO_REUSEADDR away
            except OSError as error:
                reason = "is in use" if error.errno == errno.EADDRINUSE else f"can't be used ({error.strerror})"
                raise CannotRun(f"Port {port} {reason}: free it, or choose another one with {option}.") from error


def _describe(options: Options, azure: LocalAzure, echo: Echo) -> None:
    echo(f"  Entra ID stand-in  {_url(options.ports.entra)}")
    echo(f"  Graph stand-in     {_url(options.ports.graph)}")
    echo(f"  ACS stand-in       {_url(options.ports.acs)}")
    echo(f"  Cosmos DB stand-in {_url(options.ports.cosmos)}")
    if options.with_service:
        echo(f"  Service            http://localhost:{options.port}, mappings in {options.storage}")
    echo(f"  State              {options.state_directory}\n")
    if not options.with_service:
        echo("Settings that point the service here:")
        for name, value in azure.service_environment(secrets=options.secrets).items():
            echo(f"  export {name}={shlex.quote(value)}")


def _suggest(options: Options, service_url: str, user: str, echo: Echo) -> None:
    token = [*options.command, "token", "--user", user]
    if options.ports.entra != Ports().entra:
        token += ["--entra-port", str(options.ports.entra)]
    if options.state_directory != Path(".local-azure").absolute():
        token += ["--state-dir", str(options.state_directory)]
    authorized = 'curl -i -H "Authorization: Bearer $TOKEN"'
    echo("\nYour turn, in another terminal:")
    echo(f"  TOKEN=$({shlex.join(token)})")
    echo(f"  {authorized} -X POST {service_url}/api/user")
    echo(f"  {authorized} {service_url}/api/token")
    echo(f"  {authorized} -X DELETE {service_url}/api/user")
    echo(f"\nIn a browser: {service_url}/docs")
    echo("  At sign-in it warns once, because it does not know this machine's own certificate authority,")
    echo(f"  {options.state_directory / 'ca.pem'}")
    echo("\nPress Ctrl-C to stop.")


@contextlib.contextmanager
def _cancelled_by_signals() -> Iterator[None]:
    """The first signal cancels the current task, which then cleans up; later ones change nothing."""
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    stopping = False

    def stop() -> None:
        nonlocal stopping
        if task is not None and not stopping:
            stopping = True
            task.cancel()

    for number in STOPPING_SIGNALS:
        loop.add_signal_handler(number, stop)
    try:
        yield
    finally:
        for number in STOPPING_SIGNALS:
            loop.remove_signal_handler(number)


def _url(port: int) -> str:
    return f"https://localhost:{port}"
