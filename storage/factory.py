"""From settings to the store that the service uses, with its deadline and its retries."""

from dataclasses import dataclass
from pathlib import Path

from storage.deadline import DeadlineStore
from storage.mapping import MappingStore
from storage.retrying import RetryingStore, RetryPolicy


@dataclass(frozen=True, slots=True)
class SqliteSettings:
    """One SQLite file; its directory must exist."""

    path: Path


StoreSettings = SqliteSettings


async def open_store(settings: StoreSettings, policy: RetryPolicy | None = None) -> MappingStore:
    """Open the chosen back end inside its decorators, in the order deadline(retry(store)).

    The deadline is outermost because it also ends an attempt that hangs and a wait between attempts. Only the chosen
    back end is imported. Raises `StoreMisconfigured` with the remedy, `StoreUnavailable`.
    """
    return DeadlineStore(RetryingStore(await _open_back_end(settings), policy or RetryPolicy()))


async def _open_back_end(settings: StoreSettings) -> MappingStore:
    match settings:
        case SqliteSettings(path):
            from storage.sqlite import open_sqlite_store

            return await open_sqlite_store(path)
