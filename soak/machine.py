"""Hypothesis's state machine over HTTP: two processes of the service are held against a model of a few lines.

A user of the model has an identity or none. Calls meet faults; after a mutating call that was refused the model does
not know which, until the same process has answered such a call again. Every example has users of its own.
"""

import argparse
import asyncio
import random
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
import hypothesis
from hypothesis import HealthCheck, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test

from local_azure.acs.identities import TokenStatus
from local_azure.entra.directory import User
from local_azure.faults import Fault, Faults
from local_azure.service_process import ServiceProcess
from soak.chaos import departures
from soak.deployment import STORES, Answer, Deployment, ask, deployed, user_numbered

T = TypeVar("T")

USERS = 2
PROCESSES = 2
PATIENCE_SECONDS = 120

FAULTS = (
    Fault(status=429, headers={"Retry-After": "0"}),
    Fault(status=503),
    Fault(status=500),
    Fault(status=408),
    Fault(reset=True),
    Fault(drop_answer=True),
)


@dataclass(slots=True)
class Outcome:
    """How much was tried, and what Hypothesis found, if anything: the shortest sequence of rules, as an exception."""

    store: str
    examples: int = 0
    calls: Counter[str] = field(default_factory=Counter)
    found: str | None = None
    seconds: float = 0.0
    logs: str = ""


class World:
    """Stand-ins and processes in a thread's event loop, so that they answer whatever Hypothesis does meanwhile."""

    def __init__(self, loop: asyncio.AbstractEventLoop, outcome: Outcome) -> None:
        self._loop = loop
        self._numbers = 0
        self.outcome = outcome
        self.deployment: Deployment
        self.services: list[ServiceProcess] = []
        self.session: aiohttp.ClientSession

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        """Do `work` in the stand-ins' event loop and return what it returns."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE_SECONDS)

    def new_users(self) -> list[User]:
        """Users whom nobody has seen; the directory holds them and nobody else."""
        users = [user_numbered(self._numbers + number) for number in range(USERS)]
        self._numbers += USERS
        self.deployment.become(users)
        return users


@dataclass(slots=True)
class _Modelled:
    """What is known of a user: the identity, unless a process in `unsure` may still change it."""

    identity: str | None = None
    gone: bool = False
    unsure: set[int] = field(default_factory=set)


def machine(world: World) -> type[RuleBasedStateMachine]:
    """The state machine over this world."""

    class Machine(RuleBasedStateMachine):
        def __init__(self) -> None:
            super().__init__()
            self.users = world.new_users()
            self.modelled = [_Modelled() for _ in self.users]
            self.is_quiet = True
            self.orphans_before = world.do(_orphans(world.deployment))
            world.outcome.examples += 1

        @rule(stand_in=st.sampled_from(["entra", "graph", "acs", "cosmos"]), faults=st.lists(st.sampled_from(FAULTS)))
        def trouble(self, stand_in: str, faults: list[Fault]) -> None:
            """The next calls of a stand-in fail, whatever they are."""
            world.do(_script(world.deployment, stand_in, faults))
            self.is_quiet = self.is_quiet and not faults

        @rule()
        def calm(self) -> None:
            """All works again."""
            world.do(_clear(world.deployment))
            self.is_quiet = True

        @rule(who=_WHO, where=_WHERE, path=st.sampled_from(["POST /api/user", "POST /getUser", "GET /getUser"]))
        def create(self, who: int, where: int, path: str) -> None:
            """The user wants an identity."""
            modelled = self.modelled[who]
            answer = self.call(who, where, path)
            if self.refused(answer):
                modelled.unsure.add(where)
                return
            assert answer.status in (200, 201), answer
            assert answer.body is not None
            told = answer.body["acsUserIdentity"]
            if not modelled.unsure:
                assert answer.status == (200 if modelled.identity else 201) or not self.is_quiet
                assert modelled.identity in (None, told), "the identity of a user changed"
            modelled.gone = modelled.gone and told == modelled.identity
            modelled.identity = told
            modelled.unsure.discard(where)

        @rule(who=_WHO, where=_WHERE)
        def delete(self, who: int, where: int) -> None:
            """The user wants to be forgotten."""
            modelled = self.modelled[who]
            answer = self.call(who, where, "DELETE /api/user")
            if self.refused(answer):
                modelled.unsure.add(where)
                return
            assert answer.status == 204, answer
            modelled.unsure.discard(where)
            if not modelled.unsure:
                modelled.identity, modelled.gone = None, False
                assert self.users[who].object_id not in world.do(_mappings(world.deployment))

        @rule(who=_WHO, where=_WHERE)
        def find(self, who: int, where: int) -> None:
            """The user asks for the identity."""
            modelled = self.modelled[who]
            answer = self.call(who, where, "GET /api/user")
            if self.refused(answer) or modelled.unsure:
                return
            if modelled.identity is None:
                assert answer.error == "identity_not_found", answer
            else:
                assert answer.body == {"acsUserIdentity": modelled.identity}, answer

        @rule(who=_WHO, where=_WHERE)
        def resolve(self, who: int, where: int) -> None:
            """A colleague asks for everybody's identities."""
            if world.deployment.store == "graph":
                return
            body = {"userIds": [user.object_id for user in self.users]}
            answer = self.call(who, where, "POST /api/users/resolve", body)
            if self.refused(answer) or any(modelled.unsure for modelled in self.modelled):
                return
            assert answer.status == 200, answer
            assert answer.body is not None
            told = {each["userId"]: each["acsUserIdentity"] for each in answer.body["users"]}
            expected = {
                user.object_id: modelled.identity
                for user, modelled in zip(self.users, self.modelled, strict=True)
                if modelled.identity is not None
            }
            assert told == expected, answer

        @rule(who=_WHO, where=_WHERE, path=st.sampled_from(["GET /api/token", "GET /getToken"]))
        def token(self, who: int, where: int, path: str) -> None:
            """The user wants a token: never one that is not good, never one of another identity."""
            modelled = self.modelled[who]
            answer = self.call(who, where, path)
            if self.refused(answer):
                return
            if answer.status == 201:
                assert answer.body is not None
                token = answer.body["token"]
                assert world.do(_status(world.deployment, token)) is TokenStatus.GOOD
            if modelled.unsure:
                return
            if modelled.gone:
                assert answer.error == "identity_gone", answer
            elif modelled.identity is None:
                assert answer.error == "identity_not_found", answer
            else:
                assert answer.status == 201, answer
                assert answer.body is not None
                assert answer.body["user"] == {"communicationUserId": modelled.identity}

        @rule(who=_WHO)
        def vanish(self, who: int) -> None:
            """Somebody deletes the identity in ACS behind the service's back."""
            modelled = self.modelled[who]
            if modelled.identity is not None and not modelled.unsure and not modelled.gone:
                world.do(_forget(world.deployment, modelled.identity))
                modelled.gone = True

        def teardown(self) -> None:
            """When all is calm and every user has left, nothing of them remains but what no one could know."""
            self.calm()
            for who in range(USERS):
                for where in range(PROCESSES):
                    self.until_served(who, where, "POST /api/user", (200, 201))
                self.until_served(who, 0, "DELETE /api/user", (204,))
            assert world.do(_mappings(world.deployment)) == {}
            before, after = self.orphans_before, world.do(_orphans(world.deployment))
            unmapped, lost = after[0] - before[0], after[1] - before[1]
            assert unmapped <= lost, f"{unmapped} live identities are not mapped; of {lost} mints the answer was lost"

        def until_served(self, who: int, where: int, path: str, statuses: tuple[int, ...]) -> None:
            """Repeat a call that joins what was begun in trouble."""
            for _ in range(10):
                answer = self.call(who, where, path)
                if not self.refused(answer, in_calm=True):
                    assert answer.status in statuses, answer
                    return
                time.sleep(float(answer.headers["Retry-After"]))
            raise AssertionError(f"{path} is still refused although all works again")

        def call(self, who: int, where: int, call: str, body: Mapping[str, Any] | None = None) -> Answer:
            """Send a request; every answer keeps the error contract."""
            method, _, path = call.partition(" ")
            answer = world.do(_ask(world, method, path, self.users[who], where, body))
            world.outcome.calls[f"{call}: {answer.status} {answer.error or ''}".strip()] += 1
            note(f"{call} at process {where}, user {who}: {answer.status} {answer.error or ''}")
            assert departures(answer, also=("identity_gone",)) == []
            return answer

        def refused(self, answer: Answer, *, in_calm: bool = False) -> bool:
            """Whether it was refused for now, which only trouble may cause: this call's, or that of what it joined."""
            if answer.status != 503:
                return False
            assert in_calm or not self.is_quiet or any(modelled.unsure for modelled in self.modelled)
            return True

    return Machine


_WHO = st.integers(0, USERS - 1)
_WHERE = st.integers(0, PROCESSES - 1)


async def _ask(world: World, method: str, path: str, user: User, where: int, body: Mapping[str, Any] | None) -> Answer:
    return await ask(world.session, method, world.services[where].url + path, world.deployment.bearer(user), body)


def _faults(deployment: Deployment) -> dict[str, Faults]:
    azure = deployment.azure
    return {
        "entra": azure.entra.faults,
        "graph": azure.graph.faults,
        "acs": azure.acs.faults,
        "cosmos": azure.cosmos.faults,
    }


async def _script(deployment: Deployment, stand_in: str, faults: list[Fault]) -> None:
    _faults(deployment)[stand_in].script("*", *faults)


async def _clear(deployment: Deployment) -> None:
    for faults in _faults(deployment).values():
        faults.clear()


async def _mappings(deployment: Deployment) -> dict[str, Any]:
    return dict(deployment.mappings())


async def _status(deployment: Deployment, token: str) -> TokenStatus:
    return deployment.azure.acs.token_status(token)


async def _forget(deployment: Deployment, identity: str) -> None:
    deployment.azure.acs.forget(identity)


async def _orphans(deployment: Deployment) -> tuple[int, int]:
    return len(deployment.unmapped()), deployment.azure.acs.faults.committed["create_identity"]


@contextmanager
def world(directory: Path, outcome: Outcome) -> Iterator[World]:
    """A running world; at the end its processes stop and their logs are in `outcome`."""
    loop = asyncio.new_event_loop()
    made = World(loop, outcome)
    stop = asyncio.Event()
    started = threading.Event()

    async def live() -> None:
        async with deployed(directory, outcome.store, 0) as deployment:
            made.deployment = deployment
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=PATIENCE_SECONDS)) as made.session,
                deployment.process() as first,
                deployment.process() as second,
            ):
                await asyncio.gather(first.ready(), second.ready())
                made.services += [first, second]
                started.set()
                await stop.wait()
            outcome.logs = "".join(log.read_text() for log in deployment.logs)

    living = threading.Thread(target=lambda: loop.run_until_complete(live()))
    living.start()
    try:
        if not started.wait(PATIENCE_SECONDS):
            raise TimeoutError("the processes did not get ready")
        yield made
    finally:
        loop.call_soon_threadsafe(stop.set)
        living.join()
        loop.close()


def explore(store: str, directory: Path, *, examples: int, steps: int, seed: int) -> Outcome:
    """Play so many sequences of at most so many rules each, drawn by `seed`."""
    started = time.monotonic()
    outcome = Outcome(store)
    how = settings(
        max_examples=examples,
        stateful_step_count=steps,
        derandomize=False,
        database=None,
        deadline=None,
        print_blob=False,
        suppress_health_check=list(HealthCheck),
    )
    with world(directory, outcome) as made:
        try:
            run_state_machine_as_test(hypothesis.seed(seed)(machine(made)), settings=how)
        except Exception as error:  # what Hypothesis found: an assertion, or several
            outcome.found = "\n".join([f"{type(error).__name__}: {error}", *getattr(error, "__notes__", ())])
    outcome.seconds = time.monotonic() - started
    return outcome


def main(arguments: Sequence[str]) -> int:
    """Explore for one store or all; 0 when nothing was found."""
    parser = argparse.ArgumentParser(prog="python -m soak machine", description=__doc__)
    parser.add_argument("--store", choices=STORES, action="append", help="only this store")
    parser.add_argument("--examples", type=int, default=200)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--seed", type=int, default=None)
    options = parser.parse_args(arguments)
    seed = random.SystemRandom().randrange(1_000_000) if options.seed is None else options.seed
    print(f"seed {seed}")
    found = False
    for store in options.store or STORES:
        with tempfile.TemporaryDirectory() as directory:
            done = explore(store, Path(directory), examples=options.examples, steps=options.steps, seed=seed)
        answers = ", ".join(f"{count} x {name}" for name, count in done.calls.most_common())
        print(f"{store}: {done.examples} examples, {done.calls.total()} calls in {done.seconds:.0f} s: {answers}")
        print(f"  found: {done.found or 'nothing'}", flush=True)
        found = found or done.found is not None
    return int(found)
