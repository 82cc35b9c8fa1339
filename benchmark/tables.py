"""The figures as Markdown."""

import os
import platform
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version

import psutil

from benchmark.bursts import Burst
from benchmark.first import FirstSignIn
from benchmark.growth import Size
from benchmark.processes import Cores
from benchmark.start import Start
from benchmark.throughput import Cell, Figures, Plan

CEILING = "the ACS stand-in itself"
NOTHING = "floor: nothing"
ONE_CALL = "floor: one bare call"
SDK_CALL = "floor: one call by the ACS SDK"
NEW_TOKENS = "GET /api/token, cosmos, new Entra tokens"
_TOKEN = "GET /api/token, "
_MOST_RESIDENT = 130.0
_LEAST_SHARE = 0.55
_MOST_OVER_PATH = 3.0
_MOST_SPREAD = 5.0
_MOST_CALLS = 1.1
_MOST_OVER_IMPORTS = 1.2


def conditions(cores: Cores, plan: Plan) -> Iterator[str]:
    """When, where and how."""
    yield f"{time.strftime('%Y-%m-%d')}, {_processor()}, {psutil.cpu_count()} cores, {platform.system()}"
    yield f"{platform.machine()}, Python {platform.python_version()}, " + ", ".join(
        f"{name} {version(name)}" for name in ("quart", "hypercorn", "uvloop", "aiohttp", "azure-core", "azure-cosmos")
    )
    where = f"on core {cores.measured[0]}, all else on the others" if cores.measured else "on any core, like all else"
    yield f"{plan.rounds} interleaved rounds of {plan.seconds} s after {plan.warm_up} s of warm-up; the service {where}"
    yield f"load average before: {', '.join(f'{load:.1f}' for load in os.getloadavg())}"


def throughput(figures: Mapping[Cell, Figures]) -> Iterator[str]:
    """One line for each cell."""
    yield ""
    header = (
        "delays", "connections", "what", "requests/s", "p50 ms", "p99 ms", "CPU ms", "calls", "RSS MiB", "helpers",
    )  # fmt: skip
    yield from table(header, (_cell(cell, taken) for cell, taken in sorted(figures.items(), key=_order)))
    yield ""
    yield "CPU: of the measured process, for each request. calls: to all upstreams, for each request."
    yield "helpers: which share of a core the load generator and the upstreams used; near 100% they hold the rest up."


def starts(measured: Mapping[str, Start]) -> Iterator[str]:
    """One line for each store."""
    yield ""
    yield from table(
        ("store", "start to first 201, s", "only imports, s", "ratio", "without byte code, s", "RSS MiB after it"),
        (
            (
                store,
                f"{start.to_first_token:.3f}",
                f"{start.imports:.3f}",
                f"{_ratio(start):.2f}",
                f"{start.cold:.1f}",
                f"{start.resident:.0f}",
            )
            for store, start in measured.items()
        ),
    )


def bursts(measured: Mapping[tuple[str, int], Burst]) -> Iterator[str]:
    """One line for each subject and number of connections."""
    yield ""
    yield from table(
        (
            "connections at once", "what", "p50 ms", "p99 ms", "p99 / p50", "longest ms", "refused", "starved",
            "RSS MiB",
        ),
        (
            (
                f"{burst.connections:,}", name, f"{burst.p50:,.0f}", f"{burst.p99:,.0f}",
                f"{burst.p99 / burst.p50:.1f}", f"{burst.longest:,.0f}", f"{burst.refused:,}", str(burst.starved),
                f"{burst.resident:.0f}",
            )
            for (name, _), burst in measured.items()
        ),
    )  # fmt: skip


def first_sign_ins(measured: Mapping[str, FirstSignIn]) -> Iterator[str]:
    """One line for each store."""
    yield ""
    yield from table(
        ("store", "POST /api/user, new user, ms", "its path ms", "over it ms", "first GET /api/token, ms", "calls"),
        (
            (
                store, f"{first.post:.1f}", f"{first.path:.0f}", f"{first.post - first.path:.1f}", f"{first.get:.1f}",
                f"{first.calls:.1f}",
            )
            for store, first in measured.items()
        ),
    )  # fmt: skip


def beside(first: str, figures: Mapping[Cell, Figures]) -> Iterator[str]:
    """CPU and p99 of each subject, and how much more CPU it takes than `first` in the same round."""
    yield ""
    rows = []
    for cell, taken in sorted(figures.items(), key=_order):
        base = figures[Cell(first, cell.delays, cell.connections)]
        more = "" if cell.subject == first else f"{taken.cpu_beyond(base):+.1%}"
        rows.append((str(cell.connections), cell.subject, f"{taken.cpu:.3f}", more, f"{taken.p50:.1f}",
                     f"{taken.p99:.1f}", f"{taken.upstream_calls:.2f}"))  # fmt: skip
    yield from table(("connections", "what", "CPU ms", "more CPU", "p50 ms", "p99 ms", "calls"), rows)


def goals(figures: Mapping[Cell, Figures], measured: Mapping[str, Start]) -> Iterator[str]:
    """What was aimed at, and what was reached in this run."""
    yield ""
    yield from table(("goal", "reached", "met"), _goals(figures, measured))


def growth(sizes: Sequence[Size], figures: Mapping[Cell, Figures]) -> Iterator[str]:
    """One line for each number of mappings."""
    yield ""
    rows = []
    for size in sizes:
        name = f"{size.mappings:,}"
        rates = {cell.subject.partition(",")[0]: taken.rate for cell, taken in figures.items() if _is_of(cell, name)}
        rows.append(
            (
                name,
                f"{size.on_disk:.1f}",
                f"{size.get:.2f}",
                f"{size.create:.2f}",
                *(f"{rate:.0f}" for rate in rates.values()),
            )
        )
    routes = dict.fromkeys(cell.subject.partition(",")[0] for cell in figures)
    header = (
        "mappings (SQLite)",
        "MiB on disk",
        "get, ms",
        "create, ms",
        *(f"{route}, requests/s" for route in routes),
    )
    yield from table(header, rows)


def _goals(figures: Mapping[Cell, Figures], measured: Mapping[str, Start]) -> Iterator[tuple[str, str, str]]:
    token = f"{_TOKEN}cosmos"
    for connections in sorted({cell.connections for cell in figures}):
        own, bare = figures.get(Cell(token, "none", connections)), figures.get(Cell(ONE_CALL, "none", connections))
        if own and bare:
            share = own.share_of(bare)
            yield (
                f"{token}, at least {_LEAST_SHARE:.0%} of one bare call, {connections} connections",
                f"{share:.1%}", _met(share >= _LEAST_SHARE),
            )  # fmt: skip
    for cell, taken in sorted(figures.items(), key=_order):
        if cell.delays != "none" and cell.subject.removeprefix(_TOKEN) in ("cosmos", "graph"):
            # Warm, both need only ACS; Graph's mapping is in memory, too.
            path = figures[Cell(CEILING, cell.delays, 1)].p50
            yield (
                f"{cell.subject}, delayed, p50 at most that of ACS itself ({path:.1f}) + {_MOST_OVER_PATH:.0f} ms, "
                f"{cell.connections} connections",
                f"{taken.p50:.1f} ms",
                _met(taken.p50 <= path + _MOST_OVER_PATH),
            )
    warm = [taken for cell, taken in figures.items() if cell.subject.startswith("GET /api/token")]
    calls = max((taken.upstream_calls for taken in warm), default=0.0)
    yield (
        "one upstream call for each GET /api/token, except for those in flight and mappings a minute old",
        f"at most {calls:.2f}",
        _met(calls < _MOST_CALLS),
    )
    routes = {cell: taken for cell, taken in figures.items() if "/api/" in cell.subject}
    most = max(cell.connections for cell in routes)
    cell, worst = max(
        ((cell, taken.p99 / taken.p50) for cell, taken in routes.items() if cell.connections == most),
        key=lambda found: found[1],
    )
    yield (
        f"p99 under {_MOST_SPREAD:.0f} times p50 at {most} connections",
        f"at most {worst:.1f} ({cell.subject})", _met(worst < _MOST_SPREAD),
    )  # fmt: skip
    resident = max(taken.resident for taken in routes.values())
    yield f"RSS under {_MOST_RESIDENT:.0f} MiB", f"at most {resident:.0f} MiB", _met(resident < _MOST_RESIDENT)
    for store, start in measured.items():
        ratio = _ratio(start)
        yield (
            f"{store}: start at most {_MOST_OVER_IMPORTS} times imports",
            f"{ratio:.2f}",
            _met(ratio <= _MOST_OVER_IMPORTS),
        )


def _is_of(cell: Cell, size: str) -> bool:
    return cell.subject.endswith(f", {size}")


def _met(reached: bool) -> str:
    return "yes" if reached else "no"


def _ratio(start: Start) -> float:
    return start.to_first_token / start.imports


def _order(found: tuple[Cell, Figures]) -> tuple[str, int]:
    return found[0].delays, found[0].connections  # and within them in the order in which they were measured


def _cell(cell: Cell, taken: Figures) -> tuple[str, ...]:
    return (
        cell.delays, str(cell.connections), cell.subject, f"{taken.rate:,.0f}", f"{taken.p50:.1f}", f"{taken.p99:.1f}",
        f"{taken.cpu:.3f}", f"{taken.upstream_calls:.2f}", f"{taken.resident:.0f}", f"{taken.helpers:.0%}",
    )  # fmt: skip


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """A Markdown table, its columns aligned."""
    lines = [tuple(header), *map(tuple, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(header))]

    def written(line: Sequence[str]) -> str:
        return "| " + " | ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) + " |"

    yield written(lines[0])
    yield "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    yield from (written(line) for line in lines[1:])


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:  # noqa: PTH123
            return next(line.partition(":")[2].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "unknown processor"
