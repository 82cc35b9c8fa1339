"""From settings to the open mapping store, for the service, the operators' commands and `doctor` alike.

A new store is one entry in `_BACKENDS`, beside its module in `storage` and its settings.
"""

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import Enum
from typing import TYPE_CHECKING

from quart_app.auth.caller import current_caller
from quart_app.clouds import ENTRA
from quart_app.credentials import MANAGED_IDENTITY, AzureCredential, managed_identity, store_asks_identity
from quart_app.settings import CLIENT_CREDENTIALS, NO_SEAL_KEYS, ClientCertificate, Settings, StorageBackend
from quart_app.telemetry.instruments import Telemetry
from storage.guarded import GuardedStore
from storage.mapping import STORE, MappingStore, StoreMisconfigured
from upstream.retrying import RetryPolicy

if TYPE_CHECKING:
    from quart_app.auth.on_behalf_of.tokens import ApplicationTokens, OnBehalfOf
    from storage.graph import GraphMappingStore
    from storage.seal import SealKey, Seals

logger = logging.getLogger(__name__)


class ActingAs(Enum):
    """For whom a store is opened, which matters to Microsoft Graph only.

    CALLER       each call acts as the user who is being served, by a token on behalf of that user
    APPLICATION  each call acts as the service itself, for operators: it needs the application permission
                 User.ReadWrite.All (User.Read.All to read only)
    """

    CALLER = "caller"
    APPLICATION = "application"


@asynccontextmanager
async def open_mapping_store(
    settings: Settings,
    retry: RetryPolicy,
    *,
    backend: StorageBackend | None = None,
    acting_as: ActingAs = ActingAs.CALLER,
    credential: AzureCredential | None = None,
    telemetry: Telemetry | None = None,
) -> AsyncIterator[GuardedStore]:
    """The store `backend`, by default the one that `STORAGE_BACKEND` names, closed at the end.

    Only what it needs is imported. Opening logs where a set-up works less well than it could. `credential` is the
    managed identity, if it is already open and to be shared; otherwise one is opened if it is needed.
    Raises `StoreMisconfigured`, `StoreUnavailable`, `StoreThrottled`, and `ManagedIdentityError` where the store is
    reached with it.
    """
    async with open_with_warnings(
        settings, retry, backend=backend, acting_as=acting_as, credential=credential, telemetry=telemetry
    ) as (store, warnings):
        for warning in warnings:
            logger.warning("%s", warning)
        yield store


@asynccontextmanager
async def open_with_warnings(
    settings: Settings,
    retry: RetryPolicy,
    *,
    backend: StorageBackend | None = None,
    acting_as: ActingAs = ActingAs.CALLER,
    credential: AzureCredential | None = None,
    telemetry: Telemetry | None = None,
) -> AsyncIterator[tuple[GuardedStore, tuple[str, ...]]]:
    """Like `open_mapping_store`, but gives the warnings instead of logging them: each is a fault and its remedy."""
    backend = backend or settings.storage.backend
    telemetry = telemetry or Telemetry()
    async with AsyncExitStack() as stack:
        opening = _Opening(settings, stack, retry, acting_as, credential, telemetry)
        opened, warnings = await _BACKENDS[backend](opening)
        store = GuardedStore(opened, retry, telemetry.upstream(STORE, _DATABASES.get(backend)))
        stack.push_async_callback(store.aclose)
        yield store, warnings


def missing_settings(settings: Settings, backend: StorageBackend, *, may_be_new: bool = False) -> Iterable[str]:
    """What `backend` needs beyond what every start checks: one sentence for each thing that is missing.

    A command that reads a store needs one that is there; only the service and a target of a migration `may_be_new`.
    """
    if backend is StorageBackend.SQLITE and not may_be_new and not settings.sqlite.path.exists():
        yield f"SQLITE_PATH names no file: {settings.sqlite.path.absolute()} does not exist."
    if backend is StorageBackend.COSMOS and not settings.cosmos.endpoint:
        yield "COSMOS_ENDPOINT is not set, such as https://NAME.documents.azure.com."
    if backend is StorageBackend.GRAPH and len(settings.entra.client_credentials) != 1:
        yield f"Microsoft Graph needs exactly one of {', '.join(CLIENT_CREDENTIALS)}."
    if backend is StorageBackend.GRAPH and not settings.graph.seal_keys:
        yield f"Microsoft Graph needs {NO_SEAL_KEYS}"


@dataclass(frozen=True, slots=True)
class _Opening:
    """What a back end may need while it is opened. `stack` closes what is opened on the way."""

    settings: Settings
    stack: AsyncExitStack
    retry: RetryPolicy
    acting_as: ActingAs
    credential: AzureCredential | None
    telemetry: Telemetry

    async def identity(self) -> AzureCredential:
        """The managed identity: the one that is open already, or one of its own."""
        if self.credential is not None:
            return self.credential
        measure = self.telemetry.upstream(MANAGED_IDENTITY)
        return await self.stack.enter_async_context(managed_identity(self.settings.entra, self.retry, measure))


_Opened = tuple[MappingStore, tuple[str, ...]]


async def _sqlite(opening: _Opening) -> _Opened:
    from storage.sqlite import open_sqlite_store

    store = await open_sqlite_store(opening.settings.sqlite.path)
    return store, store.warnings


async def _cosmos(opening: _Opening) -> _Opened:
    from storage.cosmos import open_cosmos_store
    from storage.cosmos_options import CosmosOptions

    cosmos = opening.settings.cosmos
    credential = await opening.identity() if store_asks_identity(opening.settings, StorageBackend.COSMOS) else None
    store = await open_cosmos_store(
        CosmosOptions(
            endpoint=str(cosmos.endpoint),
            database=cosmos.database,
            container=cosmos.container,
            key=cosmos.key.get_secret_value() if cosmos.key else None,
            credential=credential,
            preferred_regions=cosmos.preferred_regions,
            create_if_missing=cosmos.create_if_missing,
        )
    )
    return store, store.warnings


def accepts_unsealed(settings: Settings) -> bool:
    """Whether the service takes mappings without a seal today (UTC)."""
    until = settings.graph.accept_unsealed_until
    graph = settings.storage.backend is StorageBackend.GRAPH
    return graph and until is not None and datetime.now(UTC).date() <= until


@asynccontextmanager
async def open_graph_extensions(
    settings: Settings, retry: RetryPolicy, credential: AzureCredential | None = None
) -> "AsyncIterator[GraphMappingStore]":
    """What Microsoft Graph stores, reached as the application, for whoever seals it.

    Arguments and errors are those of `open_mapping_store`. `retry` is for the tokens; the store itself repeats nothing.
    """
    async with AsyncExitStack() as stack:
        opening = _Opening(settings, stack, retry, ActingAs.APPLICATION, credential, Telemetry())
        store, _ = await _graph(opening)
        stack.push_async_callback(store.aclose)
        yield store


@asynccontextmanager
async def open_application_tokens(
    settings: Settings, retry: RetryPolicy, credential: AzureCredential | None = None
) -> "AsyncIterator[ApplicationTokens]":
    """App-only tokens for Microsoft Graph in the configured tenants, whichever store is used."""
    from quart_app.auth.on_behalf_of.tokens import ApplicationTokens

    async with AsyncExitStack() as stack:
        opening = _Opening(settings, stack, retry, ActingAs.APPLICATION, credential, Telemetry())
        on_behalf_of = await _on_behalf_of(opening)
        yield ApplicationTokens(on_behalf_of, settings.entra.tenants, f"{settings.graph.base_url}/.default")


async def _on_behalf_of(opening: _Opening) -> "OnBehalfOf":
    from quart_app.auth.on_behalf_of.credentials import client_credential
    from quart_app.auth.on_behalf_of.tokens import OnBehalfOf, OnBehalfOfOptions

    entra, telemetry = opening.settings.entra, opening.telemetry
    identity = await opening.identity() if store_asks_identity(opening.settings, StorageBackend.GRAPH) else None
    on_behalf_of = OnBehalfOf(
        OnBehalfOfOptions(entra.authority_host, entra.client_id, client_credential(entra, identity)),
        opening.retry,
        measure=telemetry.upstream(ENTRA),
        on_lookup=telemetry.cache("on_behalf_of"),
    )
    opening.stack.push_async_callback(on_behalf_of.aclose)
    return on_behalf_of


def graph_seals(settings: Settings) -> "Seals":
    """What seals and verifies the mappings in Microsoft Graph."""
    from storage.seal import Seals

    return Seals(_seal_keys(settings), settings.graph.extension_name)


def _seal_keys(settings: Settings) -> "tuple[SealKey, ...]":
    from storage.seal import parse_seal_keys

    keys = settings.graph.seal_keys
    if keys is None:
        raise StoreMisconfigured(f"Microsoft Graph needs {NO_SEAL_KEYS}")
    return parse_seal_keys(keys.get_secret_value())


def _unsealed_warnings(settings: Settings) -> tuple[str, ...]:
    until = settings.graph.accept_unsealed_until
    if until is None:
        return ()
    remedy = "Run acs-auth seal, then remove the setting GRAPH_ACCEPT_UNSEALED_UNTIL."
    if not accepts_unsealed(settings):
        return (f"GRAPH_ACCEPT_UNSEALED_UNTIL ended on {until}: mappings without a seal are refused. {remedy}",)
    return (f"Until {until} mappings without a seal are accepted, which any user can point at anybody. {remedy}",)


async def _graph(opening: _Opening) -> "tuple[GraphMappingStore, tuple[str, ...]]":
    from quart_app.auth.on_behalf_of.tokens import ApplicationTokens, CallerTokens
    from storage.graph import open_graph_store
    from storage.graph_options import GraphOptions

    settings = opening.settings
    entra, graph = opening.settings.entra, opening.settings.graph
    on_behalf_of = await _on_behalf_of(opening)
    options = GraphOptions(_seal_keys(settings), graph.base_url, graph.extension_name)
    if opening.acting_as is ActingAs.CALLER:
        # Operators' commands never take a mapping without a seal.
        options = replace(options, accept_unsealed_until=graph.accept_unsealed_until)
        tokens = CallerTokens(on_behalf_of, (f"{graph.base_url}/User.ReadWrite",), current_caller)
        warnings = (*_of_certificate(entra.client_certificate), *_unsealed_warnings(settings))
        return await open_graph_store(options, tokens), warnings
    application = ApplicationTokens(on_behalf_of, entra.tenants, f"{graph.base_url}/.default")
    return await open_graph_store(options, None, application), _unsealed_warnings(settings)


def _of_certificate(certificate: ClientCertificate | None) -> Iterable[str]:
    if certificate and certificate.expires_soon(datetime.now(UTC)):
        yield (
            f"The client certificate expires on {certificate.ends:%Y-%m-%d}. Make a new one, upload its public part "
            "under 'Certificates & secrets' of the API's registration, and name it in ENTRA_CLIENT_CERTIFICATE_PATH."
        )


_DATABASES = {StorageBackend.SQLITE: "sqlite", StorageBackend.COSMOS: "azure.cosmosdb"}
"""`db.system.name` of those that are databases: https://opentelemetry.io/docs/specs/semconv/registry/attributes/db/"""

_BACKENDS: Mapping[StorageBackend, Callable[[_Opening], Awaitable[_Opened]]] = {
    StorageBackend.SQLITE: _sqlite,
    StorageBackend.COSMOS: _cosmos,
    StorageBackend.GRAPH: _graph,
}
