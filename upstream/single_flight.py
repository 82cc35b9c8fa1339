"""Single flight: callers who want the same thing at the same time share one piece of work."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Iterator
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class SingleFlight(Generic[K, T]):
    """One piece of work per key at a time. It goes on when those who wait for it are cancelled."""

    def __init__(self) -> None:
        self._flights: dict[K, asyncio.Task[T]] = {}

    def __len__(self) -> int:
        """How many are in progress."""
        return len(self._flights)

    def __contains__(self, key: object) -> bool:
        """Whether one is in progress for `key`."""
        return key in self._flights

    def __iter__(self) -> Iterator[K]:
        """The keys of those in progress."""
        return iter(tuple(self._flights))

    def join(self, key: K, work: Callable[[], Awaitable[T]]) -> tuple[asyncio.Task[T], bool]:
        """The flight for `key`, and whether this call began it, by `work`.

        It ends, and the next call begins another, in the very step in which `work` returns or raises.
        """
        flight = self._flights.get(key)
        if flight is not None:
            return flight, False

        async def fly() -> T:
            try:
                return await work()
            finally:
                self._land(key)

        flight = self._flights[key] = asyncio.create_task(fly())
        flight.add_done_callback(lambda done: self._retrieve(key, done))
        return flight, True

    async def do(self, key: K, work: Callable[[], Awaitable[T]]) -> T:
        """The result or the error of the flight for `key`, which this call begins if there is none."""
        flight, _ = self.join(key, work)
        return await asyncio.shield(flight)

    def cancel(self) -> None:
        """End every flight as soon as it lets itself be ended."""
        for flight in self._flights.values():
            flight.cancel()

    async def aclose(self, seconds: float = 0.0) -> int:
        """Wait for the flights, for `seconds` at most, and end those that are left: so many are returned."""
        flights = set(self._flights.values())
        if flights and seconds:
            await asyncio.wait(flights, timeout=seconds)
        cut = sum(not flight.done() for flight in flights)
        self.cancel()
        if flights:
            await asyncio.wait(flights)
        return cut

    def _land(self, key: K) -> None:
        self._flights.pop(key, None)

    def _retrieve(self, key: K, done: asyncio.Task[T]) -> None:
        if self._flights.get(key) is done:  # it was cancelled before its first step
            self._land(key)
        if not done.cancelled():
            done.exception()  # seen, even if nobody waits any more
