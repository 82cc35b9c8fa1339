"""Time as the stand-ins see it; tests pass their own."""

from collections.abc import Callable

Clock = Callable[[], float]
"""Returns seconds since the epoch."""
