"""What telemetry costs in Application Insights and Log Analytics, from sizes that a test measures at the exporter.

`python -m tests.support.telemetry_cost` prints the table of docs/cost.md.
"""

import sys
from dataclasses import dataclass

GB = 1e9
DOLLARS_A_GB = 2.30
FREE_GB = 5.0
"""Of the first workspace in a billing account; see docs/cost.md for where the prices are from."""

SAMPLED = 0.05
"""`OTEL_TRACES_SAMPLER_ARG` as deployed (infra/resources.bicep)."""
CALLS_A_REQUEST = 2.0
"""Dependencies: one of the store and one of ACS."""
SERIES_A_REPLICA = 60
"""Points that a replica sends each minute: every combination of attributes that was seen is one."""
MINUTES_A_MONTH = 60 * 24 * 30.4


@dataclass(frozen=True, slots=True)
class Sizes:
    """Bytes of one item each, as JSON."""

    request: int = 910
    dependency: int = 1030
    point: int = 750
    log_line: int = 800


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is served in a month."""

    users: int
    requests: int
    replicas: int


SCALES = (Scale(1_000, 60_000, 2), Scale(100_000, 6_000_000, 2), Scale(10_000_000, 600_000_000, 6))


@dataclass(frozen=True, slots=True)
class Volume:
    """GB a month."""

    traces: float
    metrics: float
    logs: float

    @property
    def together(self) -> float:
        return self.traces + self.metrics + self.logs

    @property
    def dollars(self) -> float:
        """What Log Analytics asks for it; what is free is taken off once."""
        return max(0.0, self.together - FREE_GB) * DOLLARS_A_GB


def volume(scale: Scale, sampled: float = SAMPLED, sizes: Sizes | None = None) -> Volume:
    """What is sent at this scale when so many of all requests (0 to 1) get a trace."""
    sizes = sizes or Sizes()
    return Volume(
        traces=scale.requests * sampled * (sizes.request + CALLS_A_REQUEST * sizes.dependency) / GB,
        metrics=scale.replicas * MINUTES_A_MONTH * SERIES_A_REPLICA * sizes.point / GB,
        logs=scale.requests * sizes.log_line / GB,
    )


def table() -> str:
    """The table of docs/cost.md, GB and dollars a month."""
    volumes = [volume(scale) for scale in SCALES]
    everything = [volume(scale, 1.0) for scale in SCALES]
    rows = [
        ("Users a month", [f"{scale.users:,}" for scale in SCALES]),
        (f"traces, {SAMPLED:.0%} of all requests", [f"{each.traces:,.2f} GB" for each in volumes]),
        ("metrics", [f"{each.metrics:,.2f} GB" for each in volumes]),
        ("logs", [f"{each.logs:,.2f} GB" for each in volumes]),
        ("**together**", [f"**{each.dollars:,.0f}** ({each.together:,.1f} GB)" for each in volumes]),
        ("with every trace", [f"{each.dollars:,.0f} ({each.together:,.1f} GB)" for each in everything]),
    ]
    lines = [f"| {name} | {' | '.join(cells)} |" for name, cells in rows]
    return "\n".join([lines[0], "|---" * (len(SCALES) + 1) + "|", *lines[1:]])


if __name__ == "__main__":
    sys.stdout.write(f"{table()}\n")
