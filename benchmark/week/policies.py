"""The policies that are compared."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmark.week.limits import GRAPH, Limits
from benchmark.week.model import Deployment
from benchmark.week.people import DAY, HOUR, ClientPolicy, Habits

_PAGES = Habits(pages=8)
_KEPT = ClientPolicy(keeps=True)
LOST_AT = DAY + 10 * HOUR
_LOST = Habits(lost_at=LOST_AT)


@dataclass(frozen=True, slots=True)
class Policy:
    """What is tried. `plotted` ones are drawn."""

    name: str
    habits: Habits = field(default_factory=Habits)
    client: ClientPolicy = field(default_factory=ClientPolicy)
    deployment: Deployment = field(default_factory=Deployment)
    limits: Limits = field(default_factory=Limits)
    plotted: bool = False


_MANY = 30
"""Replicas that a token for each page needs."""

POLICIES: Sequence[Policy] = (
    Policy("a token for each session", plotted=True),
    Policy("a token for each page", _PAGES, deployment=Deployment(_MANY), plotted=True),
    Policy("… ACS_TOKEN_REUSE_MINUTES=10", _PAGES, deployment=Deployment(_MANY, 10)),
    Policy("… ACS_TOKEN_REUSE_MINUTES=60", _PAGES, deployment=Deployment(_MANY, 60)),
    Policy("… reuse for 60 minutes, 10 million kept", _PAGES, deployment=Deployment(_MANY, 60, 10_000_000)),
    Policy(
        "… reuse for 60 minutes, each user at one replica",
        _PAGES,
        deployment=Deployment(1, 60, 10_000_000),
        plotted=True,
    ),
    Policy("clients keep a token for its life", client=_KEPT, plotted=True),
    Policy("… narrowed to 60 minutes", client=ClientPolicy(keeps=True, minutes=60)),
    Policy("all tokens lost on Tuesday, no jitter", _LOST, ClientPolicy(spread=0)),
    Policy("… jitter of 5 minutes", _LOST),
    Policy("… jitter of 12 hours", _LOST, ClientPolicy(spread=12 * HOUR)),
    Policy("Graph, a token for each session", limits=GRAPH),
    Policy("Graph, clients keep a token", client=_KEPT, limits=GRAPH),
)
