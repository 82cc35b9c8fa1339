"""Kill -9 between any two steps of a creation, a deletion and a sign-out, in each store, and go on.

The points are the stand-ins' own: a call that is never answered, and one that is carried out and never answered; for
SQLite also a lock on its file. So many users stand at so many points when one process is killed. Afterwards another is
started, and each user repeats the call, or makes the opposite one, or does nothing until an operator reconciles.
"""

import argparse
import asyncio
import random
import sqlite3
import tempfile
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from itertools import product
from pathlib import Path

import aiohttp

from local_azure.acs.identities import TokenStatus
from local_azure.entra.directory import User
from local_azure.faults import Fault, Faults
from local_azure.service_process import ServiceProcess
from soak.deployment import STORES, Answer, Deployment, StoredMapping, ask, deployed

PATIENCE_SECONDS = 120
"""Only what hangs takes longer, on a busy machine too."""

POLL_SECONDS = 0.005
"""Between two looks at the stand-ins' state, which announces no changes."""

AT_ONCE = 28
TRIES = 4
"""A point that was not held until the kill, the machine being busy, is tried this many times."""


class Effect(StrEnum):
    """What a step leaves behind for good."""

    NOTHING = "nothing"
    MINTED = "an identity is minted"
    MAPPED = "the mapping is written"
    MARKED = "the mapping is marked"
    DELETED = "the identity is deleted"
    REMOVED = "the mapping is removed"
    REVOKED = "the tokens are revoked"
    SIGNED_OUT = "the mapping says that its user signed out"


@dataclass(frozen=True, slots=True)
class Step:
    """One call of an operation of a stand-in; `sqlite` is the file, whose operations are SQL statements."""

    stand_in: str
    operation: str
    effect: Effect = Effect.NOTHING


_MINT = Step("acs", "create_identity", Effect.MINTED)
_DELETE = Step("acs", "delete_identity", Effect.DELETED)
_REVOKE = Step("acs", "revoke_access_tokens", Effect.REVOKED)
_READ_ITEM, _GET_ME = Step("cosmos", "read_item"), Step("graph", "get_me")

STEPS: dict[tuple[str, str], tuple[Step, ...]] = {
    ("sqlite", "POST"): (_MINT, Step("sqlite", "INSERT", Effect.MAPPED)),
    ("cosmos", "POST"): (_READ_ITEM, _MINT, Step("cosmos", "create_item", Effect.MAPPED)),
    ("graph", "POST"): (
        Step("entra", "token"),
        _GET_ME,
        _MINT,
        Step("graph", "create_extension", Effect.MAPPED),
    ),
    ("sqlite", "DELETE"): (
        Step("sqlite", "UPDATE", Effect.MARKED),
        _DELETE,
        Step("sqlite", "DELETE", Effect.REMOVED),
    ),
    ("cosmos", "DELETE"): (
        _READ_ITEM,
        Step("cosmos", "replace_item", Effect.MARKED),
        _DELETE,
        Step("cosmos", "delete_item", Effect.REMOVED),
    ),
    ("graph", "DELETE"): (
        _GET_ME,
        _GET_ME,
        Step("graph", "update_extension", Effect.MARKED),
        _DELETE,
        _GET_ME,
        Step("graph", "delete_extension", Effect.REMOVED),
    ),
    ("sqlite", "SIGN-OUT"): (_REVOKE, Step("sqlite", "UPDATE", Effect.SIGNED_OUT)),
    ("cosmos", "SIGN-OUT"): (_READ_ITEM, _REVOKE, Step("cosmos", "replace_item", Effect.SIGNED_OUT)),
    ("graph", "SIGN-OUT"): (_GET_ME, _REVOKE, _GET_ME, Step("graph", "update_extension", Effect.SIGNED_OUT)),
}
"""What the service does in turn, by store and method; a rehearsal compares it with what arrives."""

METHODS = {
    "POST": ("POST", "/api/user"),
    "DELETE": ("DELETE", "/api/user"),
    "SIGN-OUT": ("DELETE", "/api/token"),
    "TOKEN": ("GET", "/api/token"),
}
"""How each is called."""
_OPPOSITES = {"POST": "DELETE", "DELETE": "POST", "SIGN-OUT": "TOKEN"}

_HOLDS_UP = {"entra": 1, "sqlite": 2}
"""Whose calls hold up others: MSAL's are synchronous, and each holds one of few threads; a lock holds everybody."""


class Then(StrEnum):
    """What happens after the restart."""

    AGAIN = "the same call"
    OPPOSITE = "the opposite call"
    RECONCILE = "no call, but acs-auth reconcile"


@dataclass(frozen=True, slots=True)
class Cell:
    """One place of the matrix: killed at step `number` of a method, which was `done` or not, and how it goes on."""

    store: str
    method: str
    number: int
    done: bool
    then: Then

    @property
    def step(self) -> Step:
        """The step that is never answered."""
        return STEPS[self.store, self.method][self.number]

    @property
    def effects(self) -> frozenset[Effect]:
        """What is there when the process is killed."""
        taken = STEPS[self.store, self.method][: self.number + self.done]
        before = set() if self.method == "POST" else {Effect.MINTED, Effect.MAPPED}
        return frozenset(before | {step.effect for step in taken})

    def __str__(self) -> str:
        kind = "carried out, not answered" if self.done else "not carried out"
        return f"{self.store} {self.method} {self.number + 1}. {self.step.operation}, {kind}; then {self.then}"


def cells(store: str) -> list[Cell]:
    """The whole matrix of one store.

    SQLite's statements have no answer that could be kept back: what is committed stands as it does when the next step
    is held, or as after the whole call. Its mark is held by nothing that could be seen from outside.
    """
    return [
        Cell(store, method, number, done, then)
        for method in ("POST", "DELETE", "SIGN-OUT")
        for number, step in enumerate(STEPS[store, method])
        for done, then in product((False, True), Then)
        if step.stand_in != "sqlite" or not (done or step.effect in (Effect.MARKED, Effect.SIGNED_OUT))
    ]


def every_point(store: str, seed: int) -> list[Cell]:
    """Each point of one store once; how it goes on is drawn by `seed`."""
    drawn = random.Random(seed)
    points = {(cell.method, cell.number, cell.done): drawn.choice(list(Then)) for cell in cells(store)}
    return [Cell(store, *point, then) for point, then in points.items()]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one store's matrix.

    `orphans` live at the end without a mapping; `allowed` died between mint and write. `broken` says in sentences what
    must not be, `missed` lists the cells whose point was not held until the kill in any try.
    """

    store: str
    cells: int
    kills: int
    orphans: int
    allowed: int
    broken: tuple[str, ...]
    missed: tuple[str, ...]
    seconds: float
    logs: str

    @property
    def held(self) -> bool:
        """Whether every cell was tried and no invariant broken."""
        return not self.broken and not self.missed


@dataclass(frozen=True, slots=True)
class _Placed:
    """A user at the point of a cell, and the identity that is theirs by then."""

    cell: Cell
    user: User
    identity: str | None


async def crash_matrix(store: str, directory: Path, chosen: Sequence[Cell], seed: int) -> Outcome:
    """Go through these cells of the store's matrix, in an order drawn by `seed`."""
    started = time.monotonic()
    order = list(chosen)
    random.Random(seed).shuffle(order)
    async with deployed(directory, store, TRIES * len(order) + 2) as deployment:
        matrix = _Matrix(deployment)
        await matrix.rehearse()
        at_once = AT_ONCE
        for _ in range(TRIES):
            if matrix.broken:
                break
            batches = [order[first : first + at_once] for first in range(0, len(order), at_once)]
            missed = [cell for batch in batches for cell in await matrix.kill(batch)]
            order, at_once = missed, max(at_once // 3, 1)
            if not missed:
                break
        matrix.settle()
        return Outcome(
            store,
            len(chosen),
            matrix.kills,
            len(deployment.unmapped()),
            matrix.allowed,
            tuple(matrix.broken),
            tuple(str(cell) for cell in order if matrix.kills),
            time.monotonic() - started,
            "".join(log.read_text() for log in deployment.logs),
        )


class _Matrix:
    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._unused = iter(deployment.users)
        self._identities: dict[User, str] = {}
        self._tokens: dict[User, str] = {}
        self.kills = 0
        self.allowed = 0
        self.broken: list[str] = []

    async def rehearse(self) -> None:
        """Create and delete once without trouble: the steps must be those of `STEPS`, or the matrix has holes."""
        async with self._running() as (service, session):
            await self._call(session, service, "POST", next(self._unused))  # fetches keys, opens connections
            user = next(self._unused)
            for method in ("POST", "SIGN-OUT", "DELETE"):
                before = self._counts()
                await self._call(session, service, method, user)
                made = {name: count - before.get(name, 0) for name, count in self._counts().items()}
                expected: dict[tuple[str, str], int] = {}
                for step in STEPS[self._deployment.store, method]:
                    if step.stand_in != "sqlite":
                        key = (step.stand_in, step.operation)
                        expected[key] = expected.get(key, 0) + 1
                if {name: count for name, count in made.items() if count} != expected:
                    self.broken.append(f"the steps of {method} are not those of the matrix: {made}")

    async def kill(self, batch: Iterable[Cell]) -> list[Cell]:
        """Bring a user to the point of each cell, kill the process, restart, go on; the cells that were missed."""
        batch = sorted(batch, key=lambda cell: _HOLDS_UP.get(cell.step.stand_in, 0))
        async with self._running() as (service, session):
            users = {cell: next(self._unused) for cell in batch}
            for cell, user in users.items():
                if cell.method != "POST":
                    await self._create(session, service, user)
                if cell.method == "SIGN-OUT":
                    await self._keep_token(session, service, user)
            await self._call(session, service, "POST", self._deployment.users[0])
            placed: list[_Placed] = []
            requests: list[asyncio.Task[Answer]] = []
            with _Lock(self._deployment) as lock:
                for cell, user in users.items():
                    if cell.step.stand_in != "sqlite":
                        placed.append(await self._place(cell, user, session, service, requests))
                locked = {cell: user for cell, user in users.items() if cell.step.stand_in == "sqlite"}
                if locked:
                    placed += await self._place_locked(locked, lock, session, service, requests)
                service.process.kill()
                await service.process.wait()
                await asyncio.gather(*requests, return_exceptions=True)
        self.kills += 1
        for faults in self._faults().values():
            faults.clear()
        hit = [one for one in placed if self._is_held(one)]
        self.allowed += sum(_is_orphan(one.cell.effects) for one in hit)
        self.allowed += len(placed) - len(hit)  # wherever those were killed
        await self._go_on(hit)
        return [one.cell for one in placed if one not in hit]

    def settle(self) -> None:
        """Look at everything once more."""
        self.broken += self._deployment.broken_mappings()
        unmapped = len(self._deployment.unmapped())
        if unmapped > self.allowed:
            self.broken.append(f"{unmapped} live identities are not mapped, {self.allowed} may be")

    async def _go_on(self, placed: Sequence[_Placed]) -> None:
        async with self._running() as (service, session):
            for one in placed:
                cell = one.cell
                if cell.then is Then.RECONCILE:
                    continue
                method = cell.method if cell.then is Then.AGAIN else _OPPOSITES[cell.method]
                answer = await self._call(session, service, method, one.user)
                mapping = self._mapping(one.user)
                told = answer.body and answer.body.get("acsUserIdentity")
                if method == "SIGN-OUT":
                    good = answer.status == 204 and mapping is not None and mapping.signed_out
                elif method == "TOKEN":
                    good = answer.status == 201 and self._is_good((answer.body or {})["token"])
                elif method == "DELETE":
                    good = answer.status == 204 and mapping is None
                else:
                    good = answer.status in (200, 201) and mapping == StoredMapping(str(told), deleting=False)
                if not good or (mapping and mapping.acs_user_id not in self._deployment.live()):
                    self.broken.append(f"{cell}: {answer.status} {answer.error}")
                if Effect.MAPPED in cell.effects and method == "DELETE" and one.identity in self._deployment.live():
                    self.broken.append(f"{cell}: the identity of the deleted mapping lives")
                if method == "SIGN-OUT" and self._is_good(self._tokens[one.user]):
                    self.broken.append(f"{cell}: a token survived the sign-out")
        status, out = await self._deployment.command("reconcile", "--json")
        if status != 0:
            self.broken.append(f"reconcile ended with {status}: {out}")
        self.broken += [f"after the kill: {told}" for told in self._deployment.broken_mappings()]
        for one in placed:
            if one.cell.then is Then.RECONCILE:
                effects, mapping = one.cell.effects, self._mapping(one.user)
                expected = Effect.MAPPED in effects and Effect.MARKED not in effects
                if (mapping is not None) != expected:
                    self.broken.append(f"{one.cell}: the mapping is {mapping}")
                if Effect.MARKED in effects and one.identity in self._deployment.live():
                    self.broken.append(f"{one.cell}: the identity of the deleted mapping lives")

    async def _place(
        self,
        cell: Cell,
        user: User,
        session: aiohttp.ClientSession,
        service: ServiceProcess,
        requests: list[asyncio.Task[Answer]],
    ) -> _Placed:
        """Start the user's call and return when it stands at the cell's step."""
        all_faults, known = self._faults(), self._deployment.live()
        step = cell.step
        for faults in all_faults.values():
            faults.clear()
        for earlier in STEPS[cell.store, cell.method][: cell.number]:
            if (earlier.stand_in, earlier.operation) == (step.stand_in, step.operation):
                all_faults[step.stand_in].script(step.operation, Fault())
        faults = all_faults[step.stand_in]
        faults.script(step.operation, Fault(hang=True, drop_answer=cell.done))
        already = sum(
            (earlier.stand_in, earlier.operation) == (step.stand_in, step.operation)
            for earlier in STEPS[cell.store, cell.method][: cell.number]
        )
        called, committed = faults.counts[step.operation], faults.committed[step.operation]
        requests.append(asyncio.create_task(self._send(session, service, cell.method, user)))
        stands = asyncio.create_task(
            faults.kept_back(step.operation, committed + 1)
            if cell.done
            else faults.arrived(step.operation, called + already + 1)
        )
        # A call that was held up for too long, and so refused, never stands there: it will be missed.
        await asyncio.wait({stands, requests[-1]}, return_when=asyncio.FIRST_COMPLETED)
        stands.cancel()
        fresh = self._deployment.live() - known
        return _Placed(cell, user, self._identities.get(user) or next(iter(fresh), None))

    async def _place_locked(
        self,
        users: dict[Cell, User],
        lock: "_Lock",
        session: aiohttp.ClientSession,
        service: ServiceProcess,
        requests: list[asyncio.Task[Answer]],
    ) -> list[_Placed]:
        """Let deletions pass their mark, lock the file, and let them and the creations run into the lock."""
        acs = self._faults()["acs"]
        acs.clear()
        go_on = asyncio.Event()
        deleting = [(cell, user) for cell, user in users.items() if cell.method == "DELETE"]
        creating = [(cell, user) for cell, user in users.items() if cell.method == "POST"]
        async with asyncio.timeout(PATIENCE_SECONDS):
            called = acs.counts["delete_identity"]
            for _, user in deleting:
                acs.script("delete_identity", Fault(until=go_on))
                requests.append(asyncio.create_task(self._send(session, service, "DELETE", user)))
            await acs.arrived("delete_identity", called + len(deleting))
            lock.take()
            go_on.set()
            placed = [_Placed(cell, user, self._identities[user]) for cell, user in deleting]
            while {one.identity for one in placed} & self._deployment.live():
                await asyncio.sleep(POLL_SECONDS)
            for cell, user in creating:
                known = self._deployment.live()
                requests.append(asyncio.create_task(self._send(session, service, "POST", user)))
                while not (fresh := self._deployment.live() - known):
                    await asyncio.sleep(POLL_SECONDS)
                placed.append(_Placed(cell, user, fresh.pop()))
        return placed

    def _is_held(self, one: _Placed) -> bool:
        """Whether the killed process left exactly what the point leaves."""
        effects, mapping, live = one.cell.effects, self._mapping(one.user), self._deployment.live()
        is_mapped = Effect.MAPPED in effects and Effect.REMOVED not in effects
        is_live = Effect.MINTED in effects and Effect.DELETED not in effects
        return (
            (mapping is not None) == is_mapped
            and (mapping is None or mapping.deleting == (Effect.MARKED in effects))
            and (one.identity in live) == is_live
            and (mapping is None or mapping.signed_out == (Effect.SIGNED_OUT in effects))
            and (one.user not in self._tokens or self._is_good(self._tokens[one.user]) != (Effect.REVOKED in effects))
        )

    def _is_good(self, token: str) -> bool:
        return self._deployment.azure.acs.token_status(token) is TokenStatus.GOOD

    async def _keep_token(self, session: aiohttp.ClientSession, service: ServiceProcess, user: User) -> None:
        answer = await self._call(session, service, "TOKEN", user)
        assert answer.body is not None
        self._tokens[user] = answer.body["token"]

    async def _create(self, session: aiohttp.ClientSession, service: ServiceProcess, user: User) -> None:
        answer = await self._call(session, service, "POST", user)
        assert answer.body is not None
        self._identities[user] = answer.body["acsUserIdentity"]

    async def _call(self, session: aiohttp.ClientSession, service: ServiceProcess, method: str, user: User) -> Answer:
        answer = await self._send(session, service, method, user)
        if answer.status >= 500:
            self.broken.append(f"{method} without any fault: {answer.status} {answer.error}")
        return answer

    async def _send(self, session: aiohttp.ClientSession, service: ServiceProcess, method: str, user: User) -> Answer:
        verb, path = METHODS[method]
        return await ask(session, verb, f"{service.url}{path}", self._deployment.bearer(user))

    def _mapping(self, user: User) -> StoredMapping | None:
        return self._deployment.mappings().get(user.object_id)

    def _faults(self) -> dict[str, Faults]:
        azure = self._deployment.azure
        return {
            "entra": azure.entra.faults,
            "graph": azure.graph.faults,
            "acs": azure.acs.faults,
            "cosmos": azure.cosmos.faults,
        }

    def _counts(self) -> dict[tuple[str, str], int]:
        return {
            (name, operation): count
            for name, faults in self._faults().items()
            for operation, count in faults.counts.items()
        }

    @asynccontextmanager
    async def _running(self) -> AsyncIterator[tuple[ServiceProcess, aiohttp.ClientSession]]:
        async with (
            self._deployment.process() as service,
            aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=PATIENCE_SECONDS)
            ) as session,
        ):
            await service.ready()
            yield service, session


class _Lock:
    """Another process's lock on the SQLite file, once taken."""

    def __init__(self, deployment: Deployment) -> None:
        self._path = deployment.database
        self._database: sqlite3.Connection | None = None

    def __enter__(self) -> "_Lock":
        return self

    def __exit__(self, *_: object) -> None:
        if self._database is not None:
            self._database.close()

    def take(self) -> None:
        """Keep everybody else from writing."""
        self._database = sqlite3.connect(self._path, isolation_level=None, timeout=PATIENCE_SECONDS)
        self._database.execute("BEGIN IMMEDIATE")


def _is_orphan(effects: frozenset[Effect]) -> bool:
    return Effect.MINTED in effects and Effect.MAPPED not in effects


async def _run(stores: Sequence[str], rounds: int, seed: int) -> bool:
    held = True
    print("| store | round | cells | kills | live, not mapped | minted, killed before the write | seconds | broken |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for number, store in product(range(rounds), stores):
        with tempfile.TemporaryDirectory() as directory:
            done = await crash_matrix(store, Path(directory), cells(store), seed + number)
        held = held and done.held
        print(
            f"| {store} | {number + 1} | {done.cells} | {done.kills} | {done.orphans} | {done.allowed} "
            f"| {done.seconds:.0f} | {len(done.broken) or 'none'} |",
            flush=True,
        )
        for told in (*done.broken, *(f"missed: {cell}" for cell in done.missed)):
            print(f"  {told}")
    return held


def main(arguments: Sequence[str]) -> int:
    """Run the matrix; 0 when no invariant broke and no cell was missed."""
    parser = argparse.ArgumentParser(prog="python -m soak crash", description=__doc__)
    parser.add_argument("--store", choices=STORES, action="append", help="only this store")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=None, help="draws which users are killed together")
    options = parser.parse_args(arguments)
    seed = random.SystemRandom().randrange(1_000_000) if options.seed is None else options.seed
    print(f"seed {seed}")
    return 0 if asyncio.run(_run(options.store or STORES, options.rounds, seed)) else 1
