"""Opens any of the stores for an operator: whichever is configured, and Microsoft Graph by application permission."""

from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from quart_app.auth.on_behalf_of_errors import OnBehalfOfThrottled, OnBehalfOfUnavailable
from quart_app.mapping_store import cosmos_store_settings, on_behalf_of_settings
from quart_app.settings import Settings, StorageBackend
from storage.factory import GraphStore, SqliteSettings, StoreSettings, open_store
from storage.graph_settings import GraphSettings
from storage.mapping import MappingStore
from storage.retrying import RetryPolicy

if TYPE_CHECKING:
    from quart_app.auth.on_behalf_of import OnBehalfOf

PATIENT = RetryPolicy(attempts=12, initial=0.2, maximum=20.0)
"""Nobody waits for an answer: a throttled store is given all the time it asks for."""

ENTRA_CREDENTIALS = ("client_secret", "client_certificate_path", "managed_identity_client_id")


@dataclass(frozen=True, slots=True)
class ApplicationTokens:
    """App-only tokens for Microsoft Graph (`GraphApplicationTokens`). Raises what `OnBehalfOf` raises."""

    on_behalf_of: "OnBehalfOf"
    tenants: tuple[str, ...]
    scope: str
    retry: RetryPolicy

    async def access_token(self, tenant_id: str) -> str:
        """See `GraphApplicationTokens.access_token`."""
        return await self.retry.call(
            lambda: self.on_behalf_of.application_token(tenant_id, self.scope),
            lambda error: isinstance(error, OnBehalfOfThrottled | OnBehalfOfUnavailable),
        )


def missing_settings(settings: Settings, backend: StorageBackend) -> Iterable[str]:
    """What `backend` needs beyond what every start checks: one sentence for each thing that is missing."""
    if backend is StorageBackend.COSMOS and not settings.cosmos.endpoint:
        yield "COSMOS_ENDPOINT is not set, such as https://NAME.documents.azure.com."
    if backend is StorageBackend.GRAPH and sum(bool(getattr(settings.entra, name)) for name in ENTRA_CREDENTIALS) != 1:
        names = ", ".join(f"ENTRA_{name.upper()}" for name in ENTRA_CREDENTIALS)
        yield f"Microsoft Graph needs exactly one of {names}."


@asynccontextmanager
async def open_operator_store(
    settings: Settings, backend: StorageBackend, retry: RetryPolicy = PATIENT
) -> AsyncIterator[MappingStore]:
    """The store `backend`, with its own group of settings.

    Microsoft Graph needs the application permission User.ReadWrite.All (User.Read.All to read only). Raises
    `StoreError`, also by way of the store `OnBehalfOfError`.
    """
    async with AsyncExitStack() as stack:
        store = await open_store(await _store_settings(settings, backend, stack, retry), retry)
        stack.push_async_callback(store.aclose)
        yield store


async def _store_settings(
    settings: Settings, backend: StorageBackend, stack: AsyncExitStack, retry: RetryPolicy
) -> StoreSettings:
    match backend:
        case StorageBackend.SQLITE:
            return SqliteSettings(settings.sqlite.path)
        case StorageBackend.COSMOS:
            return await cosmos_store_settings(settings.cosmos, settings.entra, stack)
        case StorageBackend.GRAPH:
            return _graph(settings, stack, retry)


def _graph(settings: Settings, stack: AsyncExitStack, retry: RetryPolicy) -> GraphStore:
    from quart_app.auth.on_behalf_of import OnBehalfOf

    graph = settings.graph
    on_behalf_of = OnBehalfOf(on_behalf_of_settings(settings.entra))
    stack.push_async_callback(on_behalf_of.aclose)
    tokens = ApplicationTokens(on_behalf_of, settings.entra.tenants, f"{graph.base_url}/.default", retry)
    return GraphStore(GraphSettings(graph.base_url, graph.extension_name), None, tokens)
