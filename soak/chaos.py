"""Mixed calls to several processes while every upstream throttles, fails, resets, hangs and loses answers at random.

Afterwards the invariants are read from the stand-ins' own state. Each answer is held against the error contract, each
time against the deadline. Which call meets which fault is drawn by the seed; which answer comes first is the machine's.
"""

import argparse
import asyncio
import random
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from local_azure.cosmos import throttled
from local_azure.entra.directory import User
from local_azure.faults import Fault, Faults
from local_azure.service_process import ServiceProcess, ended
from quart_app.web.error_names import ErrorName, names_of
from soak.deployment import STORES, Answer, Deployment, ask, deployed

SLACK_SECONDS = 15.0
"""How far an answer may miss its deadline: a busy machine is no defect of the service."""

RETURNS = 20
PATIENCE_SECONDS = 300
DRAWN_AHEAD = 60_000
"""Faults are drawn for so many calls of each upstream, more than a run sends."""

Draw = Callable[[random.Random], Fault]

TROUBLE: dict[str, tuple[int, Draw]] = {
    "429": (6, lambda drawn: Fault(status=429, headers=drawn.choice([{}, {"Retry-After": "0"}, {"Retry-After": "1"}]))),
    "503": (6, lambda drawn: Fault(status=503, headers=drawn.choice([{}, {"Retry-After": "1"}]))),
    "500": (5, lambda drawn: Fault(status=500, body=drawn.choice([{}, "<html>", b"\xff"]))),
    "408": (5, lambda drawn: Fault(status=408)),
    "reset": (5, lambda drawn: Fault(reset=True)),
    "drop": (5, lambda drawn: Fault(drop_answer=True)),
    "throttled": (3, lambda drawn: throttled(drawn.choice([1, 50]))),
    "hang": (1, lambda drawn: Fault(hang=True)),
}
"""What may happen to a call, each with its weight."""

OPERATIONS = {"POST /api/user": 4, "GET /api/user": 3, "GET /api/token": 4, "DELETE /api/user": 2, "POST /getUser": 1}


@dataclass(frozen=True, slots=True)
class Plan:
    """How much of what: `trouble` is the share of upstream calls that fail, `concurrency` the calls under way at once.

    `settle_seconds` is how long the processes may settle by themselves before they are stopped.
    """

    processes: int = 4
    users: int = 500
    operations: int = 10_000
    trouble: float = 0.2
    concurrency: int = 48
    deadline_seconds: float = 10.0
    settle_seconds: float = 180.0


@dataclass(slots=True)
class Outcome:
    """What was answered, and what broke: one sentence each. Times in seconds."""

    store: str
    answers: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    mapped: int = 0
    live: int = 0
    lost_mints: int = 0
    settled_after: float | None = None
    seconds: float = 0.0
    logs: str = ""


async def chaos(store: str, directory: Path, plan: Plan, seed: int) -> Outcome:
    """Send `plan.operations` calls in trouble, let it calm down, and look."""
    started = time.monotonic()
    outcome = Outcome(store)
    async with deployed(directory, store, plan.users) as deployment:
        try:
            await _Chaos(deployment, plan, seed, outcome).run()
        finally:
            outcome.logs = "".join(log.read_text() for log in deployment.logs)
    outcome.seconds = time.monotonic() - started
    return outcome


@dataclass(frozen=True, slots=True)
class _Call:
    """One request of a user to a process."""

    service: ServiceProcess
    method: str
    path: str
    user: User

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


class _Chaos:
    def __init__(self, deployment: Deployment, plan: Plan, seed: int, outcome: Outcome) -> None:
        self._deployment = deployment
        self._plan = plan
        self._random = random.Random(seed)
        self._outcome = outcome
        self._told: defaultdict[User, set[str]] = defaultdict(set)
        self._created: Counter[User] = Counter()

    async def run(self) -> None:
        """Trouble, calm, the end of all processes, an operator's run; after it nothing may be open."""
        deployment, outcome = self._deployment, self._outcome
        async with self._running() as (services, session):
            trouble = self._trouble()
            await self._send_all(services, session)
            outcome.faults = self._calm(trouble)
            if deployment.store == "graph":
                # The background can't act for a user: whoever left something open comes back to where it was.
                for service, user in ((service, user) for service in services for user in deployment.users):
                    await self._return(session, _Call(service, "POST", "/api/user", user))
            else:
                await self._settled_alone()
            for service in services:
                service.process.terminate()
            for status in await asyncio.gather(*(ended(service.process) for service in services)):
                if status != 0:
                    outcome.broken.append(f"a process ended with {status}")
        reconciled, out = await deployment.command("reconcile", "--json")
        if reconciled != 0:
            outcome.broken.append(f"reconcile ended with {reconciled}: {out}")
        outcome.broken += self._left()
        outcome.mapped, outcome.live = len(deployment.mappings()), len(deployment.live())
        outcome.lost_mints = self._lost_mints()
        self._check_those_who_stayed()

    def _trouble(self) -> "list[_Drawn]":
        names, weights = list(TROUBLE), [weight for weight, _ in TROUBLE.values()]
        all_drawn = []
        for faults in self._faults():
            drawn = random.Random(self._random.random())
            kinds = [
                drawn.choices(names, weights)[0] if drawn.random() < self._plan.trouble else ""
                for _ in range(DRAWN_AHEAD)
            ]
            faults.script("*", *(TROUBLE[kind][1](drawn) if kind else Fault() for kind in kinds))
            all_drawn.append(_Drawn(faults, kinds, faults.counts.total()))
        return all_drawn

    def _calm(self, trouble: "list[_Drawn]") -> Counter[str]:
        met: Counter[str] = Counter()
        for drawn in trouble:
            met.update(kind for kind in drawn.kinds[: drawn.faults.counts.total() - drawn.before] if kind)
            drawn.faults.clear()
        return met

    async def _send_all(self, services: Sequence[ServiceProcess], session: aiohttp.ClientSession) -> None:
        names, weights = list(OPERATIONS), list(OPERATIONS.values())
        calls: list[_Call] = []
        for _ in range(self._plan.operations):
            user = self._random.choice(self._deployment.users)
            operation = self._random.choices(names, weights)[0]
            if operation == "DELETE /api/user" and self._stays(user):
                operation = "GET /api/token"
            method, _, path = operation.partition(" ")
            calls.append(_Call(self._random.choice(services), method, path, user))
        left = iter(calls)

        async def work() -> None:
            for call in left:
                await self._send(session, call)

        await asyncio.gather(*(work() for _ in range(self._plan.concurrency)))

    async def _return(self, session: aiohttp.ClientSession, call: "_Call") -> None:
        """Repeat a call as its answer asks: it may join work that was begun in trouble and ends as that does."""
        for _ in range(RETURNS):
            answer = await self._send(session, call)
            if answer is None or answer.status != 503:
                return
            await asyncio.sleep(float(answer.headers.get("Retry-After", 1)))
        self._outcome.broken.append(f"{call} is still refused after all faults")

    async def _send(self, session: aiohttp.ClientSession, call: "_Call") -> Answer | None:
        started = time.monotonic()
        try:
            answer = await ask(session, call.method, call.service.url + call.path, self._deployment.bearer(call.user))
        except (aiohttp.ClientError, TimeoutError) as error:
            self._outcome.broken.append(f"{call} was not answered: {type(error).__name__}")
            return None
        seconds = time.monotonic() - started
        self._outcome.times.append(seconds)
        self._outcome.answers[f"{answer.status} {answer.error or ''}".strip()] += 1
        if seconds > self._plan.deadline_seconds + SLACK_SECONDS:
            self._outcome.broken.append(f"{call} took {seconds:.1f} s")
        self._outcome.broken += [f"{call}: {told}" for told in departures(answer)]
        if answer.status in (200, 201) and answer.body is not None and call.path == "/api/user":
            self._told[call.user].add(answer.body["acsUserIdentity"])
            self._created[call.user] += answer.status == 201
        return answer

    async def _settled_alone(self) -> None:
        started = time.monotonic()
        while time.monotonic() - started < self._plan.settle_seconds:
            if not self._left():
                self._outcome.settled_after = time.monotonic() - started
                return
            await asyncio.sleep(1)
        if self._plan.settle_seconds:
            self._outcome.broken += [f"by itself: {told}" for told in self._left()]

    def _left(self) -> list[str]:
        told = self._deployment.broken_mappings()
        unmapped, lost = len(self._deployment.unmapped()), self._lost_mints()
        if unmapped > lost:
            told.append(f"{unmapped} live identities are not mapped; of {lost} mints the answer was lost")
        return told

    def _lost_mints(self) -> int:
        return self._deployment.azure.acs.faults.committed["create_identity"]

    def _check_those_who_stayed(self) -> None:
        mappings = self._deployment.mappings()
        for user, told in self._told.items():
            if not self._stays(user):
                continue
            mapping = mappings.get(user.object_id)
            if told != {mapping.acs_user_id if mapping else None}:
                self._outcome.broken.append(f"a user who never left was given {len(told)} identities, or another one")
            if self._created[user] > 1:
                self._outcome.broken.append("a user who never left was told twice that an identity is new")

    def _stays(self, user: User) -> bool:
        return self._deployment.users.index(user) % 2 == 0

    def _faults(self) -> list[Faults]:
        azure = self._deployment.azure
        return [azure.entra.faults, azure.graph.faults, azure.acs.faults, azure.cosmos.faults]

    @asynccontextmanager
    async def _running(self) -> AsyncIterator[tuple[list[ServiceProcess], aiohttp.ClientSession]]:
        deadline = {"REQUEST_DEADLINE_SECONDS": str(self._plan.deadline_seconds)}
        async with AsyncExitStack() as stack:
            session = await stack.enter_async_context(
                aiohttp.ClientSession(
                    connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=PATIENCE_SECONDS)
                )
            )
            services = [
                await stack.enter_async_context(self._deployment.process(**deadline))
                for _ in range(self._plan.processes)
            ]
            await asyncio.gather(*(service.ready() for service in services))
            yield services, session


@dataclass(frozen=True, slots=True)
class _Drawn:
    """What was drawn for the calls of a stand-in, which had taken `before` of them already."""

    faults: Faults
    kinds: list[str]
    before: int


def departures(answer: Answer, also: Collection[str] = ()) -> list[str]:
    """Where an answer departs from the error contract (docs/errors.md), or reports what must not happen in trouble.

    `also` are further names that are allowed.
    """
    if answer.status < 400:
        return []
    told = f"{answer.status} {answer.error}"
    body = answer.body
    if body is None or set(body) != {"code", "error", "message", "requestId"} or body["code"] != answer.status:
        return [f"{told} does not have the form of the contract"]
    departed = []
    if answer.error not in names_of(answer.status):
        departed.append(f"{told} is not a name of the contract")
    if answer.status in (429, 503) and "Retry-After" not in answer.headers:
        departed.append(f"{told} has no Retry-After")
    if answer.error not in (*_IN_TROUBLE, *also):
        departed.append(f"{told} is no answer to trouble of an upstream")
    return departed


_IN_TROUBLE = (ErrorName.SERVICE_UNAVAILABLE, ErrorName.IDENTITY_NOT_FOUND)
"""What a good caller may be told when an upstream throttles, fails or is silent, or an identity does not exist."""


_DEFAULT = Plan()


def _print(done: Outcome) -> None:
    times = sorted(done.times)
    answers = ", ".join(f"{count} x {name}" for name, count in done.answers.most_common())
    settled = "" if done.settled_after is None else f"; settled by itself after {done.settled_after:.0f} s"
    faults = ", ".join(f"{count} x {kind}" for kind, count in done.faults.most_common())
    print(f"{done.store}: {len(times)} answers in {done.seconds:.0f} s: {answers}")
    print(f"  {done.faults.total()} faults: {faults}")
    median, late = times[len(times) // 2], times[len(times) * 99 // 100]
    print(f"  half within {median:.3f} s, 99 % within {late:.2f} s, the longest {times[-1]:.2f} s")
    print(f"  live {done.live}, mapped {done.mapped}, lost mints {done.lost_mints}{settled}")
    print(f"  broken: {len(done.broken) or 'nothing'}")
    for told, count in Counter(done.broken).most_common():
        print(f"    {count} x {told}", flush=True)


async def _run(stores: Sequence[str], plan: Plan, seed: int) -> bool:
    held = True
    for store in stores:
        with tempfile.TemporaryDirectory() as directory:
            done = await chaos(store, Path(directory), plan, seed)
        _print(done)
        held = held and not done.broken
    return held


def main(arguments: Sequence[str]) -> int:
    """Run it for one store or all; 0 when nothing broke."""
    parser = argparse.ArgumentParser(prog="python -m soak chaos", description=__doc__)
    parser.add_argument("--store", choices=STORES, action="append", help="only this store")
    parser.add_argument("--processes", type=int, default=_DEFAULT.processes)
    parser.add_argument("--users", type=int, default=_DEFAULT.users)
    parser.add_argument("--operations", type=int, default=_DEFAULT.operations)
    parser.add_argument("--trouble", type=float, default=_DEFAULT.trouble, help="the share of upstream calls that fail")
    parser.add_argument("--seed", type=int, default=None)
    options = parser.parse_args(arguments)
    seed = random.SystemRandom().randrange(1_000_000) if options.seed is None else options.seed
    print(f"seed {seed}")
    plan = Plan(options.processes, options.users, options.operations, options.trouble)
    return 0 if asyncio.run(_run(options.store or STORES, plan, seed)) else 1
