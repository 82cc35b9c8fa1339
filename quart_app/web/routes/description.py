"""How a route describes itself for OpenAPI: what it does, what it takes and each answer it can give."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")
_DESCRIPTION = "route_description"


@dataclass(frozen=True, slots=True)
class Answer:
    """One status that a route answers with; without a `model`, below 300, the answer has no body."""

    status: int
    description: str
    model: type | None = None


@dataclass(frozen=True, slots=True)
class HeaderParameter:
    """A request header that a route needs."""

    name: str
    description: str


@dataclass(frozen=True, slots=True)
class QueryParameter:
    """A parameter in the query that a route takes; `schema` is its JSON Schema."""

    name: str
    description: str
    schema: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class RequestBody:
    """The JSON that a route takes, and needs, with an example of it."""

    model: type
    description: str
    example: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ScopeBesides:
    """The scope that the route needs besides the one that every caller's token carries."""

    name: str


@dataclass(frozen=True, slots=True)
class OlderNameOf:
    """The route is an older name of `operation`, such as `POST /api/user`: new clients use that one."""

    operation: str


@dataclass(frozen=True, slots=True)
class RouteDescription:
    """What `/openapi.json` says of a route beyond its path and methods."""

    summary: str
    answers: tuple[Answer, ...]
    headers: tuple[HeaderParameter, ...]
    query: tuple[QueryParameter, ...] = ()
    older_name_of: str | None = None
    body: RequestBody | None = None
    scope_besides: str | None = None


def describes(
    summary: str, *parts: Answer | HeaderParameter | QueryParameter | OlderNameOf | RequestBody | ScopeBesides
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Attach a description to a view."""

    def decorate(view: Callable[P, R]) -> Callable[P, R]:
        answers = tuple(part for part in parts if isinstance(part, Answer))
        headers = tuple(part for part in parts if isinstance(part, HeaderParameter))
        query = tuple(part for part in parts if isinstance(part, QueryParameter))
        replaced = next((part.operation for part in parts if isinstance(part, OlderNameOf)), None)
        body = next((part for part in parts if isinstance(part, RequestBody)), None)
        besides = next((part.name for part in parts if isinstance(part, ScopeBesides)), None)
        setattr(view, _DESCRIPTION, RouteDescription(summary, answers, headers, query, replaced, body, besides))
        return view

    return decorate


def description_of(view: Callable[..., object]) -> RouteDescription | None:
    """The description attached to a view, if there is one."""
    return getattr(view, _DESCRIPTION, None)
