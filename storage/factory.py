"""From settings to the store that the service uses, with its deadline and its retries."""

from dataclasses import dataclass
from pathlib import Path

from storage.cosmos_settings import CosmosSettings
from storage.deadline import DeadlineStore
from storage.graph_settings import GraphAccessTokens, GraphApplicationTokens, GraphSettings
from storage.mapping import MappingStore
from storage.measured import Measure, MeasuredStore
from storage.retrying import RetryingStore, RetryPolicy


@dataclass(frozen=True, slots=True)
class SqliteSettings:
    """One SQLite file; its directory must exist."""

    path: Path


@dataclass(frozen=True, slots=True)
class GraphStore:
    """Microsoft Graph, acting as each mapping's own user, or as the application where `access_tokens` is `None`."""

    settings: GraphSettings
    access_tokens: GraphAccessTokens | None
    application_tokens: GraphApplicationTokens | None = None


StoreSettings = SqliteSettings | CosmosSettings | GraphStore


async def open_store(
    settings: StoreSettings, policy: RetryPolicy | None = None, measure: Measure | None = None
) -> MappingStore:
    """Open the chosen back end inside its decorators, in the order metrics(deadline(retry(store))).

    The deadline is outside of the retries because it also ends an attempt that hangs and a wait between attempts. Only
    the chosen back end is imported. Raises `StoreMisconfigured` with the remedy, `StoreUnavailable`, `StoreThrottled`.
    """
    store = DeadlineStore(RetryingStore(await _open_back_end(settings), policy or RetryPolicy()))
    return store if measure is None else MeasuredStore(store, measure)


async def _open_back_end(settings: StoreSettings) -> MappingStore:
    match settings:
        case SqliteSettings(path):
            from storage.sqlite import open_sqlite_store

            return await open_sqlite_store(path)
        case CosmosSettings():
            from storage.cosmos import open_cosmos_store

            return await open_cosmos_store(settings)
        case GraphStore(graph, access_tokens, application_tokens):
            from storage.graph import open_graph_store

            return await open_graph_store(graph, access_tokens, application_tokens)
