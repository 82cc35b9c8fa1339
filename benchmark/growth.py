"""How the SQLite store fares as mappings become more."""

import random
import sqlite3
import statistics
import time
import uuid
from collections.abc import Mapping
from contextlib import AsyncExitStack, closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from benchmark.processes import Cores, Upstreams, service
from benchmark.subjects import Tokens, subjects_of
from benchmark.throughput import Cell, Figures, Plan, measure_all
from local_azure.entra.directory import HOME_TENANT
from storage.mapping import UserKey
from storage.sqlite import open_sqlite_store

MEASURED_USERS = 50
STORE_CALLS = 300


@dataclass(frozen=True, slots=True)
class Size:
    """A file with `mappings`: MiB on disk, and what a call of only the store takes, in milliseconds (medians)."""

    mappings: int
    on_disk: float
    get: float
    create: float


async def measure_growth(
    sizes: tuple[int, ...], upstreams: Upstreams, settings: Mapping[str, str], cores: Cores, directory: Path, plan: Plan
) -> tuple[list[Size], dict[Cell, Figures]]:
    """Fill a file for each size, measure the store by itself, then the service, all sizes interleaved."""
    measured, subjects = [], []
    object_ids = [str(uuid.UUID(int=random.Random(number).getrandbits(128))) for number in range(MEASURED_USERS)]
    async with AsyncExitStack() as stack:
        for size in sizes:
            path = directory / f"growth-{size}.sqlite"
            users = object_ids[: min(size, MEASURED_USERS)]
            await _fill(path, size - len(users))
            variables = {**settings, "STORAGE_BACKEND": "sqlite", "SQLITE_PATH": str(path)}
            child = await stack.enter_async_context(service(variables, cores, directory / "growth.log"))
            tokens = Tokens(users, await upstreams.tokens(users))
            subjects += await subjects_of(f"{size:,}", child, tokens)
            measured.append(await _alone(path, size, users))
        return measured, await measure_all(subjects, upstreams, {"none": {}}, plan)


async def _fill(path: Path, count: int) -> None:
    store = await open_sqlite_store(path)
    await store.aclose()
    draw = random.Random(count)
    now = datetime.now(UTC).isoformat()
    rows = (
        (
            HOME_TENANT.tenant_id,
            str(uuid.UUID(int=draw.getrandbits(128))),
            f"8:acs:{uuid.UUID(int=draw.getrandbits(128))}_{uuid.UUID(int=draw.getrandbits(128))}",
            now,
        )
        for _ in range(count)
    )
    with closing(sqlite3.connect(path)) as database, database:
        database.executemany(
            "INSERT INTO mappings (issuer, subject, acs_user_id, created_at) VALUES (?, ?, ?, ?)", rows
        )


async def _alone(path: Path, mappings: int, object_ids: list[str]) -> Size:
    store = await open_sqlite_store(path)
    get, create = [], []
    try:
        for number in range(STORE_CALLS):
            user = UserKey(HOME_TENANT.tenant_id, object_ids[number % len(object_ids)])
            started = time.perf_counter()
            await store.get(user)
            get.append(time.perf_counter() - started)
        for _ in range(STORE_CALLS):
            user = UserKey("bench", str(uuid.uuid4()))
            started = time.perf_counter()
            created = await store.create(user, f"8:acs:{uuid.UUID(int=0)}_bench")
            create.append(time.perf_counter() - started)
            await store.remove(created)
    finally:
        await store.aclose()
    on_disk = sum(file.stat().st_size for file in path.parent.glob(path.name + "*")) / 2**20
    return Size(mappings, on_disk, statistics.median(get) * 1000, statistics.median(create) * 1000)
