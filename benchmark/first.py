"""The first sign-in of a user: the necessary calls one after another, measured for each store."""

import statistics
import uuid
from collections.abc import Mapping
from dataclasses import dataclass

from benchmark.bursts import one_after_another
from benchmark.load import request_bytes
from benchmark.processes import BenchmarkFailed, Child, Upstreams

NECESSARY: Mapping[str, tuple[str, ...]] = {
    "cosmos": ("cosmos", "acs", "cosmos"),
    "graph": ("entra", "graph", "acs", "graph"),
    "sqlite": ("acs",),
}
"""Which upstreams `POST /api/user` must ask for a new user, in this order: look, mint, write; Graph needs its token."""


@dataclass(frozen=True, slots=True)
class FirstSignIn:
    """Medians in milliseconds: of `POST /api/user` for a new user, and of the first `GET /api/token` after it.

    path   what the necessary calls take, counting only their delays
    calls  how many requests reached the upstreams for both
    """

    post: float
    get: float
    path: float
    calls: float


async def measure_first(
    store: str, child: Child, upstreams: Upstreams, delays: Mapping[str, float], users: int
) -> FirstSignIn:
    """Let so many new users sign in, one after another. Raises `BenchmarkFailed`."""
    warm, *tokens = await upstreams.tokens([str(uuid.uuid4()) for _ in range(users + 1)])
    await upstreams.delay(delays)
    await one_after_another(child.url, _requests(child, [warm]))  # connects to everyone
    calls = await upstreams.calls()
    seconds, statuses = await one_after_another(child.url, _requests(child, tokens))
    calls = await upstreams.calls() - calls
    await upstreams.delay({})
    if set(statuses) != {201}:
        raise BenchmarkFailed(f"First sign-ins, {store}: statuses {dict(statuses)}.")
    return FirstSignIn(
        post=statistics.median(seconds[::2]) * 1000,
        get=statistics.median(seconds[1::2]) * 1000,
        path=sum(delays[name] for name in NECESSARY[store]) * 1000,
        calls=calls / users,
    )


def _requests(child: Child, tokens: list[str]) -> list[bytes]:
    return [
        request_bytes(method, child.url + path, {"Authorization": f"Bearer {token}"})
        for token in tokens
        for method, path in (("POST", "/api/user"), ("GET", "/api/token"))
    ]
