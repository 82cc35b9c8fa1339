"""A working ACS in memory, with scripted faults, for tests of what stands on it."""

import asyncio
import itertools
from collections import Counter, defaultdict, deque
from collections.abc import Callable
from typing import TypeVar

from quart_app.acs.interface import AcsToken, IdentityGone, IdentityNotOwned
from tests.support.acs_ids import acs_id
from tests.support.scripted import FailAfter, FailBefore, Fault, Gate, Hang

T = TypeVar("T")


class MemoryAcsClient:
    """Fulfils `AcsClient`. Every call first yields to the event loop, so that concurrent callers interleave.

    `minted` holds every id in order, `live` those not deleted. `counts` says how often each method was called. Faults
    are those of `tests.support.scripted`, by method name, used up in the order in which they were scripted.
    """

    def __init__(self) -> None:
        self.minted: list[str] = []
        self.live: set[str] = set()
        self.counts: Counter[str] = Counter()
        self.closed = False
        self._numbers = itertools.count(1)
        self._scripted: dict[str, deque[tuple[Fault, int | None]]] = defaultdict(deque)

    def script(self, operation: str, fault: Fault, times: int | None = 1) -> None:
        """Let the next `times` calls of `operation` suffer `fault`; `None` is until `clear`."""
        self._scripted[operation].append((fault, times))

    def clear(self) -> None:
        """Forget the faults that are left."""
        self._scripted.clear()

    async def create_identity(self) -> str:
        def mint() -> str:
            acs_user_id = acs_id(f"own_{next(self._numbers)}")
            self.minted.append(acs_user_id)
            self.live.add(acs_user_id)
            return acs_user_id

        return await self._call("create_identity", mint)

    async def delete_identity(self, acs_user_id: str) -> None:
        def delete() -> None:
            _require_own(acs_user_id)
            self.live.discard(acs_user_id)

        await self._call("delete_identity", delete)

    async def issue_token(self, acs_user_id: str) -> AcsToken:
        def issue() -> AcsToken:
            _require_own(acs_user_id)
            if acs_user_id not in self.live:
                raise IdentityGone
            return AcsToken(f"token of {acs_user_id}", "2026-11-23T00:00:00.0000000+00:00")

        return await self._call("issue_token", issue)

    async def exchange_teams_token(self, teams_token: str, client_id: str, user_object_id: str) -> AcsToken:
        return await self._call(
            "exchange_teams_token", lambda: AcsToken("token of a Teams user", "2026-11-23T00:00:00.0000000+00:00")
        )

    async def aclose(self) -> None:
        self.closed = True

    async def _call(self, operation: str, work: Callable[[], T]) -> T:
        self.counts[operation] += 1
        await asyncio.sleep(0)
        match self._next(operation):
            case FailBefore(error):
                raise error
            case FailAfter(error):
                work()
                raise error
            case Hang(after):
                if after:
                    work()
                await asyncio.Event().wait()
            case Gate(after=True) as gate:
                result = work()
                await _pass(gate)
                return result
            case Gate() as gate:
                await _pass(gate)
        return work()

    def _next(self, operation: str) -> Fault | None:
        queue = self._scripted.get(operation)
        if not queue:
            return None
        fault, left = queue.popleft()
        if left is None:
            queue.appendleft((fault, None))
        elif left > 1:
            queue.appendleft((fault, left - 1))
        return fault


async def _pass(gate: Gate) -> None:
    gate.reached.set()
    await gate.opened.wait()


def _require_own(acs_user_id: str) -> None:
    if not acs_user_id.startswith(acs_id("own_")):
        raise IdentityNotOwned
