"""Measuring: how long each call of an upstream took and how it ended."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import aiohttp

from upstream.errors import UpstreamError

Measure = Callable[[str], AbstractContextManager[object]]
"""Gives the context in which the named operation is carried out. It sees the error that leaves it and lets it pass."""


def unmeasured(operation: str) -> AbstractContextManager[None]:
    """The `Measure` that does nothing."""
    return nullcontext()


def outcome_of(error: BaseException) -> str:
    """How a call that raised `error` ended: see `UpstreamError.outcome`, or `cancelled` when the service gave it up."""
    if isinstance(error, UpstreamError):
        return error.outcome
    if isinstance(error, TimeoutError | aiohttp.ClientError):
        return "unavailable"
    return "error" if isinstance(error, Exception) else "cancelled"
