"""The table and the plot."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from benchmark.tables import table
from benchmark.week.limits import Limits
from benchmark.week.people import DAY, HOUR, MINUTE
from benchmark.week.policies import Policy
from benchmark.week.simulation import Outcome, Size

A_REPLICA = 100.0
"""Requests a second that one of 0.5 vCPU is taken to serve (docs/performance.md)."""


@dataclass(frozen=True, slots=True)
class Row:
    """A policy, what it would ask for without limits, and what becomes of it with those there are."""

    policy: Policy
    wanted: Outcome
    wanted_size: Size
    limited: Outcome


def by_policy(rows: Sequence[Row]) -> Iterator[str]:
    """One line for each policy."""
    header = (
        "policy", "requests/s", "replicas", "ACS calls/s", "store, RU/s or Graph requests/s",
        "ACS answers 429", "store answers 429", "wishes turned away",
    )  # fmt: skip
    yield from table(header, (_cells(row) for row in rows if row.policy.habits.lost_at is None))


def after_a_loss(rows: Sequence[Row]) -> Iterator[str]:
    """The policies under which all tokens are lost at once: ACS calls a second in each day's busiest minute."""
    days = ("Monday", "Tuesday", "Wednesday", "Thursday")
    header = ("policy", *(f"{day}, ACS calls/s in its busiest minute" for day in days))
    cells = []
    for row in rows:
        if row.policy.habits.lost_at is not None:
            minutes = int(DAY / MINUTE)
            calls = row.wanted.asked.acs
            peaks = (max(calls[day * minutes : (day + 1) * minutes]) for day in range(len(days)))
            cells.append((row.policy.name, *(f"{peak / MINUTE / row.wanted_size.share:,.0f}" for peak in peaks)))
    yield from table(header, cells)


def _cells(row: Row) -> tuple[str, ...]:
    size, counts, asked = row.wanted_size, row.wanted.counts, row.wanted.asked
    limited = row.limited
    replicas = math.ceil(max(hourly(counts.requests, size)) / A_REPLICA)
    return (
        row.policy.name,
        _mean_and_most(counts.requests, size),
        str(replicas),
        _mean_and_most(asked.acs, size),
        _mean_and_most(asked.units, size),
        f"{limited.asked.acs_refused / max(1, sum(limited.asked.acs)):.0%}",
        f"{limited.asked.store_refused / max(1, limited.asked.store_calls):.0%}",
        f"{limited.counts.turned_away / max(1, limited.counts.wanted):.0%}",
    )


def _mean_and_most(by_minute: Sequence[float], size: Size) -> str:
    hours = hourly(by_minute, size)
    return f"{sum(hours) / len(hours):,.0f} … {max(hours):,.0f}"


def hourly(by_minute: Sequence[float], size: Size) -> list[float]:
    """For each hour, the mean per second of the whole deployment."""
    minutes = int(HOUR / MINUTE)
    return [sum(by_minute[hour : hour + minutes]) / HOUR / size.share for hour in range(0, len(by_minute), minutes)]


_COLOURS = ("#1f6feb", "#cf222e", "#9a6700", "#1a7f37")
_WIDTH, _HEIGHT, _LEFT, _TOP, _BOTTOM = 960, 420, 70, 20, 90
_LEAST, _MOST = 1.0, 10_000.0
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def plot(rows: Sequence[Row]) -> str:
    """An SVG: the ACS calls a second that the plotted policies would make, hour by hour, and ACS's limit."""
    drawn = [row for row in rows if row.policy.plotted]
    lines = [_axis(), _limit(Limits())]
    for number, (row, colour) in enumerate(zip(drawn, _COLOURS, strict=False)):
        values = hourly(row.wanted.asked.acs, row.wanted_size)
        points = " ".join(f"{_x(hour, len(values)):.1f},{_y(value):.1f}" for hour, value in enumerate(values))
        lines.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.6"/>')
        at = _LEFT + number % 2 * 440, _HEIGHT - 32 + number // 2 * 18
        lines.append(f'<rect x="{at[0]}" y="{at[1] - 9}" width="18" height="4" fill="{colour}"/>')
        lines.append(_text(at[0] + 26, at[1] - 3, row.policy.name.removeprefix("… ")))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" '
        f'font-size="12">\n<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#ffffff"/>\n'
        + "\n".join(lines)
        + "\n</svg>\n"
    )


def _axis() -> str:
    parts = []
    for power in range(int(math.log10(_LEAST)), int(math.log10(_MOST)) + 1):
        y = _y(10.0**power)
        parts.append(f'<line x1="{_LEFT}" x2="{_WIDTH - 10}" y1="{y:.1f}" y2="{y:.1f}" stroke="#d0d7de"/>')
        parts.append(_text(_LEFT - 8, y + 4, f"{10**power:,}", anchor="end"))
    for day, name in enumerate(_DAYS):
        x = _x(day * 24, len(_DAYS) * 24)
        parts.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}" stroke="#d0d7de"/>')
        parts.append(_text(x + 4, _HEIGHT - _BOTTOM + 16, name))
    parts.append(_text(_LEFT + 4, _TOP - 6, "ACS calls a second, ten million users"))
    return "\n".join(parts)


def _limit(limits: Limits) -> str:
    rate = limits.acs["issue_access_token"]
    y = _y(rate.amount / rate.seconds)
    return (
        f'<line x1="{_LEFT}" x2="{_WIDTH - 10}" y1="{y:.1f}" y2="{y:.1f}" stroke="#57606a" stroke-dasharray="6 4"/>\n'
        + _text(_WIDTH - 14, y - 5, "ACS's published limit", anchor="end")
    )


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="#24292f">{text}</text>'


def _x(hour: float, hours: int) -> float:
    return _LEFT + hour / hours * (_WIDTH - _LEFT - 10)


def _y(value: float) -> float:
    height = _HEIGHT - _TOP - _BOTTOM
    share = (math.log10(max(value, _LEAST)) - math.log10(_LEAST)) / (math.log10(_MOST) - math.log10(_LEAST))
    return _TOP + height * (1 - min(1.0, share))
