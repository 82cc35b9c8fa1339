"""`python -m benchmark`: start what is needed, measure, print."""

import asyncio
import dataclasses
import shlex
import sys
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import click
import psutil
import uvloop

from benchmark import tables
from benchmark.bursts import measure_bursts
from benchmark.collector import telemetry_settings
from benchmark.first import measure_first
from benchmark.growth import measure_growth
from benchmark.load import Target
from benchmark.processes import BenchmarkFailed, Cores, Upstreams, floor, peer, service, upstreams
from benchmark.start import Start, measure_start
from benchmark.subjects import WARM_USERS, Tokens, subjects_of, subjects_of_peer, target
from benchmark.throughput import Cell, Figures, Plan, Subject, measure_all
from local_azure.certificates import LocalAuthority

STORES = ("cosmos", "graph", "sqlite")
DELAYS = {"none": {}, "20/20/10/5 ms": {"entra": 0.02, "graph": 0.02, "acs": 0.01, "cosmos": 0.005}}
PARTS = ("throughput", "start", "bursts", "first", "reuse", "telemetry", "growth")
STAND_INS = "local-azure"
PLAIN, REUSED = "as it comes", "ACS_TOKEN_REUSE_MINUTES=60"


@dataclass(frozen=True, slots=True)
class Peer:
    """Another server of the same API: how it is started, where it answers, and a token that it takes.

    Without a token it is called with those of the stand-ins' users, as ours is.
    """

    command: tuple[str, ...]
    port: int
    token: str | None


@dataclass(frozen=True, slots=True)
class Options:
    """What to measure, how thoroughly.

    users        who call; more than there are connections, because requests of one user at a time share their work
    bursts       how many connections are opened at once
    first_users  how many sign in for the first time
    """

    parts: tuple[str, ...]
    stores: tuple[str, ...]
    plan: Plan
    delays: Mapping[str, Mapping[str, float]]
    starts: int
    sizes: tuple[int, ...]
    bursts: tuple[int, ...]
    first_users: int
    users: int
    peer: Peer | None = None

    @property
    def narrowed(self) -> bool:
        """Whether cells that the goals need are left out."""
        return self.plan.connections not in (THOROUGH.plan.connections, QUICK.plan.connections) or len(self.delays) < 2


THOROUGH = Options(
    PARTS, STORES, Plan(3, 1.0, 0.2, (1, 16, 64, 256)), DELAYS, 7, (1, 1_000, 100_000, 1_000_000), (256, 1_000), 50, 300
)
QUICK = Options(PARTS, STORES, Plan(1, 0.3, 0.1, (1, 16)), DELAYS, 1, (1, 1_000), (32,), 5, 40)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--quick", is_flag=True, help="One short round: shows that it works, its figures mean little.")
@click.option("--only", type=click.Choice(PARTS), help="Measure only this part.")
@click.option("--store", "stores", type=click.Choice(STORES), multiple=True, help="Measure only this store.")
@click.option("--rounds", type=click.IntRange(1, 100), help="How often each cell is measured.")
@click.option("--seconds", type=click.FloatRange(0.1, 60), help="How long, each time.")
@click.option("--connections", type=click.IntRange(1, 5_000), multiple=True, help="Only this many at once.")
@click.option("--delays", type=click.Choice(tuple(DELAYS)), help="Measure throughput only with these upstream delays.")
@click.option("--peer", "peer_command", help="Put another server of the same API beside ours: its command.")
@click.option("--peer-port", type=click.IntRange(1, 65_535), help="Where the peer answers; it also gets this as PORT.")
@click.option("--peer-token", help="A bearer token that the peer takes, unless it takes those of the stand-ins.")
def main(
    *,
    quick: bool,
    only: str | None,
    stores: tuple[str, ...],
    rounds: int | None,
    seconds: float | None,
    connections: tuple[int, ...],
    delays: str | None,
    peer_command: str | None,
    peer_port: int | None,
    peer_token: str | None,
) -> None:
    """Measure the service on this machine and print the figures as Markdown; progress goes to standard error.

    The load stays on 127.0.0.1. No figure makes it fail: figures belong to the machine they come from.
    """
    options = QUICK if quick else THOROUGH
    plan = dataclasses.replace(
        options.plan,
        rounds=rounds or options.plan.rounds,
        seconds=seconds or options.plan.seconds,
        connections=connections or options.plan.connections,
    )
    if peer_command is not None and peer_port is None:
        raise click.UsageError("Say with --peer-port where the peer answers.")
    options = dataclasses.replace(
        options,
        parts=(only,) if only else options.parts,
        stores=stores or options.stores,
        plan=plan,
        delays={delays: DELAYS[delays]} if delays else options.delays,
        bursts=connections or options.bursts,
        peer=Peer(tuple(shlex.split(peer_command)), peer_port, peer_token) if peer_command and peer_port else None,
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
    async with upstreams(directory / STAND_INS) as azure:
        object_ids = [str(uuid.UUID(int=number)) for number in range(1, options.users + 1)]
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
        if figures is not None and not options.narrowed:
            click.echo("\n".join(tables.goals(figures, starts)))
        for part, measure in (("bursts", _bursts), ("first", _first), ("reuse", _reuse), ("telemetry", _telemetry)):
            if part in options.parts:
                _progress(part)
                click.echo("\n".join(await measure(options, azure, tokens, cores, directory)))
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


async def _bursts(options: Options, azure: Upstreams, tokens: Tokens, cores: Cores, directory: Path) -> Iterable[str]:
    async with AsyncExitStack() as stack:
        subjects = []
        for store in options.stores:
            variables = _settings(azure, store, directory)
            child = await stack.enter_async_context(service(variables, cores, directory / f"bursts-{store}.log"))
            subjects += (await subjects_of(store, child, tokens))[:1]
        if options.peer is not None:
            subjects += (await _peer(stack, options.peer, azure, tokens, cores, directory))[:1]
        return tables.bursts(await measure_bursts(subjects, options.bursts, options.plan.rounds))


async def _first(options: Options, azure: Upstreams, tokens: Tokens, cores: Cores, directory: Path) -> Iterable[str]:
    measured = {}
    for store in options.stores:
        async with service(_settings(azure, store, directory), cores, directory / f"first-{store}.log") as child:
            await subjects_of(store, child, tokens)
            delays = DELAYS["20/20/10/5 ms"]
            measured[store] = await measure_first(store, child, azure, delays, options.first_users)
    return tables.first_sign_ins(measured)


async def _reuse(options: Options, azure: Upstreams, tokens: Tokens, cores: Cores, directory: Path) -> Iterable[str]:
    lines: list[str] = []
    for store in options.stores:
        kinds = {PLAIN: {}, REUSED: {"ACS_TOKEN_REUSE_MINUTES": "60"}}
        lines += await _kinds(kinds, store, options, azure, tokens, cores, directory)
    return lines


async def _telemetry(
    options: Options, azure: Upstreams, tokens: Tokens, cores: Cores, directory: Path
) -> Iterable[str]:
    async with telemetry_settings(LocalAuthority(directory / STAND_INS)) as kinds:
        return await _kinds(kinds, options.stores[0], options, azure, tokens, cores, directory)


async def _kinds(
    kinds: Mapping[str, Mapping[str, str]],
    store: str,
    options: Options,
    azure: Upstreams,
    tokens: Tokens,
    cores: Cores,
    directory: Path,
) -> list[str]:
    """Kinds of service, by name, with the settings that make them, side by side."""
    async with AsyncExitStack() as stack:
        subjects = []
        for number, (name, settings) in enumerate(kinds.items()):
            variables = {**_settings(azure, store, directory), **settings}
            child = await stack.enter_async_context(service(variables, cores, directory / f"kind-{number}.log"))
            subjects += (await subjects_of(f"{store}, {name}", child, tokens))[:1]
        connections = tuple(count for count in options.plan.connections if count in (16, 64)) or (16,)
        plan = dataclasses.replace(options.plan, connections=connections)
        figures = await measure_all(subjects, azure, {"none": {}}, plan)
    return list(tables.beside(subjects[0].name, figures))


async def _peer(
    stack: AsyncExitStack, given: Peer, azure: Upstreams, tokens: Tokens, cores: Cores, directory: Path
) -> list[Subject]:
    log = directory / "peer.log"
    variables = _settings(azure, "graph", directory)
    child = await stack.enter_async_context(peer(given.command, given.port, variables, cores, log))
    return await subjects_of_peer("peer", child, [given.token] if given.token else tokens.access_tokens)


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
                routes.append(Subject(tables.NEW_TOKENS, child, target(child, "GET", "/api/token", unseen), 201, 16))
        if options.peer is not None:
            routes += await _peer(stack, options.peer, azure, tokens, cores, directory)
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
