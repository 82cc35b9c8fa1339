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
class RouteDescription:
    """What `/openapi.json` says of a route beyond its path and methods."""

    summary: str
    answers: tuple[Answer, ...]
    headers: tuple[HeaderParameter, ...]
    query: tuple[QueryParameter, ...] = ()


def describes(
    summary: str, *parts: Answer | HeaderParameter | QueryParameter
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Attach a description to a view."""

    def decorate(view: Callable[P, R]) -> Callable[P, R]:
        answers = tuple(part for part in parts if isinstance(part, Answer))
        headers = tuple(part for part in parts if isinstance(part, HeaderParameter))
        query = tuple(part for part in parts if isinstance(part, QueryParameter))
        setattr(view, _DESCRIPTION, RouteDescription(summary, answers, headers, query))
        return view

    return decorate


def description_of(view: Callable[..., object]) -> RouteDescription | None:
    """The description attached to a view, if there is one."""
    return getattr(view, _DESCRIPTION, None)
