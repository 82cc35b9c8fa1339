"""Opens the chosen mapping store with the credentials it needs; closes both."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from quart_app.auth.caller import current_caller
from quart_app.settings import CosmosSettings, EntraSettings, Settings, StorageBackend
from storage import cosmos_settings, graph_settings
from storage.factory import GraphStore, SqliteSettings, open_store
from storage.mapping import MappingStore
from storage.retrying import RetryPolicy


@asynccontextmanager
async def open_mapping_store(settings: Settings, retry: RetryPolicy) -> AsyncIterator[MappingStore]:
    """The store that `STORAGE_BACKEND` names. Only what it needs is imported.

    Raises `StoreMisconfigured`, `StoreUnavailable`, `StoreThrottled`, and `OnBehalfOfMisconfigured` for a certificate
    that can't be used.
    """
    async with AsyncExitStack() as stack:
        match settings.storage.backend:
            case StorageBackend.SQLITE:
                store = await open_store(SqliteSettings(settings.sqlite.path), retry)
            case StorageBackend.COSMOS:
                store = await open_store(await _cosmos(settings.cosmos, settings.entra, stack), retry)
            case StorageBackend.GRAPH:
                store = await open_store(_graph(settings, stack, retry), retry)
        stack.push_async_callback(store.aclose)
        yield store


async def _cosmos(
    cosmos: CosmosSettings, entra: EntraSettings, stack: AsyncExitStack
) -> cosmos_settings.CosmosSettings:
    credential = None
    if cosmos.key is None:
        from azure.identity.aio import ManagedIdentityCredential

        credential = await stack.enter_async_context(
            ManagedIdentityCredential(client_id=entra.managed_identity_client_id)
        )
    return cosmos_settings.CosmosSettings(
        endpoint=str(cosmos.endpoint),
        database=cosmos.database,
        container=cosmos.container,
        key=cosmos.key.get_secret_value() if cosmos.key else None,
        credential=credential,
        create_if_missing=cosmos.create_if_missing,
    )


def _graph(settings: Settings, stack: AsyncExitStack, retry: RetryPolicy) -> GraphStore:
    from quart_app.auth import on_behalf_of as obo

    entra, graph = settings.entra, settings.graph
    credential: obo.ClientSecret | obo.ClientCertificate | obo.FederatedCredential
    if entra.client_secret is not None:
        credential = obo.ClientSecret(entra.client_secret.get_secret_value())
    elif entra.client_certificate_path is not None:
        credential = obo.ClientCertificate(entra.client_certificate_path)
    else:
        credential = obo.FederatedCredential(obo.managed_identity_assertion(str(entra.managed_identity_client_id)))
    on_behalf_of = obo.OnBehalfOf(obo.OnBehalfOfSettings(entra.authority_host, entra.client_id, credential))
    stack.push_async_callback(on_behalf_of.aclose)
    tokens = obo.CallerTokens(on_behalf_of, (f"{graph.base_url}/User.ReadWrite",), current_caller, retry)
    return GraphStore(graph_settings.GraphSettings(graph.base_url, graph.extension_name), tokens)
