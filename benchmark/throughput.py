"""Interleaved rounds of load: every target at every number of connections, one after the other, again and again."""

import asyncio
import math
import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import psutil

from benchmark.load import Target, load
from benchmark.processes import BenchmarkFailed, Child, Upstreams

SETTLING_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Subject:
    """One thing that is measured: `target`, served by `child`. Every answer must have `status`.

    With more than `most` connections it is not measured: there the service refuses some on purpose.
    """

    name: str
    child: Child
    target: Target
    status: int
    most: int = 10_000


@dataclass(frozen=True, slots=True)
class Cell:
    """Under which conditions; `delays` names the set of upstream delays."""

    subject: str
    delays: str
    connections: int


@dataclass(frozen=True, slots=True)
class Sample:
    """What one round of one cell gave. Latencies are in milliseconds, sorted.

    cpu              milliseconds of CPU time of the measured process for each request
    upstream_calls   requests to all upstreams for each request, those before and after the round included: so each
                     request has all of its own
    resident         MiB at the end
    helpers          which share of one core the load generator and the upstreams used
    """

    rate: float
    latencies: tuple[float, ...]
    cpu: float
    upstream_calls: float
    resident: float
    helpers: float


@dataclass(frozen=True, slots=True)
class Figures:
    """A cell's samples put together: medians of the rounds; percentiles of all latencies.

    `rates` and `cpus` have each round's.
    """

    rates: tuple[float, ...]
    cpus: tuple[float, ...]
    rate: float
    p50: float
    p99: float
    cpu: float
    upstream_calls: float
    resident: float
    helpers: float

    @classmethod
    def of(cls, samples: Sequence[Sample]) -> "Figures":
        """Raises `StatisticsError` without samples."""
        latencies = sorted(latency for sample in samples for latency in sample.latencies)
        return cls(
            rates=tuple(sample.rate for sample in samples),
            cpus=tuple(sample.cpu for sample in samples),
            rate=statistics.median(sample.rate for sample in samples),
            p50=percentile(latencies, 50),
            p99=percentile(latencies, 99),
            cpu=statistics.median(sample.cpu for sample in samples),
            upstream_calls=statistics.median(sample.upstream_calls for sample in samples),
            resident=max(sample.resident for sample in samples),
            helpers=max(sample.helpers for sample in samples),
        )

    def share_of(self, other: "Figures") -> float:
        """The median of this one's rate as a share of the other's in the same round."""
        return statistics.median(own / others for own, others in zip(self.rates, other.rates, strict=True))

    def cpu_beyond(self, other: "Figures") -> float:
        """The median of how much more CPU this one took for a request than the other in the same round: 0.1 is 10%."""
        return statistics.median(own / others for own, others in zip(self.cpus, other.cpus, strict=True)) - 1


@dataclass(frozen=True, slots=True)
class Plan:
    """`rounds` of `seconds` each, each cell after at least `warm_up` seconds of the same load."""

    rounds: int
    seconds: float
    warm_up: float
    connections: tuple[int, ...]


def percentile(values: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile of sorted values."""
    return values[max(0, math.ceil(len(values) * percent / 100) - 1)]


async def measure_all(
    subjects: Iterable[Subject], upstreams: Upstreams, delays: Mapping[str, Mapping[str, float]], plan: Plan
) -> dict[Cell, Figures]:
    """Measure every subject under every delay at every number of connections. Raises `BenchmarkFailed`."""
    samples: dict[Cell, list[Sample]] = {}
    subjects = tuple(subjects)
    for _ in range(plan.rounds):
        for name, seconds in delays.items():
            await upstreams.delay(seconds)
            for connections in plan.connections:
                for subject in (each for each in subjects if connections <= each.most):
                    sample = await measure(subject, upstreams, connections, plan)
                    samples.setdefault(Cell(subject.name, name, connections), []).append(sample)
    await upstreams.delay({})
    return {cell: Figures.of(taken) for cell, taken in samples.items()}


async def measure(subject: Subject, upstreams: Upstreams, connections: int, plan: Plan) -> Sample:
    """One round of one cell. Raises `BenchmarkFailed` for an answer that should not be."""
    own = psutil.Process()

    def helpers() -> float:
        times = own.cpu_times()
        return times.user + times.system + upstreams.child.cpu_seconds()

    calls = await upstreams.calls()
    async with load(subject.target, connections) as answers:
        await asyncio.sleep(plan.warm_up)
        async with asyncio.timeout(SETTLING_SECONDS):
            await answers.settled.wait()
        cpu, helped = subject.child.cpu_seconds(), helpers()
        answers.clear()
        started = time.perf_counter()
        await asyncio.sleep(plan.seconds)
        async with asyncio.timeout(SETTLING_SECONDS):
            await answers.any.wait()
        seconds = time.perf_counter() - started
        latencies, statuses = sorted(answers.seconds), dict(answers.statuses)
        cpu, helped = subject.child.cpu_seconds() - cpu, helpers() - helped
        resident = subject.child.resident_mebibytes()
    calls = await upstreams.calls() - calls
    if set(statuses) != {subject.status} or answers.broken:
        raise BenchmarkFailed(
            f"{subject.name} at {connections} connections: statuses {statuses}, broken connections {answers.broken}."
        )
    count = len(latencies)
    return Sample(
        rate=count / seconds,
        latencies=tuple(latency * 1000 for latency in latencies),
        cpu=cpu * 1000 / count,
        upstream_calls=calls / answers.total,
        resident=resident,
        helpers=helped / seconds,
    )
