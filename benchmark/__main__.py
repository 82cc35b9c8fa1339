"""`python -m benchmark`: start what is needed, measure, print."""

import asyncio
import dataclasses
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import click
import psutil
import uvloop

from benchmark import tables
from benchmark.growth import measure_growth
from benchmark.load import Target
from benchmark.processes import BenchmarkFailed, Cores, Upstreams, floor, service, upstreams
from benchmark.start import Start, measure_start
from benchmark.subjects import WARM_USERS, Tokens, subjects_of, target
from benchmark.throughput import Cell, Figures, Plan, Subject, measure_all

STORES = ("cosmos", "graph", "sqlite")
DELAYS = {"none": {}, "20/20/10/5 ms": {"entra": 0.02, "graph": 0.02, "acs": 0.01, "cosmos": 0.005}}
USERS = 300  # more than there are connections: requests of one user at a time share their work
PARTS = ("throughput", "start", "growth")


@dataclass(frozen=True, slots=True)
class Options:
    """What to measure, how thoroughly."""

    parts: tuple[str, ...]
    stores: tuple[str, ...]
    plan: Plan
    delays: Mapping[str, Mapping[str, float]]
    starts: int
    sizes: tuple[int, ...]


THOROUGH = Options(PARTS, STORES, Plan(3, 1.0, 0.2, (1, 16, 64, 256)), DELAYS, 7, (1, 1_000, 100_000, 1_000_000))
QUICK = Options(PARTS, STORES, Plan(1, 0.3, 0.1, (1, 16)), DELAYS, 1, (1, 1_000))


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--quick", is_flag=True, help="One short round: shows that it works, its figures mean little.")
@click.option("--only", type=click.Choice(PARTS), help="Measure this part alone.")
@click.option("--store", "stores", type=click.Choice(STORES), multiple=True, help="Measure this store alone.")
@click.option("--rounds", type=click.IntRange(1, 100), help="How often each cell is measured.")
@click.option("--seconds", type=click.FloatRange(0.1, 60), help="How long, each time.")
def main(*, quick: bool, only: str | None, stores: tuple[str, ...], rounds: int | None, seconds: float | None) -> None:
    """Measure the service on this machine and print the figures as Markdown; progress goes to standard error.

    The load stays on 127.0.0.1. No figure makes it fail: figures belong to the machine they come from.
    """
    options = QUICK if quick else THOROUGH
    plan = dataclasses.replace(
        options.plan, rounds=rounds or options.plan.rounds, seconds=seconds or options.plan.seconds
    )
    options = dataclasses.replace(
        options, parts=(only,) if only else options.parts, stores=stores or options.stores, plan=plan
    )
    with (
        tempfile.TemporaryDirectory(prefix="acs-auth-bench-") as directory,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        try:
            runner.run(run(options, Path(directory)))
        except BenchmarkFailed as error:
            click.echo(f"The benchmark failed: {error}", err=True)
            sys.exit(1)


async def run(options: Options, directory: Path) -> None:
    """Measure each part and print it as soon as it is there. Raises `BenchmarkFailed`."""
    cores = Cores.of_machine()
    if cores.helpers:
        psutil.Process().cpu_affinity(list(cores.helpers))
    click.echo("\n".join(tables.conditions(cores, options.plan)))
    async with upstreams(directory / "local-azure") as azure:
        object_ids = [str(uuid.UUID(int=number)) for number in range(1, USERS + 1)]
        tokens = Tokens(object_ids, await azure.tokens(object_ids))
        figures = None
        if "throughput" in options.parts:
            figures = await _throughput(options, azure, tokens, cores, directory)
            click.echo("\n".join(tables.throughput(figures)))
        starts: dict[str, Start] = {}
        if "start" in options.parts:
            for store in options.stores:
                _progress(f"start, {store}")
                variables = _settings(azure, store, directory)
                async with service(variables, cores, directory / "start.log") as child:
                    await subjects_of(store, child, tokens)
                starts[store] = await measure_start(
                    store, variables, tokens.access_tokens[0], cores, directory, options.starts
                )
            click.echo("\n".join(tables.starts(starts)))
        if figures is not None:
            click.echo("\n".join(tables.goals(figures, starts)))
        if "growth" in options.parts:
            _progress("growth of SQLite")
            plan = dataclasses.replace(options.plan, connections=(16,))
            variables = _settings(azure, "sqlite", directory)
            sizes, grown = await measure_growth(options.sizes, azure, variables, cores, directory, plan)
            click.echo("\n".join(tables.growth(sizes, grown)))


async def _throughput(
    options: Options, azure: Upstreams, tokens: Tokens, cores: Cores, directory: Path
) -> dict[Cell, Figures]:
    async with _subjects(options, azure, tokens, cores, directory) as subjects:
        cells = len(subjects) * len(options.delays) * len(options.plan.connections) * options.plan.rounds
        _progress(f"throughput: {cells} measurements of {options.plan.warm_up + options.plan.seconds} s")
        return await measure_all(subjects, azure, options.delays, options.plan)


@asynccontextmanager
async def _subjects(
    options: Options, azure: Upstreams, tokens: Tokens, cores: Cores, directory: Path
) -> AsyncIterator[list[Subject]]:
    """The ACS stand-in by itself, the floors, and every route of every store."""
    async with AsyncExitStack() as stack:
        routes: list[Subject] = []
        for store in options.stores:
            variables = _settings(azure, store, directory)
            child = await stack.enter_async_context(service(variables, cores, directory / f"{store}.log"))
            routes += await subjects_of(store, child, tokens)
            if store == "cosmos":
                # More than the service remembers, so that it never knows the next one.
                unseen = await azure.tokens(tokens.object_ids[:WARM_USERS] * 1_200)
                routes.append(Subject(tables.NEW_TOKENS, child, target(child, "GET", "/api/token", unseen), 201))
        (path, *_) = await azure.remembered_paths("acs")
        acs = Target.of("POST", azure.acs_url + path, azure.trust)
        bare = await stack.enter_async_context(floor(azure, path, cores, directory / "floor.log"))
        yield [
            Subject(tables.CEILING, azure.child, acs, 200),
            Subject(tables.NOTHING, bare, Target.of("GET", bare.url + "/nothing"), 200),
            Subject(tables.ONE_CALL, bare, Target.of("GET", bare.url + "/one-call"), 200),
            Subject(tables.SDK_CALL, bare, Target.of("GET", bare.url + "/one-sdk-call"), 200),
            *routes,
        ]


def _settings(azure: Upstreams, store: str, directory: Path) -> dict[str, str]:
    return {**azure.environment, "STORAGE_BACKEND": store, "SQLITE_PATH": str(directory / "mappings.sqlite")}


def _progress(what: str) -> None:
    click.echo(f"{time.strftime('%H:%M:%S')} {what}", err=True)


if __name__ == "__main__":
    main()
