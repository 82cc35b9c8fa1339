"""Scripted faults: what a stand-in does instead of, before or after its normal answer; and a journal of calls."""

import asyncio
import json
from collections import Counter, defaultdict, deque
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from multidict import CIMultiDict

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

UNKNOWN = "unknown"
"""The operation of a request that no route takes."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault. Parts combine: `delay` (seconds) and `until` are waited first, then at most one of the others happens.
    Only `hang` and `drop_answer` go together: do the operation, commit it, then never answer.

    until         an event of a test in the same process
    status        answer with this status, `headers` and `body` instead of the operation; nothing of the stand-in's own
                  answer is left
    body          bytes or text as they are; anything else as JSON, `None` as `{}` (the JSON value null is the text
                  "null")
    content_type  of the body: that of its kind unless given, "" for an answer without any `Content-Type`
    reset         reset the connection before doing anything
    hang          never answer (until the stand-in closes)
    drop_answer   do the operation, commit it, then reset the connection instead of answering
    times         for how many calls it holds; `None` is until cleared
    """

    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    body: Any = None
    content_type: str | None = None
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


class UnknownOperation(Exception):
    """No operation has this name; the message lists those that there are."""


class Faults:
    """The faults scripted for one stand-in, by operation, and its journal.

    An operation is a route's name, `UNKNOWN`, or `*` for every one.
    Faults of one operation are used up in the order in which they were scripted. `operations` gives the names that
    exist, once there is an application. `counts` says how often each operation was called, `committed` how often one
    was carried out whose answer is kept back.
    """

    def __init__(self) -> None:
        self.operations: Callable[[], Collection[str]] | None = None
        self._scripted: dict[str, deque[list[Any]]] = defaultdict(deque)  # [fault, uses left]
        self._closing = asyncio.Event()
        self._called = asyncio.Event()
        self.calls: deque[Call] = deque(maxlen=10_000)
        self.counts: Counter[str] = Counter()
        self.committed: Counter[str] = Counter()

    def script(self, operation: str, *faults: Fault) -> None:
        """Add faults for the next calls of `operation`. Raises `UnknownOperation`: that fault would never happen."""
        if self.operations is not None and operation not in (known := self.operations()):
            raise UnknownOperation(f"No operation is named {operation}; known are {', '.join(known)}.")
        self._scripted[operation].extend([fault, fault.times] for fault in faults)

    def holds(self, operation: str, fault: Fault) -> bool:
        """Whether this very fault is scripted for `operation` and not used up."""
        return any(each is fault for each, _ in self._scripted.get(operation, ()))

    def withdraw(self, operation: str, fault: Fault) -> None:
        """Forget this very fault, if it is scripted; the others stay."""
        kept = [entry for entry in self._scripted.get(operation, ()) if entry[0] is not fault]
        self._scripted[operation] = deque(kept)

    def clear(self) -> None:
        """Forget every scripted fault; the journal stays."""
        self._scripted.clear()

    async def arrived(self, operation: str, count: int = 1) -> None:
        """Return when `operation` has been called `count` times since the start."""
        while self.counts[operation] < count:
            self._called.clear()
            await self._called.wait()

    async def kept_back(self, operation: str, count: int = 1) -> None:
        """Return when so many calls of `operation` have been carried out since the start without being answered."""
        while self.committed[operation] < count:
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
            operation = request.match_info.route.name or UNKNOWN
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
        if fault.drop_answer:
            await handler(request)
            self.committed[request.match_info.route.name or UNKNOWN] += 1
            self._called.set()
        if fault.hang:
            await self._closing.wait()
        if fault.reset or fault.hang or fault.drop_answer:
            return _reset(request)
        if fault.status is not None:
            return _answer(fault, fault.status)
        return await handler(request)


async def without_content_type(_: web.Request, response: web.StreamResponse) -> None:
    """Signal handler (`on_response_prepare`): aiohttp gives every body a `Content-Type`, but some faults have none."""
    if isinstance(response, _WithoutContentType):
        response.headers.pop("Content-Type", None)


class _WithoutContentType(web.Response):
    """The answer of a fault that names no content type."""


def _answer(fault: Fault, status: int) -> web.Response:
    content, usual_type = _content(fault.body)
    if fault.content_type == "":
        return _WithoutContentType(status=status, headers=fault.headers, body=content)
    headers = CIMultiDict(fault.headers)
    headers.setdefault("Content-Type", fault.content_type or usual_type)
    return web.Response(status=status, headers=headers, body=content)


def _content(body: Any) -> tuple[bytes, str]:
    """What a fault's body is on the wire, and the content type of its kind."""
    if isinstance(body, bytes):
        return body, "application/octet-stream"
    if isinstance(body, str):
        return body.encode(), "text/plain; charset=utf-8"
    return json.dumps({} if body is None else body).encode(), "application/json; charset=utf-8"


def _reset(request: web.Request) -> web.StreamResponse:
    transport = request.transport
    if transport is not None:
        transport.abort()
    return web.Response(status=500)
