"""Iteration over a store page by page that survives a failed page."""

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from typing import Generic, TypeVar

Item = TypeVar("Item")
Continuation = TypeVar("Continuation")


class Paged(AsyncIterator[Item], Generic[Item, Continuation]):
    """Items of all pages, one page in memory at a time.

    `read_page(continuation)` returns a page's items and the continuation of the next page; `None` stands for the first
    page and for no further page. When it raises, nothing is lost: the next `anext` reads the same page again. (An async
    generator would be finished by then, and the listing would look complete.)
    """

    def __init__(
        self, read_page: Callable[[Continuation | None], Awaitable[tuple[Iterable[Item], Continuation | None]]]
    ) -> None:
        self._read_page = read_page
        self._items: deque[Item] = deque()
        self._continuation: Continuation | None = None
        self._finished = False

    async def __anext__(self) -> Item:
        while not self._items:
            if self._finished:
                raise StopAsyncIteration
            items, self._continuation = await self._read_page(self._continuation)
            self._items.extend(items)
            self._finished = self._continuation is None
        return self._items.popleft()
