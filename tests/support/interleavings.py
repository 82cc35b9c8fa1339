"""Every order in which the calls of several processes can happen, up to a bound, over the real `IdentityService`.

A process is one `IdentityService`. Each call that it makes of the store or of ACS waits until the scheduler decides
that it is next, and what becomes of it. The scheduler decides only when nothing else can run, so a list of its
decisions repeats a run exactly. `explore` tries all of them, one run after another; where two runs come to the same
state, only the first goes on.

What the service says it can't keep is no violation here (see `IdentityService`): an identity that no running process
ever learnt of, a mapping that is created after one was removed, and a mark that is written after it was looked for.
"""

import asyncio
import selectors
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar

from tenacity import wait_none

from quart_app.acs.interface import AcsError, AcsThrottled, AcsToken, AcsUnavailable, TokenRequest
from quart_app.identities import IdentityError, IdentityService, MappedIdentityGone, TokenCache
from quart_app.identities.reconciler import ReconcilerOptions
from storage.guarded import GuardedStore
from storage.mapping import (
    IdentityMapping,
    MappingPage,
    MappingStore,
    StoreError,
    StoreThrottled,
    StoreUnavailable,
    UnreadableMapping,
    UserKey,
)
from tests.support.memory_acs import MemoryAcsClient
from tests.support.memory_store import MemoryMappingStore
from upstream.retrying import RetryPolicy

T = TypeVar("T")

USER = UserKey("tenant", "alice")
_NOW = datetime(2026, 1, 1, tzinfo=UTC)
_SETTLING_ROUNDS = 20

DONE = "done"
READ_FATES = (DONE, "unavailable")
WRITE_FATES = (DONE, "refused", "unavailable", "lost answer", "late", "crash before", "crash after", "crash, late")
"""What may become of a write: done; refused, so not done; no answer and not done, done, or done only later; and the end
of the process before it was done, after it, or with the write still to come."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """What the processes are asked for, written `mapped: create,token | delete+token`.

    First the user's mapping at the beginning: `absent`, `mapped` or `marked`. Then each process's requests, `,` for one
    after another and `+` for at the same time. Where `sign-out` is one, each process keeps tokens.
    """

    text: str

    @property
    def initial(self) -> str:
        return self.text.partition(":")[0]

    @property
    def processes(self) -> list[list[list[str]]]:
        """The requests: by process, by lane, in order."""
        return [
            [lane.strip().split(",") for lane in process.split("+")]
            for process in self.text.partition(":")[2].split("|")
        ]

    @property
    def deletes(self) -> bool:
        return "delete" in self.text or self.initial == "marked"

    @property
    def creates(self) -> bool:
        return "create" in self.text

    @property
    def resolves(self) -> bool:
        return "resolve" in self.text

    @property
    def signs_out(self) -> bool:
        """Then processes keep tokens as well."""
        return "sign-out" in self.text


@dataclass(frozen=True, slots=True)
class Bounds:
    """How often in one run a call may end otherwise than well, a process may crash, and a reconciler wake early."""

    faults: int = 1
    crashes: int = 1
    wakes: int = 1


@dataclass(frozen=True, slots=True)
class Subject:
    """What is explored: the service's class, and how the shared store is made."""

    service: type[IdentityService] = IdentityService
    store: Callable[[], MappingStore] = lambda: MemoryMappingStore(now=lambda: _NOW)
    retries: int = 2


@dataclass(frozen=True, slots=True)
class Violation:
    """What was broken, and the decisions that led there: as numbers to repeat them, and in words."""

    what: str
    scenario: Scenario
    schedule: tuple[int, ...]
    told: tuple[str, ...]

    def __str__(self) -> str:
        steps = "\n".join(f"  {number:>2}. {line}" for number, line in enumerate(self.told, 1))
        return f"{self.what}\n  {self.scenario.text}\n{steps}\n  schedule {'.'.join(map(str, self.schedule))}"


@dataclass(slots=True)
class Explored:
    """How far an exploration came. `complete` says that nothing is left within the bounds."""

    runs: int = 0
    states: int = 0
    deepest: int = 0
    complete: bool = True
    violation: Violation | None = None


def explore(
    scenario: Scenario, bounds: Bounds, subject: Subject | None = None, *, at_most: int = 1_000_000
) -> Explored:
    """Every run of `scenario` within `bounds`, or the first `at_most`, until one breaks the rule."""
    explored = Explored()
    seen: set[int] = set()
    left: list[tuple[int, ...]] = [()]
    while left:
        if explored.runs >= at_most:
            explored.complete = False
            break
        prefix = left.pop()
        run = _Run(scenario, bounds, subject or Subject(), prefix, seen)
        what = run.play()
        explored.runs += 1
        explored.deepest = max(explored.deepest, len(run.decisions))
        if what is not None:
            explored.violation = Violation(what, scenario, tuple(run.decisions), tuple(run.told))
            break
        for position in range(len(run.decisions) - 1, len(prefix) - 1, -1):
            before = tuple(run.decisions[:position])
            left.extend((*before, other) for other in range(run.widths[position] - 1, 0, -1))
    explored.states = len(seen)
    return explored


def replay(
    scenario: Scenario, bounds: Bounds, schedule: tuple[int, ...], subject: Subject | None = None
) -> Violation | None:
    """The run that `schedule` leads through, which names what it breaks; the first decision is taken after its end."""
    run = _Run(scenario, bounds, subject or Subject(), schedule, None)
    what = run.play()
    return Violation(what, scenario, tuple(run.decisions), tuple(run.told)) if what is not None else None


class Broken(Exception):
    """The rule does not hold."""


class _Pruned(Exception):
    """Another run was in this state already."""


@dataclass(eq=False, slots=True)
class _Point:
    """A call that waits for its turn; `fates` is what may become of it."""

    process: "_Process"
    port: "_Port"
    name: str
    number: int
    fates: tuple[str, ...]
    chosen: asyncio.Future[str]


@dataclass(eq=False, slots=True)
class _Late:
    """A write whose caller has gone on without an answer."""

    name: str
    work: Callable[[], Awaitable[object]]
    still_counts: Callable[[], bool]


@dataclass(frozen=True, slots=True)
class _Option:
    told: str
    take: Callable[[], None]


@dataclass(eq=False, slots=True)
class _Port:
    """One life of a process: a crash ends it, and nothing that it still waits for is ever answered."""

    dead: bool = False


class _Process:
    def __init__(self, run: "_Run", number: int) -> None:
        self.run = run
        self.name = f"p{number}"
        self.minted = 0
        self.calls = 0
        self.history = 0
        self.start()

    def start(self) -> None:
        self.port = _Port()
        self.crashed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        options = ReconcilerOptions(sleep=self.sleep(self.port), attempts=_SETTLING_ROUNDS)
        self.service = self.run.subject.service(
            GuardedStore(_PortStore(self, self.port), RetryPolicy(attempts=1)),
            _PortAcs(self, self.port),
            timer=lambda: 0.0,
            token_cache=TokenCache(1.0, timer=lambda: 0.0) if self.run.scenario.signs_out else None,
            now=lambda: _NOW,
            retry=RetryPolicy(attempts=self.run.subject.retries, back_off=wait_none(), sleep=_no_wait),
            reconciler=options,
        )

    def sleep(self, port: _Port) -> Callable[[float], Awaitable[None]]:
        async def sleep(seconds: float) -> None:
            await self.run.point(self, port, "the reconciler wakes", ("wake",))

        return sleep

    def crash(self) -> None:
        """End it where it stands and start another: what only it knew is lost."""
        # A crash between the repeated write of an identity that was deleted meanwhile, and the look that would undo it.
        self.run.excused |= {
            minted.acs_user_id for minted in self.service._pending.values() if minted.in_doubt
        } - self.run.acs.live
        self.run.lost |= {minted.acs_user_id for minted in self.service._pending.values()} | self.service._orphans
        self.run.kept.append(self.service)
        self.port.dead = True
        crashed = self.crashed
        self.start()
        crashed.set_result(None)

    def saw(self, event: object) -> None:
        self.history = hash((self.history, repr(event)))


class _PortStore:
    """One life's way to the shared store."""

    def __init__(self, process: _Process, port: _Port) -> None:
        self._process = process
        self._port = port

    async def get(self, user: UserKey) -> IdentityMapping | None:
        return await self._call("read", lambda store: store.get(user), READ_FATES)

    async def create(self, user: UserKey, acs_user_id: str, created_at: datetime | None = None) -> IdentityMapping:
        removals = self._process.run.removals
        return await self._call(
            f"create mapping to {_short(acs_user_id)}",
            lambda store: store.create(user, acs_user_id, created_at),
            WRITE_FATES,
            lambda: self._process.run.removals == removals,
        )

    async def change(
        self, mapping: IdentityMapping, *, deleting: bool | None = None, signed_out_at: datetime | None = None
    ) -> IdentityMapping:
        async def change(store: MappingStore) -> IdentityMapping:
            changed = await store.change(mapping, deleting=deleting, signed_out_at=signed_out_at)
            if changed.deleting:
                self._process.run.leaving.add(changed.acs_user_id)
            return changed

        return await self._call(f"mark mapping to {_short(mapping.acs_user_id)}", change, WRITE_FATES)

    async def remove(self, stored: IdentityMapping | UnreadableMapping) -> None:
        async def remove(store: MappingStore) -> None:
            await store.remove(stored)
            self._process.run.removals += 1

        await self._call(f"remove mapping to {_short(stored.acs_user_id or '')}", remove, WRITE_FATES)

    def mappings(self) -> AsyncIterator[IdentityMapping | UnreadableMapping]:
        raise NotImplementedError

    async def page(self, name: str | None) -> MappingPage:
        raise NotImplementedError

    async def ping(self) -> None:
        raise NotImplementedError

    async def aclose(self) -> None:
        pass

    async def _call(
        self,
        name: str,
        work: Callable[[MappingStore], Awaitable[T]],
        fates: tuple[str, ...],
        still_counts: Callable[[], bool] = lambda: True,
    ) -> T:
        run = self._process.run
        return await run.call(
            self._process,
            self._port,
            name,
            fates,
            lambda: work(run.store),
            (StoreThrottled(), StoreUnavailable()),
            still_counts,
        )


class _PortAcs:
    """One life's way to ACS."""

    def __init__(self, process: _Process, port: _Port) -> None:
        self._process = process
        self._port = port

    async def create_identity(self) -> str:
        minted = await self._call("mint", self._process.run.acs.create_identity, WRITE_FATES)
        self._process.run.known.add(minted)
        return minted

    async def delete_identity(self, acs_user_id: str) -> None:
        await self._call(
            f"delete {_short(acs_user_id)}", lambda: self._process.run.acs.delete_identity(acs_user_id), WRITE_FATES
        )

    async def issue_token(self, acs_user_id: str, request: TokenRequest | None = None) -> AcsToken:
        async def issue() -> AcsToken:
            token = await self._process.run.acs.issue_token(acs_user_id, request)
            self._process.run.issued.add(token.token)
            return token

        return await self._call(f"issue token for {_short(acs_user_id)}", issue, READ_FATES)

    async def revoke_tokens(self, acs_user_id: str) -> None:
        await self._call(
            f"revoke tokens of {_short(acs_user_id)}",
            lambda: self._process.run.acs.revoke_tokens(acs_user_id),
            WRITE_FATES,
        )

    async def exchange_teams_token(self, teams_token: str, client_id: str, user_object_id: str) -> AcsToken:
        raise NotImplementedError

    async def aclose(self) -> None:
        pass

    async def _call(self, name: str, work: Callable[[], Awaitable[T]], fates: tuple[str, ...]) -> T:
        return await self._process.run.call(
            self._process, self._port, name, fates, work, (AcsThrottled(), AcsUnavailable()), lambda: True
        )


@dataclass(slots=True)
class _Told:
    """What requests were answered."""

    identities: list[str] = field(default_factory=list)
    created: int = 0
    deleted: int = 0
    gone: int = 0


class _Run:
    """One run: follows `prefix`, then takes the first option each time; gives up in a state of `seen`."""

    def __init__(
        self, scenario: Scenario, bounds: Bounds, subject: Subject, prefix: tuple[int, ...], seen: set[int] | None
    ) -> None:
        self.scenario = scenario
        self.subject = subject
        self.decisions: list[int] = []
        self.widths: list[int] = []
        self.told: list[str] = []
        self.known: set[str] = set()
        self.lost: set[str] = set()
        self.excused: set[str] = set()
        self.issued: set[str] = set()
        self.ended: set[str] = set()  # tokens that were revoked when a sign-out was answered
        self.removals = 0
        self.leaving: set[str] = set()  # identities whose deletion has begun
        self.kept: list[object] = []  # what a crash leaves must not be collected in the middle of a run
        self._left = {"faults": bounds.faults, "crashes": bounds.crashes, "wakes": bounds.wakes}
        self._bounds = bounds
        self._prefix = prefix
        self._seen = seen
        self._waiting: list[_Point] = []
        self._late: list[_Late] = []
        self._late_tasks: set[asyncio.Task[None]] = set()
        self._answers = _Told()
        self._calm = True
        self._over = False
        self._marks_late = False
        self._idle: asyncio.Future[None] | None = None

    def play(self) -> str | None:
        """What it breaks, or `None`."""
        with asyncio.Runner(loop_factory=lambda: _SteppedLoop(self)) as runner:
            self.acs = MemoryAcsClient()
            self.store = self.subject.store()
            try:
                runner.run(self._main())
            except _Pruned:
                return None
            except Broken as broken:
                return str(broken)
            return None

    async def point(self, process: _Process, port: _Port, name: str, fates: tuple[str, ...]) -> str:
        if self._over:
            raise asyncio.CancelledError
        if self._calm:
            return fates[0]
        process.calls += 1
        chosen: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Point(process, port, name, process.calls, fates, chosen))
        return await chosen

    async def call(
        self,
        process: _Process,
        port: _Port,
        name: str,
        fates: tuple[str, ...],
        work: Callable[[], Awaitable[T]],
        errors: tuple[Exception, Exception],
        still_counts: Callable[[], bool],
    ) -> T:
        """Wait for the turn, then suffer the fate."""
        fate = await self.point(process, port, name, fates)
        refused, unavailable = errors
        crashes = fate.startswith("crash")
        if fate == "refused":
            raise refused
        if fate in ("late", "crash, late"):
            self._marks_late |= name.startswith("mark")
            self._late.append(_Late(f"{process.name}'s {name}", work, still_counts))
        if fate in ("lost answer", "crash after"):
            with suppress(StoreError, AcsError):
                await work()
        if crashes:
            process.crash()
            await asyncio.get_running_loop().create_future()  # for ever: the process is gone
        if fate not in (DONE, "wake"):
            process.saw(fate)
            raise unavailable
        try:
            result = await work()
        except (StoreError, AcsError) as error:
            process.saw((type(error).__name__, _seen_of(getattr(error, "existing", None))))
            raise
        is_kept = isinstance(result, AcsToken) and self.scenario.signs_out
        process.saw(result.token if is_kept else _seen_of(result))  # type: ignore[attr-defined]
        return result

    def on_idle(self) -> bool:
        """Nothing else can run: decide. False when there is nothing to decide either."""
        if self._idle is None or self._idle.done():
            return False
        options = [] if self._calm else self._options()
        if not options:
            self._idle.set_result(None)
            return True
        position = len(self.decisions)
        if position >= len(self._prefix) and self._seen is not None:
            state = self._state()
            if state in self._seen:
                self._idle.set_exception(_Pruned())
                return True
            self._seen.add(state)
        decision = self._prefix[position] if position < len(self._prefix) else 0
        self.decisions.append(decision)
        self.widths.append(len(options))
        option = options[decision]
        self.told.append(option.told)
        option.take()
        return True

    def _options(self) -> list[_Option]:
        self._waiting = [point for point in self._waiting if not point.port.dead and not point.chosen.done()]
        options = [self._option(point, fate) for point in self._waiting for fate in point.fates if self._allowed(fate)]
        late = [_Option(f"{late.name} is carried out", partial(self._carry_out, late)) for late in self._late]
        return [*options, *late]

    def _allowed(self, fate: str) -> bool:
        if fate == DONE:
            return True
        return self._left[_budget(fate)] > 0

    def _option(self, point: _Point, fate: str) -> _Option:
        def take() -> None:
            if fate != DONE:
                self._left[_budget(fate)] -= 1
            point.process.saw((point.name, point.number, fate))
            point.chosen.set_result(fate)

        told = f"{point.process.name}: {point.name}" + ("" if fate in (DONE, "wake") else f": {fate}")
        return _Option(told, take)

    def _carry_out(self, late: _Late) -> None:
        async def carry_out() -> None:
            with suppress(StoreError, AcsError):
                await late.work()

        self._late.remove(late)
        if late.still_counts():
            self._late_tasks.add(asyncio.get_running_loop().create_task(carry_out()))

    def _state(self) -> int:
        """What decides all that can follow; equal for runs that differ only in the order of independent calls."""
        return hash(
            (
                _seen_of(_stored(self.store)),
                frozenset(self.acs.live),
                len(self.acs.minted),
                frozenset(self.known),
                frozenset(self.lost),
                frozenset(self.excused),
                self.removals,
                tuple(process.history for process in self._processes),
                tuple(sorted((late.name, late.still_counts()) for late in self._late)),
                tuple(self._left.values()),
                frozenset(self.ended),
                frozenset(self.leaving) if self.scenario.resolves else None,
                frozenset(self._good_tokens()) if self.scenario.signs_out else None,
                tuple(self._answers.identities),
                self._answers.created,
                self._answers.deleted,
                self._answers.gone,
            )
        )

    async def _main(self) -> None:
        try:
            await self._play()
        finally:
            self._over = True
            while left := asyncio.all_tasks() - {asyncio.current_task()}:
                for task in left:
                    task.cancel()
                await asyncio.wait(left)

    async def _play(self) -> None:
        self._processes = [_Process(self, number) for number in range(len(self.scenario.processes))]
        await self._begin()
        self._calm = False
        lanes = [
            asyncio.create_task(self._lane(process, requests))
            for process, given in zip(self._processes, self.scenario.processes, strict=True)
            for requests in given
        ]
        await self._until_idle()
        assert all(lane.done() for lane in lanes)
        for lane in lanes:
            lane.result()
        await self._settle()
        await self._check()

    async def _begin(self) -> None:
        if self.scenario.initial == "absent":
            return
        await self._processes[0].service.get_or_create(USER)
        for process in self._processes:
            await process.service.issue_token(USER)
        if self.scenario.initial == "marked":
            mapping = await self.store.get(USER)
            assert mapping is not None
            await self.store.change(mapping, deleting=True)
            self.leaving.add(mapping.acs_user_id)

    async def _lane(self, process: _Process, requests: list[str]) -> None:
        for request in requests:
            await self.point(process, _Port(), f"{request} begins", (DONE,))
            crashed = process.crashed
            task = asyncio.create_task(self._request(process, request))
            self.kept.append(task)
            await asyncio.wait({task, crashed}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                task.result()

    async def _request(self, process: _Process, request: str) -> None:
        service = process.service
        with suppress(StoreError, AcsError, IdentityError):
            if request == "create":
                identity = await service.get_or_create(USER)
                self._answers.identities.append(identity.acs_user_id)
                self._answers.created += identity.created
            elif request == "delete":
                await service.delete(USER)
                self._answers.deleted += 1
            elif request == "sign-out":
                await self._or_gone(service.sign_out(USER))
                self.ended |= self.issued - self._good_tokens()
            elif request == "token":
                ended = frozenset(self.ended)
                issued = await self._or_gone(service.issue_token(USER))
                self._answers.identities.append(issued.acs_user_id)
                if issued.token.token in ended:
                    raise Broken("A token from before a sign-out was answered after it.")
            elif request == "resolve":
                leaving = frozenset(self.leaving)
                process.saw(sorted(leaving))
                told = (await service.resolve(USER.issuer, [USER.subject])).values()
                self._answers.identities.extend(told)
                if leaving & set(told):
                    raise Broken("A colleague was told an identity whose deletion had begun.")

    async def _or_gone(self, call: Awaitable[T]) -> T:
        try:
            return await call
        except MappedIdentityGone:
            self._answers.gone += 1
            raise

    def _good_tokens(self) -> set[str]:
        return {token for tokens in self.acs.good_tokens.values() for token in tokens}

    async def _until_idle(self) -> None:
        self._idle = asyncio.get_running_loop().create_future()
        await self._idle

    async def _settle(self) -> None:
        """All goes well from here on, and the background work comes to rest."""
        self._calm = True
        for point in self._waiting:
            if not point.port.dead and not point.chosen.done():
                point.chosen.set_result(point.fates[0])
        await self._until_idle()

    async def _check(self) -> None:
        faultless = self._left["faults"] == self._bounds.faults and not self._crashed()
        if faultless and self._answers.gone:
            raise Broken("Without any fault, a caller was told that the identity is gone.")
        if not self.scenario.deletes:
            if len(set(self._answers.identities)) > 1:
                raise Broken("A user who never left was told two identities.")
            if self._answers.created > 1:
                raise Broken("One identity was told to be new twice.")
        await self._check_kept_tokens()
        mapping = await self.store.get(USER)
        if self._answers.deleted and not self.scenario.creates and mapping is not None:
            raise Broken("A deletion was answered, and the mapping is still there.")
        if mapping is not None and mapping.acs_user_id in self.excused:
            return  # its caller is told, and what heals it
        if mapping is not None and not mapping.deleting and mapping.acs_user_id not in self.acs.live:
            raise Broken("Settled, the mapping points to a deleted identity.")
        left_to_the_next_call = self.scenario.initial == "marked" or self._marks_late or self._crashed()
        if mapping is not None and mapping.deleting and not left_to_the_next_call:
            raise Broken("Settled, a deletion is not finished although no process crashed.")
        self._require_live({mapping.acs_user_id} if mapping is not None else set(), "Settled, without another request")
        for process in self._processes:
            if await process.service.reconcile():
                raise Broken("Settled, a process says that something is left open.")
        identity = await self._processes[-1].service.get_or_create(USER)
        for process in self._processes:
            try:
                found, issued = await process.service.find(USER), await process.service.issue_token(USER)
                resolved = await process.service.resolve(USER.issuer, [USER.subject])
            except IdentityError as error:
                raise Broken(f"After a creation, {process.name} is told {type(error).__name__}.") from error
            if {found, issued.acs_user_id, *resolved.values()} != {identity.acs_user_id} or not resolved:
                raise Broken("After a creation, processes tell different identities.")
        if identity.acs_user_id not in self.acs.live:
            raise Broken("After a creation, the identity is not live.")
        self._require_live({identity.acs_user_id}, "After a creation")
        await self._processes[0].service.delete(USER)
        if await self.store.get(USER) is not None:
            raise Broken("After a deletion, a mapping is left.")
        for process in self._processes:
            if await process.service.resolve(USER.issuer, [USER.subject]):
                raise Broken(f"After a deletion, {process.name} tells a colleague the identity.")
        self._require_live(set(), "After a deletion")

    async def _check_kept_tokens(self) -> None:
        for process in self._processes if self.scenario.signs_out else ():
            with suppress(IdentityError):
                if (await process.service.issue_token(USER)).token.token in self.ended:
                    raise Broken(f"Settled, {process.name} answers a token from before a sign-out.")

    def _crashed(self) -> bool:
        return self._left["crashes"] < self._bounds.crashes

    def _require_live(self, allowed: set[str], when: str) -> None:
        surplus = (self.acs.live & self.known) - self.lost - allowed
        if surplus:
            raise Broken(f"{when}, {len(surplus)} live identities are not mapped.")


class _SteppedLoop(asyncio.SelectorEventLoop):
    """An event loop that asks `run` what is next when nothing is ready. Its time stands still."""

    def __init__(self, run: _Run) -> None:
        super().__init__(_Selector(run))

    def time(self) -> float:
        return 0.0


class _Selector(selectors.DefaultSelector):
    def __init__(self, run: _Run) -> None:
        super().__init__()
        self._run = run

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout == 0 or self._run.on_idle():
            return []
        return super().select(1.0)  # another thread is at work


def _budget(fate: str) -> str:
    if fate == "wake":
        return "wakes"
    return "crashes" if fate.startswith("crash") else "faults"


def _stored(store: MappingStore) -> IdentityMapping | None:
    assert isinstance(store, MemoryMappingStore)
    return store.stored.get(USER)


def _seen_of(result: Any) -> object:
    if isinstance(result, IdentityMapping):
        return result.acs_user_id, result.deleting, result.version
    return result


def _short(acs_user_id: str) -> str:
    return "#" + acs_user_id.rpartition("_")[2]


async def _no_wait(seconds: float) -> None:
    pass
