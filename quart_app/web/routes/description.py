"""How a route describes itself for OpenAPI: what it does, what it takes and each answer it can give."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

from quart_app.web.error_names import ErrorName

P = ParamSpec("P")
R = TypeVar("R")
_DESCRIPTION = "route_description"


@dataclass(frozen=True, slots=True)
class Answer:
    """One status that a route answers with; without a `model`, below 300, the answer has no body.

    `error` is the name to show as the example of an error, where another one than usual for its status is likely.
    """

    status: int
    description: str
    model: type | None = None
    error: ErrorName | None = None


@dataclass(frozen=True, slots=True)
class Details:
    """What a caller should know of the route beyond its summary, in a sentence or two."""

    text: str


@dataclass(frozen=True, slots=True)
class HeaderParameter:
    """A request header that a route needs."""

    name: str
    description: str
    example: str


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
    details: str | None = None


def describes(
    summary: str,
    *parts: Answer | Details | HeaderParameter | QueryParameter | OlderNameOf | RequestBody | ScopeBesides,
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Attach a description to a view."""

    def decorate(view: Callable[P, R]) -> Callable[P, R]:
        answers = tuple(part for part in parts if isinstance(part, Answer))
        headers = tuple(part for part in parts if isinstance(part, HeaderParameter))
        query = tuple(part for part in parts if isinstance(part, QueryParameter))
        replaced = next((part.operation for part in parts if isinstance(part, OlderNameOf)), None)
        body = next((part for part in parts if isinstance(part, RequestBody)), None)
        besides = next((part.name for part in parts if isinstance(part, ScopeBesides)), None)
        details = next((part.text for part in parts if isinstance(part, Details)), None)
        setattr(
            view, _DESCRIPTION, RouteDescription(summary, answers, headers, query, replaced, body, besides, details)
        )
        return view

    return decorate


def description_of(view: Callable[..., object]) -> RouteDescription | None:
    """The description attached to a view, if there is one."""
    return getattr(view, _DESCRIPTION, None)
