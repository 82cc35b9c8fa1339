"""The subset of the SQL dialect that the stand-in answers: filters on `SELECT *`, with parameters, ordered or not."""

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from local_azure.cosmos.errors import bad_request

Item = dict[str, Any]

_QUERY = re.compile(
    r"SELECT\s+\*\s+FROM\s+(?P<alias>\w+)(?:\s+(?:AS\s+)?(?!WHERE\b|ORDER\b)(?P<renamed>\w+))?"
    r"(?:\s+WHERE\s+(?P<where>.+?))?"
    r"(?:\s+ORDER\s+BY\s+(?P<order>[\w.]+)(?:\s+(?P<direction>ASC|DESC))?)?\s*;?",
    re.IGNORECASE | re.DOTALL,
)
_CONDITION = re.compile(
    r"(?P<path>[\w.]+)\s*(?P<operator>=|!=|<>|<=|>=|<|>)\s*"
    r"(?P<value>@\w+|\"[^\"]*\"|'[^']*'|true|false|null|-?\d+(?:\.\d+)?)",
    re.IGNORECASE,
)
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
    """A parsed query: which items it keeps and how it orders them."""

    conditions: tuple[tuple[list[str], Callable[[Any, Any], bool], Any], ...]
    order_by: list[str] | None
    descending: bool

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
    return Query(tuple(conditions), order_by, (match["direction"] or "").upper() == "DESC")


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
