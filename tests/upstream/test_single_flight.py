"""Single flight: who shares the work, who gets its outcome, and when the next one begins."""

import asyncio

import pytest

from upstream.single_flight import SingleFlight


async def test_callers_at_the_same_time_share_one_piece_of_work_and_its_result() -> None:
    flights: SingleFlight[str, int] = SingleFlight()
    begun = 0

    async def work() -> int:
        nonlocal begun
        begun += 1
        await asyncio.sleep(0)
        return begun

    assert await asyncio.gather(*(flights.do("a", work) for _ in range(5))) == [1] * 5
    assert await flights.do("a", work) == 2
    assert len(flights) == 0


async def test_each_key_has_a_flight_of_its_own() -> None:
    flights: SingleFlight[str, str] = SingleFlight()

    async def work(key: str) -> str:
        await asyncio.sleep(0)
        return key

    outcomes = await asyncio.gather(flights.do("a", lambda: work("a")), flights.do("b", lambda: work("b")))
    assert list(outcomes) == ["a", "b"]


async def test_an_error_reaches_every_caller_and_is_not_remembered() -> None:
    flights: SingleFlight[str, str] = SingleFlight()

    async def fail() -> str:
        await asyncio.sleep(0)
        raise LookupError

    async def succeed() -> str:
        return "done"

    outcomes = await asyncio.gather(*(flights.do("a", fail) for _ in range(3)), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [LookupError] * 3
    assert await flights.do("a", succeed) == "done"


async def test_the_work_goes_on_when_those_who_wait_are_cancelled() -> None:
    flights: SingleFlight[str, str] = SingleFlight()
    opened, finished = asyncio.Event(), asyncio.Event()

    async def work() -> str:
        await opened.wait()
        finished.set()
        return "done"

    caller = asyncio.create_task(flights.do("a", work))
    await asyncio.sleep(0)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    opened.set()
    await finished.wait()


async def test_whoever_comes_in_the_step_in_which_the_work_ends_begins_anew() -> None:
    flights: SingleFlight[str, str] = SingleFlight()
    lock = asyncio.Lock()

    async def work() -> str:
        async with lock:
            await asyncio.sleep(0)
        return "done"

    flight, leads = flights.join("a", work)
    assert leads
    async with lock:
        assert flights.join("a", work) == (flight, False)
    await asyncio.sleep(0)
    async with lock:  # in the very step in which the flight released it
        assert "a" not in flights


async def test_closing_waits_a_while_and_then_ends_what_is_left() -> None:
    flights: SingleFlight[str, None] = SingleFlight()

    async def hang() -> None:
        await asyncio.Event().wait()

    flight, _ = flights.join("a", hang)
    await asyncio.sleep(0)
    await flights.aclose(0.001)
    assert flight.cancelled()
    assert len(flights) == 0


async def test_a_flight_that_was_ended_before_its_first_step_is_forgotten() -> None:
    flights: SingleFlight[str, str] = SingleFlight()

    async def work() -> str:
        return "done"

    flights.join("a", work)
    await flights.aclose()
    assert await flights.do("a", work) == "done"


async def test_closing_tells_how_many_flights_it_cut() -> None:
    flights: SingleFlight[str, None] = SingleFlight()
    opened = asyncio.Event()
    flights.join("waits", lambda: asyncio.sleep(3600))
    flights.join("ends", opened.wait)  # type: ignore[arg-type]
    opened.set()
    assert await flights.aclose(0.01) == 1
