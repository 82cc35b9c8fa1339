"""The variables that are given: those of the environment, and those of the file `.env`, which is read once."""

import io
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dotenv.parser import parse_stream

ENVIRONMENT = "environment"


@dataclass(frozen=True, slots=True)
class Variable:
    """A variable that is set, and not to nothing. `source` says where: in the environment, or on which line."""

    name: str
    value: str = field(repr=False)
    source: str


@dataclass(frozen=True, slots=True)
class Variables:
    """What is given, by names in capitals. `faults` says what in the file can't be understood.

    `repeated` are those that the file sets to another value than one of its earlier lines.
    """

    given: Mapping[str, Variable]
    faults: tuple[str, ...]
    repeated: tuple[Variable, ...]


def read_variables(environment: Mapping[str, str], env_file: Path | None) -> Variables:
    """What the environment sets, and what only the file sets. An empty variable is not set.

    The C# sample's lists (`NAME__0`, `NAME__1`) become one value, its colons double underscores: .NET reads both alike
    (https://learn.microsoft.com/aspnet/core/fundamentals/configuration/#non-prefixed-environment-variables).
    """
    lines, faults = _file(env_file) if env_file else ([], [])
    set_there = [Variable(name, value, ENVIRONMENT) for name, value in environment.items() if value]
    given: dict[str, Variable] = {}
    items: dict[str, set[int]] = {}
    for variable in [*lines, *set_there]:
        name = variable.name.replace(":", "__").upper()
        given[name] = variable
        if item := re.fullmatch(r"(.+)__(0|[1-9]\d*)", name):
            items.setdefault(item[1], set()).add(int(item[2]))
    for whole, by_number in items.items():
        if whole not in given:
            several = [given.pop(f"{whole}__{number}") for number in sorted(by_number)]
            name = re.sub(r"(__|:)\d+$", "", several[0].name)
            given[whole] = Variable(name, ",".join(each.value for each in several), several[0].source)
    return Variables(given, tuple(faults), tuple(_repeated(lines)))


def _file(path: Path) -> tuple[list[Variable], list[str]]:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return [], [f"{path} is a link to a file that does not exist."] if path.is_symlink() else []
    except OSError as error:
        return [], [
            f"{path} can't be read ({error.strerror}); make it a file that this process may read, or remove it."
        ]
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:  # UTF-16 without its mark is UTF-8, too, with NUL between the letters
        return [], [f"{path} can't be read: it is not UTF-8; save it with that encoding."]
    lines, faults = [], []
    for binding in parse_stream(io.StringIO(text)):
        line = binding.original.line + _lines_before(binding.original.string)
        if binding.key is None and not binding.error:
            continue
        if binding.error or binding.value is None or not re.match(r"[A-Za-z_]", binding.key or ""):
            faults.append(
                f"{path}, line {line}, can't be understood; write NAME=value, with quotation marks only around it all."
            )
        elif binding.value:
            lines.append(Variable(str(binding.key), binding.value, f"{path}, line {line}"))
    return lines, faults


def _lines_before(text: str) -> int:
    """How many empty lines the parser takes for the beginning of what follows them."""
    return len(re.findall(r"\r\n|\n|\r", text[: len(text) - len(text.lstrip())]))


def _repeated(lines: Iterable[Variable]) -> Iterable[Variable]:
    seen: dict[str, str] = {}
    for variable in lines:
        if seen.setdefault(variable.name.upper(), variable.value) != variable.value:
            yield variable
