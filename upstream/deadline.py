"""The request's deadline: a point in event-loop time that every call made for the request must keep.

It travels in a context variable, so tasks started for the request inherit it and no signature has to carry it.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

T = TypeVar("T")


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Give everything inside `seconds` from now, or what an outer deadline leaves if that is less.

    Needs a running event loop, whose `time()` is the clock. It does not interrupt anything: callers ask
    `remaining` or use `bounded`.
    """
    expires_at = asyncio.get_running_loop().time() + seconds
    outer = _expires_at.get()
    reset = _expires_at.set(expires_at if outer is None else min(outer, expires_at))
    try:
        yield
    finally:
        _expires_at.reset(reset)


@contextmanager
def own_deadline(seconds: float) -> Iterator[None]:
    """Give everything inside `seconds` from now, whatever an outer deadline leaves: for work that outlives callers."""
    reset = _expires_at.set(asyncio.get_running_loop().time() + seconds)
    try:
        yield
    finally:
        _expires_at.reset(reset)


def remaining() -> float | None:
    """Seconds until the deadline, zero or negative when it has passed; `None` when there is none."""
    expires_at = _expires_at.get()
    return None if expires_at is None else expires_at - asyncio.get_running_loop().time()


async def bounded(operation: Callable[[], Awaitable[T]], too_late: Callable[[bool], Exception]) -> T:
    """Do `operation`, until the deadline at most.

    At the deadline, raises `too_late(begun)`: `begun` is false when it had passed already and nothing was done.
    """
    seconds = remaining()
    if seconds is not None and seconds <= 0:
        raise too_late(False)
    scope = asyncio.timeout_at(_expires_at.get())
    try:
        async with scope:
            return await operation()
    except TimeoutError as error:
        if scope.expired():
            raise too_late(True) from error
        raise


_expires_at: ContextVar[float | None] = ContextVar("deadline", default=None)
