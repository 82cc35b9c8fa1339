"""A migration from Graph to Cosmos DB that is killed twice and throttled: for a test, and as a program.

    python -m tests.support.killed_migration 10000

prints what each run did. It takes minutes on a small machine, most of it in the stand-ins.
"""

import asyncio
import json
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from local_azure.cosmos import throttled
from local_azure.entra.directory import HOME_TENANT, User
from local_azure.environment import LocalAzure, Ports
from local_azure.faults import Fault
from local_azure.graph.open_extensions import OpenExtension
from storage.graph_extensions import IDENTITY, SEAL
from storage.mapping import UserKey
from storage.seal import Seals, parse_seal_keys
from tests.support.acs_ids import acs_id
from tests.support.service_process import acs_auth, environment_for

TENANT = HOME_TENANT.tenant_id
PATIENCE_SECONDS = 900


@dataclass(frozen=True, slots=True)
class KilledMigration:
    """How many mappings the target held after each run, what the last run printed, and whether all is as it must be."""

    after_each_run: tuple[int, ...]
    last_run: dict[str, Any]
    exact: bool


async def killed_migration(local_azure: LocalAzure, directory: Path, mappings: int) -> KilledMigration:
    """Migrate so many mappings; the process is killed at a third and at two thirds of the way."""
    expected = _seed(local_azure, mappings)
    cosmos, graph = local_azure.cosmos.faults, local_azure.graph.faults
    environment = environment_for(local_azure, directory)
    held = []
    for third in (1, 2):
        _throttle(local_azure)
        process = await acs_auth(environment, *_MIGRATE)
        async with asyncio.timeout(PATIENCE_SECONDS):
            while len(local_azure.cosmos.items()) < mappings * third // 3:
                await cosmos.arrived("create_item", cosmos.counts["create_item"] + max(mappings // 50, 1))
        process.kill()
        await process.communicate()
        assert process.returncode == -9, "the run must have been killed under way"
        held.append(len(local_azure.cosmos.items()))
    graph.clear()
    cosmos.clear()
    _throttle(local_azure)
    process = await acs_auth(environment, *_MIGRATE)
    async with asyncio.timeout(PATIENCE_SECONDS):
        out, err = await process.communicate()
    assert process.returncode == 0, err.decode()
    items = local_azure.cosmos.items()
    copied = {(item["issuer"], item["subject"]): item["acsUserId"] for item in items}
    untouched = all(local_azure.graph.extensions.get(*user, _NAME) is not None for user in expected)
    exact = copied == expected and len(items) == mappings and untouched
    return KilledMigration((*held, len(items)), json.loads(out), exact)


_MIGRATE = ("migrate", "--from", "graph", "--to", "cosmos", "--json")
_NAME = "com.contoso.identityMapping"


def _seed(local_azure: LocalAzure, mappings: int) -> dict[tuple[str, str], str]:
    """Users in the directory, each with a sealed extension."""
    seals = Seals(parse_seal_keys(local_azure.service_environment()["GRAPH_SEAL_KEYS"]), _NAME)
    objects = [f"00000000-0000-4000-8000-{number:012d}" for number in range(mappings)]
    local_azure.entra.users = {  # type: ignore[assignment]
        each: User(each, TENANT, each, "Somebody", f"{each}@contoso.localhost", TENANT) for each in objects
    }
    expected = {(TENANT, each): acs_id(f"00000000-0000-4000-8000-000000000000_{each}") for each in objects}
    database = local_azure.state.database
    database.execute("BEGIN")
    for user, identity in expected.items():
        properties = {IDENTITY: identity, SEAL: seals.seal(UserKey(*user), identity)}
        local_azure.graph.extensions.create(*user, "service", OpenExtension(_NAME, properties))
    database.execute("COMMIT")
    return expected


def _throttle(local_azure: LocalAzure) -> None:
    local_azure.graph.faults.script("list_users", Fault(status=429, headers={"Retry-After": "1"}))
    local_azure.cosmos.faults.script("create_item", *[throttled(20) for _ in range(40)])


async def _main(mappings: int) -> int:
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as directory:
        async with LocalAzure(Path(directory), Ports(0, 0, 0, 0)) as local_azure:
            outcome = await killed_migration(local_azure, Path(directory), mappings)
    print(f"{mappings} mappings; in the target after each run: {outcome.after_each_run}")
    print(f"last run: {json.dumps(outcome.last_run)}")
    print(f"exact: {outcome.exact}; {time.monotonic() - started:.0f} s altogether")
    return 0 if outcome.exact else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(_main(int(sys.argv[1]))))
