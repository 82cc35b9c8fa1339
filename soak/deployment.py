"""Service processes over the stand-ins, users beyond the directory, and what the stand-ins' own state says of them."""

import contextlib
import os
import sqlite3
import sys
from asyncio.subprocess import PIPE, create_subprocess_exec
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from local_azure.entra.directory import API, HOME_TENANT, RESOLVE_SCOPE, User
from local_azure.environment import LocalAzure, Ports
from local_azure.port_choice import free_port
from local_azure.service_process import ServiceProcess, environment
from storage.graph_extensions import DELETING, IDENTITY, SIGNED_OUT_AT

STORES = ("sqlite", "cosmos", "graph")
EXTENSION = "com.contoso.identityMapping"


@dataclass(frozen=True, slots=True)
class Answer:
    """What the service answered; `body` is `None` where there is none."""

    status: int
    body: dict[str, Any] | None
    headers: Mapping[str, str]

    @property
    def error(self) -> str | None:
        """The error's name."""
        return None if self.body is None else self.body.get("error")


@dataclass(frozen=True, slots=True)
class StoredMapping:
    """What a store holds for a user."""

    acs_user_id: str
    deleting: bool
    signed_out: bool = field(default=False, compare=False)


class Deployment:
    """The stand-ins, `users`, and how to start processes of the service that keep mappings in `store`.

    Every process writes its log into `directory`; `logs` lists them.
    """

    def __init__(self, azure: LocalAzure, directory: Path, store: str, users: int) -> None:
        self.azure = azure
        self.store = store
        self.users: list[User] = []
        self.logs: list[Path] = []
        self._directory = directory
        self._tokens: dict[User, str] = {}
        self.become([user_numbered(number) for number in range(users)])

    def become(self, users: list[User]) -> None:
        """Let these be the directory's users, and nobody else."""
        self.users = users
        self.azure.entra.users = {user.alias: user for user in users}  # type: ignore[assignment]

    @property
    def database(self) -> Path:
        """The SQLite file."""
        return self._directory / "mappings.sqlite"

    def settings(self) -> dict[str, str]:
        """The service's settings, without the address that it listens on."""
        return {
            **self.azure.service_environment(),
            "STORAGE_BACKEND": self.store,
            "SQLITE_PATH": str(self.database),
            "RATE_LIMIT_REQUESTS_PER_MINUTE": "0",
            **({"ENTRA_RESOLVE_SCOPE": RESOLVE_SCOPE} if self.store != "graph" else {}),
        }

    def process(self, **settings: str) -> ServiceProcess:
        """One process of the service, not started yet."""
        address = {"HOST": "127.0.0.1", "PORT": str(free_port())}
        log = self._directory / f"service-{len(self.logs)}.log"
        self.logs.append(log)
        return ServiceProcess(environment(os.environ, {**self.settings(), **settings, **address}), self._directory, log)

    async def command(self, *arguments: str) -> tuple[int | None, str]:
        """Run `acs-auth` to its end: exit status, and what it printed."""
        process = await create_subprocess_exec(
            *(sys.executable, "-m", "quart_app.cli", *arguments),
            env=environment(os.environ, self.settings()),
            cwd=self._directory,
            stdout=PIPE,
            stderr=PIPE,
        )
        out, err = await process.communicate()
        log = self._directory / f"command-{len(self.logs)}.log"
        log.write_bytes(err)
        self.logs.append(log)
        return process.returncode, out.decode()

    def bearer(self, user: User) -> dict[str, str]:
        """The user's `Authorization` header."""
        if user not in self._tokens:
            scope = " ".join(API.scopes)
            self._tokens[user] = self.azure.entra.access_token(user, scope=scope, lifetime=12 * 3600)
        return {"Authorization": f"Bearer {self._tokens[user]}"}

    def live(self) -> set[str]:
        """The ACS identities that live."""
        return set(self.azure.acs.live_identities())

    def mappings(self) -> dict[str, StoredMapping]:
        """What the store holds, by the users' object ids."""
        match self.store:
            case "cosmos":
                return {
                    item["subject"]: StoredMapping(item["acsUserId"], bool(item["deleting"]), "signedOutAt" in item)
                    for item in self.azure.cosmos.items()
                }
            case "graph":
                found = {}
                for user in self.users:
                    extension = self.azure.graph.extensions.get(user.tenant_id, user.object_id, EXTENSION)
                    if extension is not None:
                        properties = extension.properties
                        found[user.object_id] = StoredMapping(
                            properties[IDENTITY], bool(properties.get(DELETING)), SIGNED_OUT_AT in properties
                        )
                return found
            case _:
                with contextlib.closing(sqlite3.connect(self.database)) as database:
                    rows = database.execute(
                        "SELECT subject, acs_user_id, deleting, signed_out_at FROM mappings"
                    ).fetchall()
                return {
                    subject: StoredMapping(acs_user_id, bool(deleting), signed_out_at is not None)
                    for subject, acs_user_id, deleting, signed_out_at in rows
                }

    def broken_mappings(self) -> list[str]:
        """What no settled store may hold, a sentence each: dead or shared identities, unfinished deletions."""
        live, told = self.live(), []
        mappings = self.mappings()
        for mapping in mappings.values():
            if mapping.deleting:
                told.append(f"a marked deletion was not completed: {mapping.acs_user_id}")
            elif mapping.acs_user_id not in live:
                told.append(f"a mapping points to a deleted identity: {mapping.acs_user_id}")
        if len({mapping.acs_user_id for mapping in mappings.values()}) < len(mappings):
            told.append("two users are mapped to one identity")
        return told

    def unmapped(self) -> set[str]:
        """The live identities to which no mapping points."""
        return self.live() - {mapping.acs_user_id for mapping in self.mappings().values()}


@asynccontextmanager
async def deployed(directory: Path, store: str, users: int) -> AsyncIterator[Deployment]:
    """Running stand-ins for a service that keeps mappings in `store`."""
    async with AsyncExitStack() as stack:
        azure = await stack.enter_async_context(LocalAzure(directory / "local-azure", Ports(0, 0, 0, 0)))
        yield Deployment(azure, directory, store, users)


async def ask(
    session: aiohttp.ClientSession,
    method: str,
    url: str,
    headers: Mapping[str, str],
    body: Mapping[str, Any] | None = None,
) -> Answer:
    """Send one request, with `body` as JSON if there is one.

    Raises `aiohttp.ClientError`, and `TimeoutError` after the session's time limit."""
    async with session.request(method, url, headers=headers, json=body) as response:
        is_json = response.content_type == "application/json"
        body = await response.json() if is_json else None
        return Answer(response.status, body, response.headers)


def user_numbered(number: int) -> User:
    """A user of the home tenant whom nobody else names."""
    object_id = f"a1e5c0de-0000-4000-8000-{number:012d}"
    tenant = HOME_TENANT.tenant_id
    return User(f"user-{number}", tenant, object_id, "Somebody", f"user-{number}@contoso.localhost", tenant)
