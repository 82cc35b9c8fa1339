"""What happens while requests are served, told to whoever operates the service; by itself it only counts for the log.

`quart_app.telemetry_export` makes traces and metrics of the same calls. Nothing of OpenTelemetry is imported here.
"""

import os
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import aiohttp

from quart_app.auth.on_behalf_of_errors import (
    AssertionRefused,
    ClaimsChallengeRequired,
    ConsentRequired,
    OnBehalfOfThrottled,
    OnBehalfOfUnavailable,
)
from quart_app.auth.signing_keys import SigningKeysUnavailable
from quart_app.communication import (
    AcsToken,
    Communication,
    CommunicationError,
    CommunicationThrottled,
    CommunicationUnavailable,
    IdentityGone,
    IdentityNotOwned,
    TeamsTokenRefused,
)
from quart_app.settings import TelemetrySettings
from storage.mapping import (
    ExtensionLimitReached,
    MappingChanged,
    MappingExists,
    StoreAccessDenied,
    StoreError,
    StoreThrottled,
    StoreUnavailable,
)
from storage.measured import Measure

STORE, ACS, ENTRA = "store", "acs", "entra"
"""What the service calls: the mapping store, Azure Communication Services, Microsoft Entra ID."""


@dataclass(slots=True)
class ServedRequest:
    """One request, as far as it is known while it is being served. Nothing in it tells who called.

    method, route   `route` is the template; `None` when no route fits
    user            a keyed hash of the caller, when known
    error           the stable name of the error it was answered with
    trace_id        of its trace, if it is recorded
    """

    method: str
    request_id: str = ""
    route: str | None = None
    status: int | None = None
    user: str | None = None
    error: str | None = None
    trace_id: str | None = None
    upstream_calls: int = 0
    retries: int = 0


def current_request() -> ServedRequest | None:
    """The request that is being served, also in tasks that it started; `None` outside of one."""
    return _current.get()


class Telemetry:
    """Counts the upstream calls and retries of each request. Everything else is left to subclasses."""

    @contextmanager
    def serving(self, request: ServedRequest, headers: Iterable[tuple[bytes, bytes]]) -> Iterator[None]:
        """Everything inside is done for this request. `headers` are the request's, their names in lower case."""
        reset = _current.set(request)
        try:
            yield
        finally:
            _current.reset(reset)

    def upstream(self, name: str) -> Measure:
        """How calls of this upstream (`STORE`, `ACS`, `ENTRA`) are measured, by operation."""

        def measure(operation: str) -> AbstractContextManager[None]:
            request = _current.get()
            if request is not None:
                request.upstream_calls += 1
            return self._call(name, operation)

        return measure

    def retried(self, error: Exception, attempt: int, wait: float) -> None:
        """Told by `storage.retrying.RetryPolicy` before each wait."""
        request = _current.get()
        if request is not None:
            request.retries += 1

    def cache(self, name: str) -> Callable[[bool], None]:
        """Gives what is told of each look-up in the named cache: whether it was a hit."""
        return _ignore

    def minted(self) -> None:
        """An ACS identity was made."""

    def deleted(self) -> None:
        """An ACS identity was deleted."""

    def gauge(self, name: str, unit: str, description: str, read: Callable[[], int]) -> None:
        """A number that can be looked at any time, from any thread."""

    def _call(self, upstream: str, operation: str) -> AbstractContextManager[None]:
        return _NOTHING


@asynccontextmanager
async def open_telemetry(
    settings: TelemetrySettings, environment: Mapping[str, str] = os.environ
) -> AsyncIterator[Telemetry]:
    """The telemetry that the settings and OpenTelemetry's own variables in `environment` ask for.

    Without any of them nothing of OpenTelemetry is loaded.
    """
    connection_string = settings.applicationinsights_connection_string
    spans, metrics = (
        environment.get("OTEL_SDK_DISABLED", "").lower() != "true"
        and any(environment.get(f"OTEL_EXPORTER_OTLP_{name}") for name in ("ENDPOINT", f"{signal}_ENDPOINT"))
        for signal in ("TRACES", "METRICS")
    )
    if connection_string is None and not (spans or metrics):
        yield Telemetry()
        return
    from quart_app import telemetry_export

    exporters = []
    if connection_string is not None:
        exporters.append(telemetry_export.azure_monitor(connection_string.get_secret_value()))
    if spans or metrics:
        exporters.append(telemetry_export.otlp(spans=spans, metrics=metrics))
    async with telemetry_export.exporting(*exporters) as telemetry:
        yield telemetry


class MeasuredCommunication:
    """`Communication` whose every call is measured, its retries included; identities made and deleted are counted."""

    def __init__(self, communication: Communication, telemetry: Telemetry) -> None:
        self._communication = communication
        self._telemetry = telemetry
        self._measure = telemetry.upstream(ACS)

    async def create_identity(self) -> str:
        """See `Communication.create_identity`."""
        with self._measure("create_identity"):
            acs_user_id = await self._communication.create_identity()
        self._telemetry.minted()
        return acs_user_id

    async def delete_identity(self, acs_user_id: str) -> None:
        """See `Communication.delete_identity`."""
        with self._measure("delete_identity"):
            await self._communication.delete_identity(acs_user_id)
        self._telemetry.deleted()

    async def issue_token(self, acs_user_id: str) -> AcsToken:
        """See `Communication.issue_token`."""
        with self._measure("issue_token"):
            return await self._communication.issue_token(acs_user_id)

    async def exchange_teams_token(self, teams_token: str, client_id: str, user_object_id: str) -> AcsToken:
        """See `Communication.exchange_teams_token`."""
        with self._measure("exchange_teams_token"):
            return await self._communication.exchange_teams_token(teams_token, client_id, user_object_id)

    async def aclose(self) -> None:
        """See `Communication.aclose`."""
        await self._communication.aclose()


def outcome_of(error: BaseException) -> str:
    """How a call that raised `error` ended.

    throttled, unavailable   the upstream was too busy, or did not answer properly
    refused                  an orderly answer about this user, such as a conflict or a claims challenge
    cancelled                the service itself gave up, for example because its client went away
    error                    anything else: a refused credential, a wrong set-up, a bug
    """
    for kinds, outcome in _OUTCOMES:
        if isinstance(error, kinds):
            return outcome
    return "error" if isinstance(error, Exception) else "cancelled"


def upstream_of(error: BaseException) -> str:
    """Which upstream an error speaks of."""
    if isinstance(error, StoreError):
        return STORE
    return ACS if isinstance(error, CommunicationError) else ENTRA


_OUTCOMES: tuple[tuple[tuple[type[BaseException], ...], str], ...] = (
    ((StoreThrottled, CommunicationThrottled, OnBehalfOfThrottled), "throttled"),
    ((StoreUnavailable, CommunicationUnavailable, OnBehalfOfUnavailable, SigningKeysUnavailable), "unavailable"),
    ((TimeoutError, aiohttp.ClientError), "unavailable"),
    ((MappingExists, MappingChanged, ExtensionLimitReached, StoreAccessDenied), "refused"),
    ((IdentityGone, IdentityNotOwned, TeamsTokenRefused), "refused"),
    ((ClaimsChallengeRequired, ConsentRequired, AssertionRefused), "refused"),
)
_current: ContextVar[ServedRequest | None] = ContextVar("served_request", default=None)


def _ignore(_: bool) -> None:
    pass


class _Nothing(AbstractContextManager[None]):
    def __exit__(self, *_: object) -> None:
        pass


_NOTHING = _Nothing()
