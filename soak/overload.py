"""Good callers stay served while anonymous ones send more than the service can take."""

import argparse
import asyncio
import random
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import uvloop

from benchmark.processes import BenchmarkFailed, Child
from local_azure.service_process import SERVE
from soak._callers import Answer, Connections, Sample, percentile, request, running

USERS = 100
BUSY_CONNECTIONS = 64
RETURNS_AT_MOST = 3
CREATED_WITHIN = 10  # tries
OWN_PERIOD_SECONDS = 0.02
SERVED_AT_LEAST = 0.95
GROWTH_AT_MOST = 64.0  # MiB
EARLY_SECONDS = 2.0
RECOVERY_SECONDS = 5.0
UNBOUNDED = ("-m", "soak._unbounded")


@dataclass(slots=True)
class Callers:
    """What callers of one kind were answered. `seconds` holds when each call began and how long it took, by second."""

    name: str
    statuses: Counter[int] = field(default_factory=Counter)
    unanswered: Counter[str] = field(default_factory=Counter)
    calls: int = 0
    served: int = 0
    not_sent: int = 0
    refused: list[Answer] = field(default_factory=list)
    seconds: list[tuple[float, float, bool]] = field(default_factory=list)

    def note(self, answer: Answer) -> None:
        """Count the answer."""
        self.statuses[answer.status] += 1
        if answer.status == 503:
            self.refused.append(answer)
        elif answer.error is not None:
            self.unanswered[answer.error] += 1


class Usage:
    """How much of a core the service has got since this was made."""

    def __init__(self, child: Child) -> None:
        self._child = child
        self._seconds, self._begun = child.cpu_seconds(), time.perf_counter()

    def share(self) -> float:
        """1 is a whole core."""
        return (self._child.cpu_seconds() - self._seconds) / (time.perf_counter() - self._begun)


async def sustainable_rate(child: Child, requests: list[bytes], seconds: float) -> float:
    """Answers 201 a second with 64 connections busy."""
    connections = Connections(child.url, BUSY_CONNECTIONS)
    until = time.perf_counter() + seconds
    counted = 0

    async def busy(number: int) -> None:
        nonlocal counted
        while time.perf_counter() < until:
            answer = await connections.ask(requests[number % len(requests)])
            counted += answer.status == 201

    await asyncio.gather(*(busy(number) for number in range(BUSY_CONNECTIONS)))
    connections.close()
    return counted / seconds


async def _create_users(child: Child, tokens: list[str]) -> None:
    connections = Connections(child.url, 8)

    async def create(token: str) -> None:
        for _ in range(CREATED_WITHIN):
            answer = await connections.ask(request(child, "POST", "/api/user", token))
            if answer.status in (200, 201):
                return
            await asyncio.sleep(answer.retry_after or 1.0)
        raise BenchmarkFailed(f"A user could not be created; the last answer has status {answer.status}.")

    await asyncio.gather(*(create(token) for token in tokens))
    connections.close()


async def paced(rate: Callable[[float], float], seconds: float, call: Callable[[], Awaitable[None]]) -> None:
    """Begin `rate(second)` calls a second whether or not earlier ones are answered, for so many seconds."""
    begun = time.perf_counter()
    due, last = 0.0, 0.0
    async with asyncio.TaskGroup() as calls:
        while (now := time.perf_counter() - begun) < seconds:
            due += rate(now) * (now - last)
            last = now
            while due >= 1:
                due -= 1
                calls.create_task(_awaited(call))
            await asyncio.sleep(0.005)


async def _awaited(call: Callable[[], Awaitable[None]]) -> None:
    await call()


async def measure(child: Child, tokens: list[str], seconds: float, connections: int, draw: random.Random) -> bool:
    """Print the figures; whether all held."""
    good_requests = [request(child, "GET", "/api/token", token) for token in tokens]
    await _create_users(child, tokens)
    forged = [token[:-8] + "AAAAAAAA" for token in tokens[:10]]
    anonymous_requests = [request(child, "GET", "/api/token", token) for token in (None, "nonsense", *forged)]
    await sustainable_rate(child, good_requests, 3)
    usage = Usage(child)
    sustainable = await sustainable_rate(child, good_requests, 5)
    before = Sample.of(child)
    print(f"sustainable {sustainable:.0f}/s with {usage.share():.0%} of a core, before: {before}", flush=True)

    good, anonymous = Callers("good"), Callers("anonymous")
    good_connections = Connections(child.url, connections)
    anonymous_connections = Connections(child.url, connections)
    begun = time.perf_counter()

    async def good_call() -> None:
        started = time.perf_counter()
        good.calls += 1
        answer = await good_connections.ask(draw.choice(good_requests))
        at_once = answer.status == 201
        for _ in range(RETURNS_AT_MOST):
            good.note(answer)
            if answer.status != 503 or answer.retry_after is None:
                break
            await asyncio.sleep(answer.retry_after)
            answer = await good_connections.ask(draw.choice(good_requests))
        good.served += answer.status == 201
        good.seconds.append((started - begun, time.perf_counter() - started, at_once))

    async def anonymous_call() -> None:
        anonymous.calls += 1
        if anonymous_connections.busy:
            anonymous.not_sent += 1
            return
        answer = await anonymous_connections.ask(draw.choice(anonymous_requests))
        anonymous.note(answer)

    samples: list[Sample] = []
    waits: list[float] = []

    async def sampled() -> None:
        while True:
            samples.append(Sample.of(child))
            await asyncio.sleep(1)

    async def watch_itself() -> None:
        while True:
            expected = time.perf_counter() + OWN_PERIOD_SECONDS
            await asyncio.sleep(OWN_PERIOD_SECONDS)
            waits.append(time.perf_counter() - expected)

    sampling = asyncio.create_task(sampled())
    watching = asyncio.create_task(watch_itself())
    calm, after = 5.0, 10.0

    def rising(at: float) -> float:
        return 1.5 * sustainable * min(1.0, 2 * at / seconds)

    async def flood() -> None:
        await asyncio.sleep(calm)
        usage = Usage(child)
        await paced(rising, seconds, anonymous_call)
        print(f"during the flood the service got {usage.share():.0%} of a core")

    flooding = asyncio.create_task(flood())
    await paced(lambda at: sustainable / 2, calm + seconds + after, good_call)
    await flooding
    sampling.cancel()
    watching.cancel()
    good_connections.close()
    anonymous_connections.close()
    print(f"this command itself was late: p99 {percentile(waits, 0.99):.3f} s, at most {max(waits):.3f} s")
    return _report(good, anonymous, samples, before, calm, calm + seconds)


def _report(
    good: Callers, anonymous: Callers, samples: list[Sample], before: Sample, begins: float, ends: float
) -> bool:
    for callers in (good, anonymous):
        print(f"{callers.name}: {callers.calls} calls, {dict(callers.statuses)}, {callers.not_sent} not sent")
        if callers.unanswered:
            print(f"{callers.name}, unanswered: {dict(callers.unanswered)}")
    for name, since, until in (("before", 0.0, begins), ("flood", begins, ends), ("after", ends, ends + 60)):
        taken = [took for at, took, _ in good.seconds if since <= at < until]
        print(f"good, {name}: p50 {percentile(taken, 0.5):.3f} s, p99 {percentile(taken, 0.99):.3f} s")
    peak = max(sample.resident for sample in samples)
    print("resident MiB, each 5 s: " + " ".join(f"{sample.resident:.0f}" for sample in samples[::5]))
    print(f"most descriptors {max(s.descriptors for s in samples)}, threads {max(s.threads for s in samples)}")
    refused = [*good.refused, *anonymous.refused]
    late = percentile([answer.seconds for answer in refused], 0.99)
    usual = percentile([took for at, took, _ in good.seconds if at < begins], 0.99)
    recovery = _recovery(good, ends, max(0.1, 3 * usual))
    share = good.served / good.calls if good.calls else 0.0
    print(f"503: {anonymous.statuses[503]} to anonymous callers, {good.statuses[503]} to good ones, p99 {late:.3f} s")
    print(f"recovered {recovery:.0f} s after the flood; served {share:.2%}")
    held = {
        f"at least {SERVED_AT_LEAST:.0%} of good callers are served": share >= SERVED_AT_LEAST,
        "anonymous callers are answered 503": anonymous.statuses[503] > 0,
        f"memory grows by {GROWTH_AT_MOST:.0f} MiB at most": peak - before.resident <= GROWTH_AT_MOST,
        f"a 503 comes within {EARLY_SECONDS:.0f} s": late <= EARLY_SECONDS,
        "a 503 says when to come back": all(answer.retry_after is not None for answer in refused),
        "answers are those of the contract": set(good.statuses) <= {201, 503} and set(anonymous.statuses) <= {401, 503},
        f"recovered within {RECOVERY_SECONDS:.0f} s": recovery <= RECOVERY_SECONDS,
    }
    for what, holds in held.items():
        print(f"{'held' if holds else 'BROKEN'}: {what}")
    return all(held.values())


def _recovery(good: Callers, ends: float, quick: float) -> float:
    """The first whole second after the flood from which 99 of 100 good calls are served at once and quickly."""
    for second in range(10):
        taken = [(took, at_once) for at, took, at_once in good.seconds if ends + second <= at < ends + second + 1]
        if taken and sum(at_once and took <= quick for took, at_once in taken) >= 0.99 * len(taken):
            return float(second)
    return float("inf")


def main(arguments: Sequence[str]) -> int:
    """See `--help`."""
    parser = argparse.ArgumentParser(prog="soak overload", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long anonymous callers flood")
    parser.add_argument("--connections", type=int, default=600, help="of good callers, and as many of anonymous ones")
    parser.add_argument(
        "--unbounded", action="store_true", help="let the service refuse nobody for being late: this must fail"
    )
    parser.add_argument("--seed", type=int, default=1, help="draws who sends what")
    given = parser.parse_args(arguments)
    print(f"seed {given.seed}")

    async def run(directory: Path) -> bool:
        arguments = UNBOUNDED if given.unbounded else SERVE
        async with running(directory, USERS, arguments=arguments) as (child, tokens):
            return await measure(child, tokens, given.seconds, given.connections, random.Random(given.seed))

    with tempfile.TemporaryDirectory() as directory, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return 0 if runner.run(run(Path(directory))) else 1
