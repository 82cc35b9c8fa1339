"""Reads Bicep into plain values, as far as contracts with the code need it. What is not a literal stays text."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import tree_sitter
import tree_sitter_bicep

_PARSER = tree_sitter.Parser(tree_sitter.Language(tree_sitter_bicep.language()))


@dataclass(frozen=True, slots=True)
class Expression:
    """Anything that is computed: a reference, a call, an interpolated string."""

    text: str


Value: TypeAlias = "str | int | bool | Expression | list[Value] | dict[str, Value] | None"


@dataclass(frozen=True, slots=True)
class Block:
    """A resource or a module: its type or path, and its body."""

    kind: str
    existing: bool
    body: dict[str, Value]


class Template:
    """One Bicep file. `parameters` holds the defaults, `Expression("")` where there is none."""

    def __init__(self, text: str) -> None:
        self.parameters: dict[str, Value] = {}
        self.variables: dict[str, Value] = {}
        self.resources: dict[str, Block] = {}
        self.modules: dict[str, Block] = {}
        self.outputs: dict[str, Value] = {}
        self.calls: set[str] = set()
        root = _PARSER.parse(text.encode()).root_node
        for node in _walk(root):
            self._note(node)

    def resource(self, kind: str) -> dict[str, Value]:
        """The body of the only resource of this type, not counting existing ones. Raises `KeyError`."""
        found = [
            each.body for each in self.resources.values() if each.kind.startswith(f"{kind}@") and not each.existing
        ]
        if len(found) != 1:
            raise KeyError(f"{len(found)} resources of type {kind}")
        return found[0]

    def resolved(self, value: Value) -> Value:
        """The value with each variable's name replaced by what the variable holds."""
        match value:
            case Expression(text) if text in self.variables:
                return self.resolved(self.variables[text])
            case Expression(text) if text.startswith("string(") and text.removeprefix("string(")[:-1] in self.variables:
                return str(self.resolved(self.variables[text.removeprefix("string(")[:-1]]))
            case list():
                return [self.resolved(each) for each in value]
            case dict():
                return {name: self.resolved(each) for name, each in value.items()}
        return value

    def _note(self, node: tree_sitter.Node) -> None:
        named = node.named_children
        match node.type:
            # The grammar does not know this one statement.
            case "ERROR" if _text(node).startswith("extension "):
                return
            case "ERROR":
                raise SyntaxError(f"line {node.start_point[0] + 1}: {_text(node)[:60]}")
            case "parameter_declaration":
                has_default = named[-1].type != "type"
                self.parameters[_text(named[0])] = _value(named[-1]) if has_default else Expression("")
            case "variable_declaration":
                self.variables[_text(named[0])] = _value(named[-1])
            case "output_declaration":
                self.outputs[_text(named[0])] = _value(named[-1])
            case "resource_declaration" | "module_declaration":
                into = self.resources if node.type.startswith("resource") else self.modules
                existing = any(child.type == "existing" for child in node.children)
                body = _value(_body(named[-1]))
                assert isinstance(body, dict)
                into[_text(named[0])] = Block(_text(named[1]).strip("'"), existing, body)
            case "call_expression":
                self.calls.add(_text(named[0]).rpartition(".")[2])


def texts(value: Value) -> Iterator[str]:
    """Every text within a value, of literals and of expressions."""
    match value:
        case str():
            yield value
        case Expression(text):
            yield text
        case list():
            for each in value:
                yield from texts(each)
        case dict():
            for each in value.values():
                yield from texts(each)


def at(value: Value, *path: str | int) -> Value:
    """What is found by following names and indices. Raises `KeyError`, saying how far it came."""
    for done, step in enumerate(path):
        if isinstance(value, Mapping) and step in value:
            value = value[str(step)]
        elif isinstance(value, list) and isinstance(step, int) and step < len(value):
            value = value[step]
        else:
            raise KeyError("/".join(map(str, path[: done + 1])))
    return value


def _walk(node: tree_sitter.Node) -> Iterator[tree_sitter.Node]:
    yield node
    for child in node.children:
        yield from _walk(child)


def _text(node: tree_sitter.Node) -> str:
    return (node.text or b"").decode()


def _body(node: tree_sitter.Node) -> tree_sitter.Node:
    """What a condition or a loop contains."""
    while node.type in ("if_statement", "for_statement"):
        node = node.named_children[-1]
    return node


def _value(node: tree_sitter.Node) -> Value:
    text = _text(node)
    match node.type:
        case "string" if not any(child.type == "interpolation" for child in node.children):
            return text[1:-1].replace("\\'", "'")
        case "number":
            return int(text)
        case "boolean":
            return text == "true"
        case "null":
            return None
        case "array":
            return [_value(child) for child in node.named_children if child.type != "comment"]
        case "object":
            pairs = [child.named_children for child in node.named_children if child.type == "object_property"]
            return {_text(pair[0]).strip("'"): _value(pair[-1]) for pair in pairs if len(pair) > 1}
    return Expression(text)
