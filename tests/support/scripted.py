"""Scripted faults: what fails, when, and how often is said by the test. And a working store that suffers them."""

import asyncio
from collections import Counter, defaultdict, deque
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import TypeVar

from storage.mapping import (
    IdentityMapping,
    MappingPage,
    MappingStore,
    StoreThrottled,
    StoreUnavailable,
    UnreadableMapping,
    UserKey,
)

T = TypeVar("T")


@dataclass(frozen=True)
class FailBefore:
    """Raise `error` instead of doing anything."""

    error: Exception


@dataclass(frozen=True)
class FailAfter:
    """Do it, commit it, then raise `error` instead of returning: the answer is lost."""

    error: Exception


@dataclass(frozen=True)
class Hang:
    """Never answer, until cancelled; `after` says that the work is done and committed first."""

    after: bool = False


@dataclass(frozen=True)
class Gate:
    """Hold a call until the test lets it go on, to force an interleaving; `after` holds it when its work is done.

    Usage: `script("create", gate := Gate())`, start the call as a task, `await gate.reached.wait()`, do what must come
    in between, `gate.opened.set()`.
    """

    after: bool = False
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    opened: asyncio.Event = field(default_factory=asyncio.Event)


Fault = FailBefore | FailAfter | Hang | Gate


class Scripted:
    """Something whose operations suffer the faults that a test scripts. `*` stands for any operation.

    Every call first yields to the event loop, so that concurrent callers interleave. Faults of one operation are used
    up in the order in which they were scripted; those of an operation's own name come before those of `*`. `counts`
    holds how often each operation was called.
    """

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._faults: dict[str, deque[tuple[Fault, int | None]]] = defaultdict(deque)

    def script(self, operation: str, fault: Fault, times: int | None = 1) -> None:
        """Let the next `times` calls of `operation` suffer `fault`; `None` is until `clear`."""
        self._faults[operation].append((fault, times))

    def clear(self) -> None:
        """Forget the faults that are left. The counts stay."""
        self._faults.clear()

    async def _call(self, operation: str, work: Callable[[], Awaitable[T]]) -> T:
        self.counts[operation] += 1
        await asyncio.sleep(0)
        match self._next(operation):
            case FailBefore(error):
                raise error
            case FailAfter(error):
                await work()
                raise error
            case Hang(after):
                if after:
                    await work()
                await asyncio.Event().wait()
            case Gate(after=True) as gate:
                result = await work()
                await _pass(gate)
                return result
            case Gate() as gate:
                await _pass(gate)
        return await work()

    def _next(self, operation: str) -> Fault | None:
        queue = self._faults.get(operation) or self._faults.get("*")
        if not queue:
            return None
        fault, left = queue.popleft()
        if left is None:
            queue.appendleft((fault, None))
        elif left > 1:
            queue.appendleft((fault, left - 1))
        return fault


class ScriptedStore(Scripted):
    """`inner` with faults. Operations are the method names of `MappingStore`.

    One step of an iteration is one call of `mappings`. A fault after reading keeps the item for the next step, for a
    read that failed has consumed nothing.
    """

    def __init__(self, inner: MappingStore) -> None:
        super().__init__()
        self.inner = inner

    async def get(self, user: UserKey) -> IdentityMapping | None:
        return await self._call("get", lambda: self.inner.get(user))

    async def create(self, user: UserKey, acs_user_id: str, created_at: datetime | None = None) -> IdentityMapping:
        return await self._call("create", lambda: self.inner.create(user, acs_user_id, created_at))

    async def change(
        self, mapping: IdentityMapping, *, deleting: bool | None = None, signed_out_at: datetime | None = None
    ) -> IdentityMapping:
        return await self._call(
            "change", lambda: self.inner.change(mapping, deleting=deleting, signed_out_at=signed_out_at)
        )

    async def remove(self, stored: IdentityMapping | UnreadableMapping) -> None:
        await self._call("remove", lambda: self.inner.remove(stored))

    def mappings(self) -> AsyncIterator[IdentityMapping | UnreadableMapping]:
        return _ScriptedIterator(self.inner.mappings(), self._call)

    async def page(self, name: str | None) -> MappingPage:
        return await self._call("mappings", lambda: self.inner.page(name))

    async def ping(self) -> None:
        await self._call("ping", self.inner.ping)

    async def aclose(self) -> None:
        await self.inner.aclose()


class ScriptedFaults:
    """The faults of the store contract (`contract.FaultScript`), scripted on a `ScriptedStore`."""

    def __init__(self, store: ScriptedStore) -> None:
        self._store = store

    def throttle(self, operation: str, *, retry_after: float, times: int | None = 1) -> None:
        self._store.script(operation, FailBefore(StoreThrottled(retry_after)), times)

    def fail(self, operation: str, *, times: int | None = 1) -> None:
        self._store.script(operation, FailBefore(StoreUnavailable()), times)

    def lose_answer(self, operation: str, *, times: int | None = 1) -> None:
        self._store.script(operation, FailAfter(StoreUnavailable()), times)

    def clear(self) -> None:
        self._store.clear()


async def _pass(gate: Gate) -> None:
    gate.reached.set()
    await gate.opened.wait()


Stored = IdentityMapping | UnreadableMapping


class _ScriptedIterator(AsyncIterator[Stored]):
    def __init__(
        self,
        inner: AsyncIterator[Stored],
        call: Callable[[str, Callable[[], Awaitable[Stored | None]]], Awaitable[Stored | None]],
    ) -> None:
        self._inner = inner
        self._call = call
        self._read: Stored | None = None

    async def __anext__(self) -> Stored:
        if await self._call("mappings", self._look) is None:
            raise StopAsyncIteration
        read, self._read = self._read, None
        assert read is not None
        return read

    async def _look(self) -> Stored | None:
        if self._read is None:
            self._read = await anext(self._inner, None)
        return self._read
