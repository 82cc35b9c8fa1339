"""Listings page by page: complete, and not ended by a failed page."""

import itertools
from collections.abc import Iterable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from storage.paging import Paged

# The same examples every time, however slow the machine is.
deterministic = settings(derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])


class Interrupted(Exception):
    """A page that could not be read."""


@deterministic
@given(pages=st.lists(st.lists(st.integers(), max_size=3), min_size=1, max_size=6), failures=st.sets(st.integers(0, 8)))
async def test_every_item_of_every_page_comes_once_whatever_reads_fail(
    pages: list[list[int]], failures: set[int]
) -> None:
    reads = itertools.count()

    async def read_page(continuation: int | None) -> tuple[Iterable[int], int | None]:
        if next(reads) in failures:
            raise Interrupted
        number = continuation or 0
        return pages[number], number + 1 if number + 1 < len(pages) else None

    items = Paged(read_page)
    found: list[int] = []
    interruptions = 0
    while interruptions <= len(failures):
        try:
            found.append(await anext(items))
        except Interrupted:
            interruptions += 1
        except StopAsyncIteration:
            break
    assert found == list(itertools.chain.from_iterable(pages))


async def test_a_page_is_read_only_when_it_is_needed() -> None:
    read: list[int] = []

    async def read_page(continuation: int | None) -> tuple[Iterable[int], int | None]:
        number = continuation or 0
        read.append(number)
        return [number], number + 1

    items = Paged(read_page)
    assert [await anext(items), await anext(items)] == [0, 1]
    assert read == [0, 1]


async def test_an_ended_listing_stays_ended() -> None:
    async def read_page(continuation: int | None) -> tuple[Iterable[int], int | None]:
        return [1], None

    items = Paged(read_page)
    assert [item async for item in items] == [1]
    with pytest.raises(StopAsyncIteration):
        await anext(items)
