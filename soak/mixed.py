"""Memory, descriptors and threads stay flat under mixed load."""

import argparse
import asyncio
import random
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import uvloop

from benchmark.processes import Child
from soak._callers import Connections, Sample, request, running

USERS = 300
CALLERS = 8
PAUSE_SECONDS = 0.02
CALLS = (
    ("GET", "/api/token", 50),
    ("GET", "/api/user", 20),
    ("POST", "/api/user", 20),
    ("DELETE", "/api/user", 5),
    ("GET", "/health/ready", 5),
)
EXPECTED = {200, 201, 204, 401, 404}
RESIDENT_AT_MOST = 1.05  # of what it was after the first quarter, and 4 MiB
RESIDENT_SLACK = 4.0
COUNT_SLACK = 10


async def measure(child: Child, tokens: list[str], seconds: float, draw: random.Random) -> bool:
    """Print the series; whether it is flat from the first quarter on."""
    connections = Connections(child.url, CALLERS)
    statuses: Counter[int] = Counter()
    until = time.perf_counter() + seconds
    weights = [weight for _, _, weight in CALLS]

    async def caller() -> None:
        while time.perf_counter() < until:
            (method, path, _), token = draw.choices(CALLS, weights)[0], draw.choice([*tokens, None, "nonsense"])
            answer = await connections.ask(request(child, method, path, token))
            statuses[answer.status] += 1
            await asyncio.sleep(PAUSE_SECONDS)

    samples: list[Sample] = []

    async def sampled() -> None:
        every = max(1.0, seconds / 60)
        while True:
            samples.append(Sample.of(child))
            print(f"{(len(samples) - 1) * every:6.0f} s {samples[-1]}, {statuses.total()} calls", flush=True)
            await asyncio.sleep(every)

    sampling = asyncio.create_task(sampled())
    await asyncio.gather(*(caller() for _ in range(CALLERS)))
    sampling.cancel()
    connections.close()
    print(f"answers {dict(statuses)}")
    quarter = max(1, len(samples) // 4)
    early, late = samples[quarter : 2 * quarter] or samples, samples[-quarter:]
    held = {"answers are those of the contract": set(statuses) <= EXPECTED}
    for name, slack, factor in (
        ("resident", RESIDENT_SLACK, RESIDENT_AT_MOST),
        ("descriptors", COUNT_SLACK, 1.0),
        ("threads", COUNT_SLACK, 1.0),
    ):
        was, is_now = (statistics.median(getattr(sample, name) for sample in part) for part in (early, late))
        print(f"{name}: second quarter {was:.1f}, last quarter {is_now:.1f}")
        held[f"{name} flat"] = is_now <= was * factor + slack
    for what, holds in held.items():
        print(f"{'held' if holds else 'BROKEN'}: {what}")
    return all(held.values())


def main(arguments: Sequence[str]) -> int:
    """See `--help`."""
    parser = argparse.ArgumentParser(prog="soak mixed", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=1, help="draws who asks what")
    given = parser.parse_args(arguments)
    print(f"seed {given.seed}, {given.minutes} minutes")

    async def run(directory: Path) -> bool:
        async with running(directory, USERS) as (child, tokens):
            return await measure(child, tokens, given.minutes * 60, random.Random(given.seed))

    with tempfile.TemporaryDirectory() as directory, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return 0 if runner.run(run(Path(directory))) else 1
