"""Scripted faults: what a stand-in does instead of, before or after its normal answer; and a journal of calls."""

import asyncio
from collections import Counter, defaultdict, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault. Parts combine: `delay` (seconds) and `until` are waited first, then at most one of the others happens.

    until         an event of a test in the same process
    status        answer with this status, `headers` and `body` instead of the operation
    reset         reset the connection before doing anything
    hang          never answer (until the stand-in closes)
    drop_answer   do the operation, commit it, then reset the connection instead of answering
    times         for how many calls it holds; `None` is until cleared
    """

    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    body: Any = None
    delay: float = 0.0
    reset: bool = False
    hang: bool = False
    drop_answer: bool = False
    until: asyncio.Event | None = None
    times: int | None = 1


@dataclass(frozen=True, slots=True)
class Call:
    """One request as it arrived."""

    operation: str
    method: str
    path: str
    headers: dict[str, str]


class Faults:
    """The faults scripted for one stand-in, by operation (the route's name, `*` for every one), and its journal.

    Faults of one operation are used up in the order in which they were scripted.
    """

    def __init__(self) -> None:
        self._scripted: dict[str, deque[list[Any]]] = defaultdict(deque)  # [fault, uses left]
        self._closing = asyncio.Event()
        self._called = asyncio.Event()
        self.calls: deque[Call] = deque(maxlen=10_000)
        self.counts: Counter[str] = Counter()

    def script(self, operation: str, *faults: Fault) -> None:
        """Add faults for the next calls of `operation`."""
        self._scripted[operation].extend([fault, fault.times] for fault in faults)

    def clear(self) -> None:
        """Forget every scripted fault; the journal stays."""
        self._scripted.clear()

    async def arrived(self, operation: str, count: int = 1) -> None:
        """Return when `operation` has been called `count` times since the start."""
        while self.counts[operation] < count:
            self._called.clear()
            await self._called.wait()

    def release(self) -> None:
        """Let hanging calls go, so that the stand-in can close."""
        self._closing.set()

    def _next(self, operation: str) -> Fault | None:
        for name in (operation, "*"):
            queue = self._scripted.get(name)
            if queue:
                entry = queue[0]
                if entry[1] is not None:
                    entry[1] -= 1
                    if entry[1] == 0:
                        queue.popleft()
                fault: Fault = entry[0]
                return fault
        return None

    @property
    def middleware(self) -> Any:
        """The aiohttp middleware that journals every call and carries the faults out."""

        @web.middleware
        async def apply(request: web.Request, handler: Handler) -> web.StreamResponse:
            operation = request.match_info.route.name or "unknown"
            if operation.startswith("local_"):
                return await handler(request)
            self.counts[operation] += 1
            self._called.set()
            self.calls.append(Call(operation, request.method, request.raw_path, dict(request.headers)))
            fault = self._next(operation)
            if fault is None:
                return await handler(request)
            return await self._carry_out(fault, request, handler)

        return apply

    async def _carry_out(self, fault: Fault, request: web.Request, handler: Handler) -> web.StreamResponse:
        if fault.delay:
            await asyncio.sleep(fault.delay)
        if fault.until is not None:
            await fault.until.wait()
        if fault.hang:
            await self._closing.wait()
        if fault.drop_answer:
            await handler(request)
        if fault.reset or fault.hang or fault.drop_answer:
            return _reset(request)
        if fault.status is not None:
            if isinstance(fault.body, str):
                return web.Response(status=fault.status, headers=fault.headers, text=fault.body)
            return web.json_response(
                fault.body if fault.body is not None else {}, status=fault.status, headers=fault.headers
            )
        return await handler(request)


def _reset(request: web.Request) -> web.StreamResponse:
    transport = request.transport
    if transport is not None:
        transport.abort()
    return web.Response(status=500)
