"""Overload: how late the process runs is measured, and strangers are refused first."""

import asyncio
from collections.abc import Callable
from copy import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st
from quart import Quart

from quart_app.app import create_app
from quart_app.settings import load_settings
from quart_app.web.overload import (
    GROWS_BY,
    KNOWN_SECONDS,
    PERIOD_SECONDS,
    READINGS,
    SMALLEST_ROOM,
    STRANGERS_SECONDS,
    TURNS,
    Lateness,
    Room,
    TurnLimit,
)
from tests.conftest import FakeClock, NeverLate
from tests.quart_app.conftest import Bearer
from tests.support import virtual_time
from tests.support.answers import error_of

WAITS = st.floats(0, 10)


def late_by(seconds: float) -> Lateness:
    lateness = Lateness()
    for _ in range(READINGS):
        lateness.note(seconds)
    return lateness


class TestLateness:
    async def test_it_is_the_time_that_some_turns_of_the_event_loop_take(self) -> None:
        clock = FakeClock(0)
        lateness = Lateness(clock)

        async def busy() -> None:
            for _ in range(2 * READINGS * TURNS):
                clock.advance(0.02)
                await asyncio.sleep(0)

        working = asyncio.create_task(busy())
        for _ in range(READINGS):
            await lateness.measure()
        await working
        assert lateness.seconds == pytest.approx(TURNS * 0.02, rel=0.2)

    def test_of_an_idle_process_it_is_nothing(self) -> None:
        async def main() -> float:
            lateness = Lateness(asyncio.get_running_loop().time)
            lateness.start()
            await asyncio.sleep(100 * PERIOD_SECONDS)
            await lateness.aclose()
            return lateness.seconds

        assert virtual_time.run(main()) == 0

    def test_it_is_measured_again_and_again(self) -> None:
        noted: list[float] = []

        class Noting(Lateness):
            def note(self, seconds: float) -> None:
                noted.append(seconds)

        async def main() -> None:
            lateness = Noting(asyncio.get_running_loop().time)
            lateness.start()
            await asyncio.sleep(10.5 * PERIOD_SECONDS)
            await lateness.aclose()

        virtual_time.run(main())
        assert noted == [0.0] * 10

    @given(st.lists(WAITS, max_size=20))
    def test_it_is_the_least_of_the_last_readings_so_one_pause_is_no_overload(self, readings: list[float]) -> None:
        lateness = Lateness()
        for reading in readings:
            lateness.note(reading)
        assert lateness.seconds == min(([0.0] * READINGS + readings)[-READINGS:])

    async def test_it_can_be_closed_without_having_been_started(self) -> None:
        await Lateness().aclose()


class TestRoom:
    @given(st.lists(st.tuples(WAITS, st.integers(0, 1000))))
    def test_it_is_never_too_small_for_a_few_and_grows_while_nobody_is_late(
        self, readings: list[tuple[float, int]]
    ) -> None:
        room = Room(1.0)
        for seconds, serving in readings:
            before = place_in(room)
            assert before >= SMALLEST_ROOM
            room.holds(serving)
            room.adapt(seconds)
            assert seconds > 1.0 or place_in(room) >= before

    @pytest.mark.parametrize("each", [0.001, 0.005, 0.02])
    def test_a_flood_is_let_in_so_far_that_it_waits_about_as_long_as_is_late(self, each: float) -> None:
        room, waits = Room(0.5), []
        for _ in range(200):
            serving = 0
            while serving < 1000 and room.holds(serving):
                serving += 1
            waits.append(serving * each)
            room.adapt(waits[-1])
        assert min(waits[50:]) > 0.3
        assert max(waits[50:]) <= 0.5 + GROWS_BY * each

    def test_as_late_as_that_is_not_too_late(self) -> None:
        room = Room(1.0)
        room.holds(100)
        room.adapt(1.5)
        before = place_in(room)
        room.adapt(1.0)
        assert place_in(room) == before + GROWS_BY

    def test_what_was_late_while_nobody_came_is_not_the_callers_doing(self) -> None:
        room = Room(1.0)
        room.adapt(10.0)
        assert room.holds(100_000)


class TestTurnLimit:
    @given(each=st.integers(1, 5), callers=st.integers(0, 30), left=st.sets(st.integers(0, 29)))
    async def test_in_each_turn_so_many_go_on_in_the_order_in_which_they_came(
        self, each: int, callers: int, left: set[int]
    ) -> None:
        limit = TurnLimit(each)
        turns: list[list[int]] = []

        async def caller(number: int) -> None:
            await limit.turn()
            turns[-1].append(number)

        async def count_turns() -> None:
            while True:
                turns.append([])
                await asyncio.sleep(0)

        counting = asyncio.create_task(count_turns())
        tasks = [asyncio.create_task(caller(number)) for number in range(callers)]
        await asyncio.sleep(0)
        for number in left:
            if number in range(each, callers):
                tasks[number].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        counting.cancel()
        gone = [number for turn in turns for number in turn]
        assert gone == [number for number in range(callers) if number < each or number not in left]
        assert max(map(len, turns)) <= each

    async def test_those_who_come_later_go_on_at_once(self) -> None:
        limit = TurnLimit(1)
        for _ in range(3):
            going = asyncio.create_task(limit.turn())
            await asyncio.sleep(0)
            assert going.done()
            await asyncio.sleep(0)


def place_in(room: Room) -> int:
    """How many it holds, a thousand at most; it takes no note of the question."""
    copied = copy(room)
    return next((serving for serving in range(1000) if not copied.holds(serving)), 1000)


class TestWhoIsAdmitted:
    def test_a_flood_of_strangers_leaves_room_for_known_callers(self) -> None:
        lateness = Lateness()
        for _ in range(2 * READINGS):
            lateness.admits(lambda: False, strangers=400)
            lateness.note(STRANGERS_SECONDS * 0.9)
        assert not lateness.admits(lambda: False, strangers=300)
        assert lateness.admits(lambda: True, strangers=300)
        assert lateness.admits(lambda: False, strangers=SMALLEST_ROOM - 1)

    @pytest.mark.parametrize(("share", "all_come_in"), [(0.49, True), (0.51, False)])
    def test_strangers_are_let_in_fewer_at_a_time_from_half_of_their_wait_on(
        self, share: float, all_come_in: bool
    ) -> None:
        lateness = Lateness()
        for _ in range(2 * READINGS):
            lateness.admits(lambda: False, strangers=400)
            lateness.note(STRANGERS_SECONDS * share)
        assert lateness.admits(lambda: False, strangers=400) is all_come_in

    def test_known_callers_have_no_such_bound_because_their_coming_again_would_be_a_flood(self) -> None:
        lateness = Lateness()
        for _ in range(20 * READINGS):
            lateness.admits(lambda: True, strangers=400)
            lateness.note(KNOWN_SECONDS * 0.9)
        assert lateness.admits(lambda: True, strangers=400)

    @given(late=WAITS, more=WAITS, known=st.booleans())
    def test_whoever_is_admitted_is_admitted_when_it_is_less_late_or_the_caller_is_known(
        self, late: float, more: float, known: bool
    ) -> None:
        if late_by(late + more).admits(lambda: known):
            assert late_by(late).admits(lambda: known)
            assert late_by(late + more).admits(lambda: True)

    @pytest.mark.parametrize(
        ("late", "strangers", "known"),
        [
            (0, True, True),
            (STRANGERS_SECONDS, True, True),
            (STRANGERS_SECONDS * 1.01, False, True),
            (KNOWN_SECONDS, False, True),
            (KNOWN_SECONDS * 1.01, False, False),
        ],
    )
    def test_strangers_are_refused_first_and_everybody_in_the_end(
        self, late: float, strangers: bool, known: bool
    ) -> None:
        assert late_by(late).admits(lambda: False) is strangers
        assert late_by(late).admits(lambda: True) is known

    @given(late=WAITS)
    def test_who_calls_is_looked_up_only_when_that_decides(self, late: float) -> None:
        asked = iter([True])
        late_by(late).admits(lambda: next(asked))
        assert (next(asked, None) is None) is (STRANGERS_SECONDS < late <= KNOWN_SECONDS)


@pytest.fixture
def now_late(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets how late the process says that it runs."""
    made: list[Lateness] = []

    class Told(NeverLate):
        def __init__(self) -> None:
            super().__init__()
            made.append(self)

    monkeypatch.setattr("quart_app.app.Lateness", Told)

    def late(seconds: float) -> None:
        for _ in range(READINGS):
            made[-1].note(seconds)

    return late


@pytest.mark.usefixtures("settings")
async def test_an_application_measures_while_it_is_open_how_late_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    def measuring() -> list[str]:
        return [task.get_name() for task in asyncio.all_tasks() if "how late" in task.get_name()]

    monkeypatch.setattr("quart_app.app.Lateness", Lateness)
    async with create_app(load_settings(None)):
        assert measuring() == ["measure how late the process runs"]
    assert measuring() == []


ORIGIN = "https://app.example.com"


async def statuses(app: Quart, *requests: tuple[str, dict[str, str]]) -> list[int]:
    client = app.test_client()
    return [(await client.get(path, headers=headers)).status_code for path, headers in requests]


@pytest.mark.usefixtures("settings")
async def test_a_late_process_serves_known_callers_and_probes_and_refuses_others_before_it_verifies_their_token(
    bearer: Bearer, now_late: Callable[[float], None]
) -> None:
    known, stranger = bearer("alex"), bearer("megan")
    forged = {"Authorization": known["Authorization"][:-8] + "AAAAAAAA"}
    requests = [("/api/user", known), ("/health/live", {})]
    others = [("/api/user", stranger), ("/api/user", forged), ("/api/user", {}), ("/docs", known), ("/nothing", {})]
    async with create_app(load_settings(None)) as app:
        assert await statuses(app, *requests) == [404, 200]
        now_late((STRANGERS_SECONDS + KNOWN_SECONDS) / 2)
        assert await statuses(app, *requests) == [404, 200]
        assert await statuses(app, *others) == [503] * len(others)
        now_late(2 * KNOWN_SECONDS)
        assert await statuses(app, *requests) == [503, 200]
        now_late(0)
        assert await statuses(app, ("/api/user", stranger), ("/api/user", forged)) == [404, 401]


@pytest.mark.usefixtures("settings")
@pytest.mark.parametrize("origin", [{}, {"Origin": ORIGIN}])
async def test_an_early_refusal_is_an_answer_like_every_other(
    origin: dict[str, str],
    now_late: Callable[[float], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CORS_ALLOWED_ORIGINS", ORIGIN)
    async with create_app(load_settings(None)) as app:
        now_late(2 * KNOWN_SECONDS)
        client = app.test_client()
        answer = await client.get("/api/user", headers={"X-Request-Id": "0123456789", **origin})
        again = [await client.get("/api/user") for _ in range(2)]
    assert await error_of(answer) == (503, "service_unavailable")
    assert (await answer.get_json())["requestId"] == answer.headers["X-Request-Id"] == "0123456789"
    assert answer.headers["Retry-After"] == "1"
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers.get("Access-Control-Allow-Origin") == origin.get("Origin")
    assert len({other.headers["X-Request-Id"] for other in again}) == 2
