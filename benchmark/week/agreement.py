"""Whether the model and the wire agree about one week."""

from benchmark.tables import table
from benchmark.week.policies import Policy
from benchmark.week.simulation import Size, simulate
from benchmark.week.wire import run_over_the_wire
from local_azure.environment import LocalAzure

MOST_APART = 0.1


async def agreement(policy: Policy, size: Size, azure: LocalAzure) -> tuple[list[str], bool]:
    """A table of both, and whether each line's two figures are within 10% of each other. `azure` must be new."""
    modelled, wire = simulate(policy, size), await run_over_the_wire(policy, size, azure)
    asked = modelled.asked
    figures = {
        "requests of clients": (sum(modelled.counts.requests), sum(wire.counts.requests)),
        "ACS calls": (sum(asked.acs), wire.acs_calls),
        "… answered 429": (asked.acs_refused, wire.acs_refused),
        "request units": (sum(asked.units), wire.units),
        "store calls answered 429": (asked.store_refused, wire.store_refused),
        "wishes turned away": (modelled.counts.turned_away, wire.counts.turned_away),
    }
    apart = {name: _apart(*both) for name, both in figures.items()}
    lines = table(
        ("figure", "model", "over the wire", "apart"),
        ((name, f"{model:,.0f}", f"{real:,.0f}", f"{apart[name]:.1%}") for name, (model, real) in figures.items()),
    )
    title = f"{policy.name}: {size.people:,} people, {size.days} days, seed {size.seed}"
    return [title, "", *lines], max(apart.values()) <= MOST_APART


def _apart(model: float, real: float) -> float:
    return abs(model - real) / max(model, real, 1.0)
