"""Opens the chosen mapping store with the credentials it needs; closes both."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from quart_app.auth.caller import current_caller
from quart_app.auth.clouds import token_exchange_audience
from quart_app.credentials import managed_identity
from quart_app.settings import CosmosSettings, EntraSettings, Settings, StorageBackend
from quart_app.telemetry import ENTRA, STORE, Telemetry
from storage import cosmos_settings, graph_settings
from storage.factory import GraphStore, SqliteSettings, open_store
from storage.mapping import MappingStore
from storage.retrying import RetryPolicy

if TYPE_CHECKING:
    from azure.core.credentials_async import AsyncTokenCredential

    from quart_app.auth.on_behalf_of import OnBehalfOfSettings


@asynccontextmanager
async def open_mapping_store(
    settings: Settings,
    retry: RetryPolicy,
    credential: "AsyncTokenCredential | None" = None,
    telemetry: Telemetry | None = None,
) -> AsyncIterator[MappingStore]:
    """The store that `STORAGE_BACKEND` names. Only what it needs is imported.

    `credential` is the managed identity, if it is open already and to be shared; else one is opened if it is needed.
    Raises `StoreMisconfigured`, `StoreUnavailable`, `StoreThrottled`, and `OnBehalfOfMisconfigured` for a certificate
    that can't be used.
    """
    telemetry = telemetry or Telemetry()
    measure = telemetry.upstream(STORE)
    async with AsyncExitStack() as stack:
        match settings.storage.backend:
            case StorageBackend.SQLITE:
                store = await open_store(SqliteSettings(settings.sqlite.path), retry, measure)
            case StorageBackend.COSMOS:
                cosmos = await cosmos_store_settings(settings.cosmos, settings.entra, stack, credential)
                store = await open_store(cosmos, retry, measure)
            case StorageBackend.GRAPH:
                store = await open_store(_graph(settings, stack, retry, telemetry), retry, measure)
        stack.push_async_callback(store.aclose)
        yield store


async def cosmos_store_settings(
    cosmos: CosmosSettings,
    entra: EntraSettings,
    stack: AsyncExitStack,
    credential: "AsyncTokenCredential | None" = None,
) -> cosmos_settings.CosmosSettings:
    """What the Cosmos DB store needs: the key, or `credential`; without either `stack` gets one to close."""
    if cosmos.key is not None:
        credential = None
    elif credential is None:
        credential = await stack.enter_async_context(managed_identity(entra))
    return cosmos_settings.CosmosSettings(
        endpoint=str(cosmos.endpoint),
        database=cosmos.database,
        container=cosmos.container,
        key=cosmos.key.get_secret_value() if cosmos.key else None,
        credential=credential,
        create_if_missing=cosmos.create_if_missing,
    )


def _graph(settings: Settings, stack: AsyncExitStack, retry: RetryPolicy, telemetry: Telemetry) -> GraphStore:
    from quart_app.auth import on_behalf_of as obo

    graph = settings.graph
    on_behalf_of = obo.OnBehalfOf(
        on_behalf_of_settings(settings.entra),
        measure=telemetry.upstream(ENTRA),
        looked_up=telemetry.cache("on_behalf_of"),
    )
    stack.push_async_callback(on_behalf_of.aclose)
    tokens = obo.CallerTokens(on_behalf_of, (f"{graph.base_url}/User.ReadWrite",), current_caller, retry)
    return GraphStore(graph_settings.GraphSettings(graph.base_url, graph.extension_name), tokens)


def on_behalf_of_settings(entra: EntraSettings) -> "OnBehalfOfSettings":
    """How the API's own registration proves itself to Entra ID: by the one credential that is configured."""
    from quart_app.auth import on_behalf_of as obo

    credential: obo.ClientSecret | obo.ClientCertificate | obo.FederatedCredential
    if entra.client_secret is not None:
        credential = obo.ClientSecret(entra.client_secret.get_secret_value())
    elif entra.client_certificate_path is not None:
        credential = obo.ClientCertificate(entra.client_certificate_path)
    else:
        audience = token_exchange_audience(entra.authority_host)
        credential = obo.FederatedCredential(
            obo.managed_identity_assertion(str(entra.managed_identity_client_id), audience=audience)
        )
    return obo.OnBehalfOfSettings(entra.authority_host, entra.client_id, credential)
