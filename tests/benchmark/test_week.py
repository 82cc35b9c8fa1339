"""The simulated week: its clocks, its people, its limits; the model and the service's own parts agree."""

import math
import random
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

import pytest

from benchmark.week.agreement import agreement
from benchmark.week.clocks import Clock, CompressedClock, ModelClock, until
from benchmark.week.limits import Limits, Rate
from benchmark.week.model import Deployment
from benchmark.week.people import DAY, HOUR, HOURS, ClientPolicy, Habits, population
from benchmark.week.policies import POLICIES, Policy
from benchmark.week.report import Row, after_a_loss, by_policy, plot
from benchmark.week.simulation import Outcome, Size, simulate
from local_azure.environment import LocalAzure

HUNDRED = Size(100, 1e-5, days=2)


async def steps(name: str, clock: Clock, told: list[tuple[float, str]], *seconds: float) -> None:
    for each in seconds:
        await clock.sleep(each)
        told.append((clock.now, name))


def _work(clock: Clock, told: list[tuple[float, str]]) -> list[Coroutine[Any, Any, None]]:
    return [steps("slow", clock, told, 5, 5), steps("quick", clock, told, 1, 4, 7), until(clock, 3)]


async def test_both_clocks_let_time_jump_to_whoever_waits_for_the_least() -> None:
    modelled: list[tuple[float, str]] = []
    compressed: list[tuple[float, str]] = []
    clock, real = ModelClock(), CompressedClock()
    clock.run(_work(clock, modelled))
    await real.run(_work(real, compressed))
    assert modelled == compressed == [(1, "quick"), (5, "slow"), (5, "quick"), (10, "slow"), (12, "quick")]
    assert clock.now == real.now == 12


def test_people_sign_in_by_the_hours_of_the_day_and_stay_within_the_week() -> None:
    people = population(2_000, Habits(pages=3), 7, random.Random(1))
    sessions = [session for person in people if not person.connected for session in person.sessions]
    assert sum(HOURS) == pytest.approx(100, abs=1)
    assert all(0 <= session.start <= session.pages[-1] <= session.end < 7 * DAY for session in sessions)
    first = [session.start % DAY // HOUR for session in sessions if session.signs_in]
    assert max(set(first), key=first.count) == HOURS.index(max(HOURS))


@pytest.mark.parametrize("share", [1, 0.1, 1e-4, 1e-6])
def test_a_part_of_a_limit_allows_the_same_rate_in_windows_that_hold_something(share: float) -> None:
    part = Rate(1000, 30).part(share, 10)
    assert part.amount / part.seconds == pytest.approx(1000 / 30 * share)
    assert part.amount >= 10


def test_the_same_seed_gives_the_same_week_and_another_one_another() -> None:
    def requests(seed: int) -> list[int]:
        return simulate(POLICIES[0], replace(HUNDRED, seed=seed)).counts.requests

    assert requests(1) == requests(1) != requests(2)


def test_without_limits_nobody_is_refused_and_every_policy_moves_what_it_should() -> None:
    size = Size(400, 4e-5, days=2)

    def lifted(habits: Habits, client: ClientPolicy, deployment: Deployment) -> Outcome:
        outcome = simulate(Policy("", habits, client, deployment, Limits().lifted()), size)
        assert outcome.counts.turned_away == outcome.asked.acs_refused == outcome.asked.store_refused == 0
        return outcome

    pages, one = Habits(pages=8), Deployment(1)
    each = sum(lifted(pages, ClientPolicy(), one).asked.acs)
    reused = sum(lifted(pages, ClientPolicy(), Deployment(1, 60, 10_000_000)).asked.acs)
    forgetful = sum(lifted(pages, ClientPolicy(), Deployment(1, 60)).asked.acs)
    kept = sum(lifted(pages, ClientPolicy(keeps=True), one).asked.acs)
    narrowed = sum(lifted(pages, ClientPolicy(keeps=True, minutes=60), one).asked.acs)
    assert kept < reused < forgetful < each
    assert kept < narrowed < each


def test_jitter_spreads_what_a_loss_of_all_tokens_brought_together() -> None:
    size, lost_at = Size(1_000, 1e-4, days=3), 10 * HOUR
    devices = Habits(connected=1, lost_at=lost_at)

    def busiest_on_the_next_day(spread: float) -> int:
        policy = Policy("", devices, ClientPolicy(spread=spread), limits=Limits().lifted())
        return max(simulate(policy, size).asked.acs[24 * 60 :])

    at_once, little, much = (busiest_on_the_next_day(spread) for spread in (0, 300, 12 * HOUR))
    assert at_once > 3 * little > 9 * much


@pytest.mark.parametrize("policy", [POLICIES[0], replace(POLICIES[5], habits=Habits(pages=4, new=0.3, signs_out=30))])
async def test_the_model_and_the_services_own_parts_agree_within_a_tenth(
    policy: Policy, local_azure: LocalAzure
) -> None:
    small = replace(policy, deployment=replace(policy.deployment, replicas=2))
    size = Size(18, 1.2e-5, days=1)
    lines, agrees = await agreement(small, size, local_azure)
    assert agrees, "\n".join(lines)


def test_a_policy_becomes_a_line_of_a_table_and_of_the_plot() -> None:
    size = Size(50, 5e-6, days=7)
    rows = [Row(each, outcome := simulate(each, size), size, outcome) for each in (POLICIES[0], POLICIES[-4])]
    table = list(by_policy(rows))
    assert len(table) == 3
    assert POLICIES[0].name in table[2]
    assert len(list(after_a_loss(rows))) == 3
    drawn = plot(rows)
    assert drawn.count("<polyline") == 1
    assert math.inf not in [float(part) for part in drawn.split('points="')[1].split('"')[0].replace(",", " ").split()]
