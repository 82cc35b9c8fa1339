"""What is measured of a running service: its routes, called by users who have an identity already."""

import itertools
from dataclasses import dataclass, field

from benchmark.load import Target, request_bytes
from benchmark.processes import Child, answered
from benchmark.throughput import Subject

ROUTES = (("GET", "/api/token", 201), ("GET", "/api/user", 200), ("POST", "/api/user", 200))
WARM_USERS = 10
"""Whose tokens are asked for: so few that their mappings are in memory, although that is so for a minute only."""


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


def target(child: Child, method: str, path: str, access_tokens: list[str]) -> Target:
    """The route, called with each token in turn."""
    url = child.url + path
    return Target(url, itertools.cycle([request_bytes(method, url, _authorization(token)) for token in access_tokens]))


def _authorization(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}
