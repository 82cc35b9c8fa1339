"""The deadline: when calls made for a request must have ended."""

import asyncio

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support import virtual_time
from upstream.deadline import deadline, remaining

# The same examples every time, however slow the machine is.
deterministic = settings(derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
seconds = st.floats(0.001, 1000)


async def test_without_a_deadline_nothing_is_known_to_remain() -> None:
    assert remaining() is None


async def test_after_the_block_the_outer_state_is_back() -> None:
    with deadline(5):
        pass
    assert remaining() is None


def test_what_remains_shrinks_as_time_passes_and_turns_negative() -> None:
    async def main() -> list[float | None]:
        with deadline(5):
            at_first = remaining()
            await asyncio.sleep(3)
            later = remaining()
            await asyncio.sleep(3)
            return [at_first, later, remaining()]

    assert virtual_time.run(main()) == [5, 2, -1]


@deterministic
@given(outer=seconds, inner=seconds)
def test_an_inner_deadline_never_extends_an_outer_one(outer: float, inner: float) -> None:
    async def main() -> list[float | None]:
        with deadline(outer):
            with deadline(inner):
                inside = remaining()
            return [inside, remaining()]

    assert virtual_time.run(main()) == [min(outer, inner), outer]


def test_tasks_started_inside_inherit_the_deadline_and_others_do_not() -> None:
    async def main() -> list[float | None]:
        async def look() -> float | None:
            return remaining()

        outside = asyncio.create_task(look())
        with deadline(5):
            inside = asyncio.create_task(look())
        return [await outside, await inside]

    assert virtual_time.run(main()) == [None, 5]
