"""One week under one policy, in the model."""

import random
from dataclasses import dataclass

from benchmark.week.clocks import ModelClock
from benchmark.week.model import Asked, ModelService
from benchmark.week.people import DAY, MINUTE, Counts, live, population
from benchmark.week.policies import Policy


@dataclass(frozen=True, slots=True)
class Size:
    """`people`, who are `share` of all; how many `days`; `seed` of every draw."""

    people: int
    share: float
    days: int = 7
    seed: int = 1

    @property
    def minutes(self) -> int:
        """How many minutes the days have."""
        return int(self.days * DAY / MINUTE)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What clients saw and what was asked of others, of the people simulated."""

    counts: Counts
    asked: Asked


def simulate(policy: Policy, size: Size) -> Outcome:
    """Run the model."""
    plan, draw = random.Random(size.seed), random.Random(size.seed + 1)
    people = population(size.people, policy.habits, size.days, plan)
    clock, counts, asked = ModelClock(), Counts(size.minutes), Asked(size.minutes)
    service = ModelService(
        policy.deployment.part(size.share),
        policy.limits.part(size.share),
        clock,
        draw,
        asked,
        {person.number for person in people if not person.new},
    )
    clock.run(live(person, policy.client, service, clock, draw, counts) for person in people)
    return Outcome(counts, asked)
