"""What is measured of a running service: its routes, called by users who have an identity already."""

import itertools
from dataclasses import dataclass, field

from benchmark.load import Target, request_bytes
from benchmark.processes import BenchmarkFailed, Child, answered, status_of
from benchmark.throughput import Subject

ROUTES = (("GET", "/api/token", 201), ("GET", "/api/user", 200), ("POST", "/api/user", 200))
WARM_USERS = 10
"""Whose tokens are asked for: so few that their mappings are in memory, although they stay there only for a minute."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """Users and an access token of each."""

    object_ids: list[str]
    access_tokens: list[str] = field(repr=False)


async def subjects_of(name: str, child: Child, tokens: Tokens) -> list[Subject]:
    """One subject for each route, named `<method> <path> <name>`; all users get their identities, and use them once."""
    for token in tokens.access_tokens:
        await answered(child, "POST", "/api/user", _authorization(token), 200)
        await answered(child, "GET", "/api/token", _authorization(token), 201)
    few, all_of_them = tokens.access_tokens[:WARM_USERS], tokens.access_tokens
    return [
        Subject(
            f"{method} {path}, {name}",
            child,
            target(child, method, path, few if path == "/api/token" else all_of_them),
            status,
        )
        for method, path, status in ROUTES
    ]


async def subjects_of_peer(name: str, child: Child, access_tokens: list[str]) -> list[Subject]:
    """Like `subjects_of`, for another server. Raises `BenchmarkFailed` where it does not serve a route."""
    for token in access_tokens:
        await status_of(child, "POST", "/api/user", _authorization(token))
    subjects = []
    for method, path, _ in ROUTES:
        status = await status_of(child, method, path, _authorization(access_tokens[0]))
        if not 200 <= status < 300:
            raise BenchmarkFailed(f"{name} answers {method} {path} with status {status}.")
        some = access_tokens[:WARM_USERS] if path == "/api/token" else access_tokens
        subjects.append(Subject(f"{method} {path}, {name}", child, target(child, method, path, some), status))
    return subjects


def target(child: Child, method: str, path: str, access_tokens: list[str]) -> Target:
    """The route, called with each token in turn."""
    url = child.url + path
    return Target(url, itertools.cycle([request_bytes(method, url, _authorization(token)) for token in access_tokens]))


def _authorization(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}
