"""`acs-auth-local run`: the stand-ins, the service and one round trip, until Ctrl-C."""

import asyncio
import contextlib
import os
import signal
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import jwt

from local_azure.acs import DeletedIdentityAnswer
from local_azure.entra.directory import RESOLVE_SCOPE, TEAMS, USERS
from local_azure.environment import LOOPBACK, STAND_IN_NAMES, LocalAzure
from local_azure.port_choice import AskedPorts, ChosenPorts, PortsBusy, choose
from local_azure.round_trip import Echo, RoundTrip, RoundTripFailed
from local_azure.run_record import AlreadyRunning, only_run, require_no_run, write_record
from local_azure.service_process import (
    ServiceEnded,
    ServiceNotReady,
    ServiceProcess,
    environment,
    loopback_without_proxy,
)
from local_azure.shells import SHELLS, Shell

USUAL_ORIGINS = tuple(
    f"http://{host}:{port}" for port in (3000, 4200, 5000, 5173, 8000, 8080) for host in ("localhost", "127.0.0.1")
)
"""Where the development servers of browser clients listen: the service takes exact origins only."""

_SHOWN_LOG_LINES = 20

WARNING = "For development only: everything here listens on {}, uses well-known credentials and trusts everybody."
STOPPING_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK") if hasattr(signal, name)
)
"""Windows has no SIGHUP, and SIGBREAK (Ctrl-Break) is its own."""


class CannotRun(Exception):
    """Something prevents the run; the message says what, in one sentence. `status` is the exit status."""

    def __init__(self, message: str, status: int = 1) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Options:
    """What to run.

    `state_directory` is absolute; `command` is how the user started this program. Browser clients of `origins` may call
    the service, besides those of `USUAL_ORIGINS`. Without `secrets` the service has the managed identity only.
    With `two_doors` users of another issuer call as well. `deleted_identity` is what ACS answers for a deleted
    identity. `host` is the address to listen on: in a container it is not loopback, to which nothing can be published.
    `shell` is whose commands are printed.
    """

    state_directory: Path
    storage: str
    ports: AskedPorts
    with_service: bool
    command: tuple[str, ...]
    origins: tuple[str, ...] = ()
    secrets: bool = True
    two_doors: bool = False
    deleted_identity: DeletedIdentityAnswer | None = None
    host: str = LOOPBACK
    shell: Shell = SHELLS["sh"]


async def run(options: Options, echo: Echo) -> None:
    """Run until one of `STOPPING_SIGNALS`, which is a normal end. Raises `CannotRun`."""
    echo(WARNING.format("loopback" if options.host == LOOPBACK else f"{options.host}, not on loopback"))
    with contextlib.suppress(asyncio.CancelledError), _cancelled_by_signals(), _sentences(options):
        require_no_run(options.state_directory)
        ports = choose(options.ports, with_service=options.with_service)
        with only_run(options.state_directory):
            async with _open(options, ports) as azure:
                write_record(options.state_directory, ports.stand_ins)
                run = _Run(options, ports, azure, echo)
                run.describe()
                if options.with_service:
                    await run.serve()
                else:
                    run.print_settings()
                    await asyncio.Event().wait()
    echo("\nStopped.")


@contextlib.contextmanager
def _sentences(options: Options) -> Iterator[None]:
    """Turn whatever prevents the run into `CannotRun`."""
    try:
        yield
    except (AlreadyRunning, PortsBusy, ServiceNotReady, RoundTripFailed) as failed:
        raise CannotRun(str(failed)) from failed
    except ServiceEnded as ended:
        raise CannotRun(str(ended), ended.status) from ended
    except (TimeoutError, aiohttp.ClientError) as failed:
        raise CannotRun(f"The round trip failed: {failed or type(failed).__name__}.") from failed
    except OSError as error:
        reason = error.strerror or error
        raise CannotRun(f"The stand-ins can't start in {options.state_directory}: {reason}.") from error


def _open(options: Options, ports: ChosenPorts) -> LocalAzure:
    return LocalAzure(
        options.state_directory, ports.stand_ins, host=options.host, deleted_identity=options.deleted_identity
    )


@dataclass(frozen=True, slots=True)
class _Run:
    """One run whose stand-ins are open."""

    options: Options
    ports: ChosenPorts
    azure: LocalAzure
    echo: Echo

    @property
    def log(self) -> Path:
        """Where the service's log lines go."""
        return self.options.state_directory / "service.log"

    def describe(self) -> None:
        """Say what runs where."""
        for name, told in STAND_IN_NAMES.items():
            self.echo(f"  {told + ' stand-in':<19}{_url(getattr(self.ports.stand_ins, name))}")
        if self.options.two_doors:
            self.echo(f"  Another issuer     {self.azure.entra.oidc_issuer.issuer}")
        if self.options.with_service:
            self.echo(f"  Service            http://localhost:{self.ports.service}, mappings in {self.options.storage}")
            self.echo(f"  Service log        {self.log}")
        self.echo(f"  State              {self.options.state_directory}\n")
        if self.ports.note is not None:
            self.echo(f"{self.ports.note}\n")

    def print_settings(self) -> None:
        """Print all that a service needs to use these stand-ins."""
        self.echo("Settings that point a service here:")
        for name, value in {**self.settings(), **loopback_without_proxy({})}.items():
            self.echo(f"  {self.options.shell.setting(name, value)}")
        self.echo("Press Ctrl-C to stop.")

    def settings(self) -> dict[str, str]:
        """All that the service needs."""
        origins = dict.fromkeys((*USUAL_ORIGINS, *self.options.origins))
        return {
            **(self.azure.entra.oidc_issuer.service_environment() if self.options.two_doors else {}),
            **self.azure.service_environment(secrets=self.options.secrets),
            "ENVIRONMENT": "development",
            "STORAGE_BACKEND": self.options.storage,
            "SQLITE_PATH": str(self.options.state_directory / "mappings.sqlite"),
            "CORS_ALLOWED_ORIGINS": ",".join(origins),
            "DOCS_CLIENT_ID": TEAMS.client_id,  # with it the console and /docs get Teams tokens, too
            "HOST": self.options.host,
            "PORT": str(self.ports.service),
            **({"ENTRA_RESOLVE_SCOPE": RESOLVE_SCOPE} if self.options.storage != "graph" else {}),
        }

    async def serve(self) -> None:
        """Run the service, make one round trip, and wait. Raises if the service ends on its own."""
        variables = environment(os.environ, self.settings())
        try:
            async with ServiceProcess(variables, self.options.state_directory, self.log) as service:
                await service.ready()
                await self._round_trip(f"http://localhost:{self.ports.service}")
                await service.end()
        except ServiceEnded:
            self.echo("\nThe last lines of its log:")
            for line in _last_lines(self.log):
                self.echo(f"  {line}")
            raise

    async def _round_trip(self, service_url: str) -> None:
        trip = RoundTrip(
            entra_url=_url(self.ports.stand_ins.entra),
            service_url=service_url,
            trust=ssl.create_default_context(cafile=self.azure.authority.certificate_path),
            verify=self.azure.acs.verify_token,
            token_header=jwt.get_unverified_header,
        )
        present = [user for user in USERS.values() if not self.azure.user_states.is_deleted(user)]
        user = (present or list(USERS.values()))[0]
        await trip.make(user, self.echo)
        self._suggest(service_url, user.alias)

    def _suggest(self, service_url: str, user: str) -> None:
        directory = self.options.state_directory
        shell = self.options.shell
        token = [*self.options.command, "token", "--user", user]
        if directory != Path(".local-azure").absolute():
            token += ["--state-dir", str(directory)]
        authorized = f'{shell.curl} -i -H "Authorization: Bearer $TOKEN"'
        self.echo("\nYour turn, in another terminal:")
        self.echo(f"  {shell.output_of('TOKEN', token)}")
        self.echo(f"  {authorized} -X POST {service_url}/api/user")
        self.echo(f"  {authorized} {service_url}/api/token")
        self.echo(f"  {authorized} -X DELETE {service_url}/api/user")
        if self.options.two_doors:
            self.echo("\nThe same user at the other issuer is another user:")
            self.echo(f"  {shell.output_of('TOKEN', [*token, '--door', 'oidc'])}")
        self.echo(f"\nIn a browser: {service_url}")
        self.echo("  At sign-in it warns once, because it does not know this machine's own certificate authority,")
        self.echo(f"  {directory / 'ca.pem'}")
        self.echo("\nPress Ctrl-C to stop.")


def _last_lines(log: Path) -> list[str]:
    try:
        return log.read_text(encoding="utf-8", errors="replace").splitlines()[-_SHOWN_LOG_LINES:]
    except OSError:
        return []


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

    # Not by `loop.add_signal_handler`, which Windows does not have.
    previous = {
        number: signal.signal(number, lambda *_: loop.call_soon_threadsafe(stop)) for number in STOPPING_SIGNALS
    }
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _url(port: int) -> str:
    return f"https://localhost:{port}"
