"""The subset of the SQL dialect that the stand-in answers.

`SELECT *`, chosen properties, `SELECT VALUE` of one property, and `SELECT VALUE COUNT(1)`; with filters and parameters,
ordered or not. https://learn.microsoft.com/azure/cosmos-db/nosql/query/select.
"""

import operator
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from local_azure.cosmos.errors import bad_request

Item = dict[str, Any]

_QUERY = re.compile(
    r"SELECT\s+(?P<select>\*|VALUE\s+COUNT\s*\(\s*1\s*\)|VALUE\s+[\w.]+|[\w.]+[\w.,\s]*?)\s+FROM\s+(?P<alias>\w+)(?:\s+(?:AS\s+)?(?!WHERE\b|ORDER\b)(?P<renamed>\w+))?"
    r"(?:\s+WHERE\s+(?P<where>.+?))?"
    r"(?:\s+ORDER\s+BY\s+(?P<order>[\w.]+)(?:\s+(?P<direction>ASC|DESC))?)?\s*;?",
    re.IGNORECASE | re.DOTALL,
)
_CONDITION = re.compile(
    r"(?P<path>[\w.]+)\s*(?P<operator>=|!=|<>|<=|>=|<|>)\s*"
    r"(?P<value>@\w+|\"[^\"]*\"|'[^']*'|true|false|null|-?\d+(?:\.\d+)?)",
    re.IGNORECASE,
)
_COUNT = re.compile(r"VALUE\s+COUNT\s*\(\s*1\s*\)", re.IGNORECASE)
_VALUE = re.compile(r"VALUE\s+(?P<path>[\w.]+)", re.IGNORECASE)
_PROPERTY = re.compile(r"(?P<path>[\w.]+)(?:\s+AS\s+(?P<name>\w+))?", re.IGNORECASE)
_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<>": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_LITERALS: dict[str, Any] = {"true": True, "false": False, "null": None}
_MISSING = object()


@dataclass(frozen=True, slots=True)
class Query:
    """A parsed query: which items it keeps, how it orders them, and what it returns of each.

    `properties` maps names to paths, and `value` is one path; without either it tells items whole. `counts` asks for
    their number only.
    """

    conditions: tuple[tuple[list[str], Callable[[Any, Any], bool], Any], ...]
    order_by: list[str] | None
    descending: bool
    properties: dict[str, list[str]] | None = None
    value: list[str] | None = None
    counts: bool = False

    def tell(self, items: Iterable[Item]) -> list[Any]:
        """What the query returns of these items. Properties that an item lacks are left out, as the service does."""
        if self.counts:
            return [sum(1 for _ in items)]
        if self.value is not None:
            path = self.value
            return [found for item in items if (found := _value(item, path)) is not _MISSING]
        if self.properties is not None:
            named = self.properties.items()
            return [
                {name: found for name, path in named if (found := _value(item, path)) is not _MISSING} for item in items
            ]
        return list(items)

    def keeps(self, item: Item) -> bool:
        """Whether the item satisfies every condition; a missing property or another type satisfies none."""
        for path, compare, expected in self.conditions:
            value = _value(item, path)
            if value is _MISSING or type(value) is not type(expected) or not compare(value, expected):
                return False
        return True

    def arrange(self, items: list[Item]) -> list[Item]:
        """The items in the query's order; those without the property are left out, as the service does."""
        if self.order_by is None:
            return items
        path = self.order_by
        present = [item for item in items if _value(item, path) is not _MISSING]
        return sorted(present, key=lambda item: str(_value(item, path)), reverse=self.descending)


def parse(text: str, parameters: dict[str, Any]) -> Query:
    """Parse a query. Raises `CosmosError` 400 for a syntax error and for what the stand-in doesn't know."""
    match = _QUERY.fullmatch(text.strip())
    if match is None:
        raise bad_request("Syntax error, or a query that the stand-in does not support.")
    alias = match["renamed"] or match["alias"]
    conditions = []
    for part in re.split(r"\s+AND\s+", match["where"] or "", flags=re.IGNORECASE):
        if not part.strip():
            continue
        condition = _CONDITION.fullmatch(part.strip())
        if condition is None:
            raise bad_request("Syntax error, or a condition that the stand-in does not support.")
        path = _path(condition["path"], alias)
        conditions.append((path, _OPERATORS[condition["operator"]], _literal(condition["value"], parameters)))
    order_by = _path(match["order"], alias) if match["order"] else None
    descending = (match["direction"] or "").upper() == "DESC"
    return replace(
        _selection(match["select"], alias), conditions=tuple(conditions), order_by=order_by, descending=descending
    )


def _selection(text: str, alias: str) -> Query:
    """The query without conditions and order."""
    everything = Query((), None, descending=False)
    if text == "*":
        return everything
    if _COUNT.fullmatch(text):
        return replace(everything, counts=True)
    if value := _VALUE.fullmatch(text):
        return replace(everything, value=_path(value["path"], alias))
    properties = {}
    for part in text.split(","):
        chosen = _PROPERTY.fullmatch(part.strip())
        if chosen is None:
            raise bad_request("Syntax error, or a projection that the stand-in does not support.")
        path = _path(chosen["path"], alias)
        properties[chosen["name"] or path[-1]] = path
    return replace(everything, properties=properties)


def _path(text: str, alias: str) -> list[str]:
    head, *path = text.split(".")
    if head != alias or not path:
        raise bad_request(f"Identifier '{head}' could not be resolved.")
    return path


def _literal(text: str, parameters: dict[str, Any]) -> Any:
    if text.startswith("@"):
        if text not in parameters:
            raise bad_request(f"The parameter '{text}' is not defined.")
        return parameters[text]
    if text[0] in "\"'":
        return text[1:-1]
    if text.lower() in _LITERALS:
        return _LITERALS[text.lower()]
    return float(text) if "." in text else int(text)


def _value(item: Any, path: list[str]) -> Any:
    for name in path:
        if not isinstance(item, dict) or name not in item:
            return _MISSING
        item = item[name]
    return item
