"""Clients that leave before they are answered cost no memory that stays."""

import argparse
import asyncio
import contextlib
import random
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import uvloop

from benchmark.processes import Child
from soak._callers import Connections, Sample, request, running

CLIENTS = 117_800
USERS = 1_000
AT_ONCE = 300
ACS_SECONDS = 0.3
CALLS = (("GET", "/api/token", 6), ("POST", "/api/user", 3), ("DELETE", "/api/user", 1))
RESIDENT_AT_MOST = 200.0  # MiB
COUNT_SLACK = 20
SETTLING_SECONDS = 60.0
CONNECTED_SECONDS = 60.0
EVERY_SECONDS = 5.0


async def measure(child: Child, tokens: list[str], clients: int, at_once: int, draw: random.Random) -> bool:
    """Print the series while the clients come and leave; whether the bounds hold."""
    parts = urlsplit(child.url)
    weights = [weight for _, _, weight in CALLS]
    begun = time.perf_counter()
    before = Sample.of(child)
    samples = [before]
    counts: Counter[str] = Counter()

    def sample() -> None:
        samples.append(Sample.of(child))
        print(f"{time.perf_counter() - begun:6.0f} s {samples[-1]}, {counts['left']} left", flush=True)

    async def come_and_leave() -> None:
        while counts["came"] < clients:
            counts["came"] += 1
            (method, path, _), token = draw.choices(CALLS, weights)[0], draw.choice(tokens)
            try:
                async with asyncio.timeout(CONNECTED_SECONDS):
                    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
            except (OSError, TimeoutError):
                counts["not connected"] += 1
                continue
            try:
                writer.write(request(child, method, path, token))
                async with asyncio.timeout(draw.uniform(0, ACS_SECONDS)):
                    counts["answered"] += bool(await reader.read(1))
            except TimeoutError:
                pass
            except OSError:
                counts["broken"] += 1
            finally:
                writer.transport.abort()
                counts["left"] += 1

    async def sampled() -> None:
        while True:
            sample()
            await asyncio.sleep(EVERY_SECONDS)

    sampling = asyncio.create_task(sampled())
    await asyncio.gather(*(come_and_leave() for _ in range(at_once)))
    seconds = time.perf_counter() - begun
    settled = await _settled(child, before)
    sampling.cancel()
    sample()
    served = await _served(child, tokens[0])
    peak = max(each.resident for each in samples)
    print(f"{dict(counts)} in {seconds:.0f} s; {clients / seconds:.0f} a second")
    print(f"resident {before.resident:.0f} MiB at first, {peak:.0f} at most, {samples[-1].resident:.0f} at last")
    held = {
        f"resident memory stays below {RESIDENT_AT_MOST:.0f} MiB": peak <= RESIDENT_AT_MOST,
        f"descriptors and threads are back within {SETTLING_SECONDS:.0f} s": settled,
        "everybody could connect": not counts["not connected"],
        "who stays is served": served,
    }
    for what, holds in held.items():
        print(f"{'held' if holds else 'BROKEN'}: {what}")
    return all(held.values())


async def _settled(child: Child, before: Sample) -> bool:
    """Whether the process soon holds no more descriptors and threads than it did, but for a few."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(SETTLING_SECONDS):
            while True:
                now = Sample.of(child)
                if max(now.descriptors - before.descriptors, now.threads - before.threads) <= COUNT_SLACK:
                    return True
                await asyncio.sleep(1)
    return False


async def _served(child: Child, token: str) -> bool:
    connections = Connections(child.url, 1)
    answers = [
        await connections.ask(request(child, method, path, token))
        for method, path in (("POST", "/api/user"), ("GET", "/api/token"))
    ]
    connections.close()
    print(f"a caller who stays is answered {[answer.status for answer in answers]}")
    return answers[0].status in (200, 201) and answers[1].status == 201


def main(arguments: Sequence[str]) -> int:
    """See `--help`."""
    parser = argparse.ArgumentParser(prog="soak leaving", description=__doc__)
    parser.add_argument("--clients", type=int, default=CLIENTS, help="how many come and leave")
    parser.add_argument("--at-once", type=int, default=AT_ONCE, help="how many of them are there at a time")
    parser.add_argument("--seed", type=int, default=1, help="draws who asks what and leaves when")
    given = parser.parse_args(arguments)
    print(f"seed {given.seed}, {given.clients} clients, {given.at_once} at a time, ACS takes {ACS_SECONDS} s")

    async def run(directory: Path) -> bool:
        async with running(directory, USERS, delays={"acs": ACS_SECONDS}) as (child, tokens):
            return await measure(child, tokens, given.clients, given.at_once, random.Random(given.seed))

    with tempfile.TemporaryDirectory() as directory, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return 0 if runner.run(run(Path(directory))) else 1
