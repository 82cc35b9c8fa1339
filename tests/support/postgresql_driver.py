"""The example's driver, asyncpg, whose errors end here. docs/stores/add-your-own.md shows this file as it is."""

from collections.abc import Mapping, Sequence
from typing import Any

import asyncpg

from storage.mapping import StorageFull, StoreMisconfigured, StoreUnavailable
from tests.support.postgresql_store import SCHEMA, PostgresMappingStore


class AsyncpgDatabase:
    """Fulfils `Database` with a pool of connections to the primary server."""

    def __init__(self, pool: Any) -> None:
        self._pool = pool

    async def fetch(self, statement: str, *arguments: object) -> Sequence[Mapping[str, Any]]:
        """See `Database.fetch`."""
        try:
            rows: Sequence[Mapping[str, Any]] = await self._pool.fetch(statement, *arguments)
        except (asyncpg.DiskFullError, asyncpg.OutOfMemoryError) as error:
            raise StorageFull("PostgreSQL has no room for another write: make some.") from error
        except (asyncpg.InsufficientPrivilegeError, asyncpg.UndefinedTableError) as error:
            raise StoreMisconfigured("PostgreSQL refused: create the table, and grant its use to this role.") from error
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
            raise StoreUnavailable from error
        return rows

    async def aclose(self) -> None:
        """See `Database.aclose`."""
        await self._pool.close()


async def open_postgres_store(address: str, *, create_if_missing: bool = False) -> PostgresMappingStore:
    """Open the store at `postgresql://…`. Raises `StoreMisconfigured` and `StoreUnavailable`."""
    try:
        pool = await asyncpg.create_pool(address, min_size=1, max_size=10)
    except (asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InvalidCatalogNameError, ValueError) as error:
        raise StoreMisconfigured("PostgreSQL refused the sign-in: check POSTGRES_URL and the role.") from error
    except (asyncpg.PostgresError, OSError) as error:
        raise StoreUnavailable from error
    database = AsyncpgDatabase(pool)
    if create_if_missing:
        await database.fetch(SCHEMA)
    store = PostgresMappingStore(database)
    await store.ping()
    return store
