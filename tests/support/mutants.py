"""Changes the code in one place at a time and asks its own room's tests whether they notice: `make mutants`.

The changes are cosmic-ray's (https://cosmic-ray.readthedocs.io), which is in an environment of its own. Each is made in
a copy of the checkout. Left out are changes of `|`, which here stands in type annotations and fails on import, and what
says only how a value may be made or used: `frozen` and `slots` of a dataclass, `*` for `/` in a signature. So are `==`
for `is` where something is compared with `None`, a truth value or a member of an enumeration: there is only one of it.
So is a default of four or more, a size or a time, that is one larger or smaller.

The tests that run a changed line come first; only what they don't notice is tried by the whole room.
"""

import argparse
import ast
import difflib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from queue import Queue

import cosmic_ray.plugins
from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code

ROOT = Path(__file__).parents[2]
PACKAGES = ("quart_app", "storage", "upstream")
SHORTEST_TIMEOUT_SECONDS = 20.0
TIMEOUT_FACTOR = 5.0
"""Tests may take so many times as long with a change as they took without, on a busy machine too."""
LEAST_SIZE = 4
_ANNOTATIONS = "core/ReplaceBinaryOperator_BitOr_"
_TESTED_IN = {"quart_app/operations": "tests/quart_app/cli"}
"""Rooms whose tests drive them through another room."""
_REPEATED_IN = {"refusals.py": "tests/test_upstream_errors_document.py"}
"""Files, by the end of their names, whose tables a document repeats, and the test that compares them."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change: the `occurrence`th place in the file at `path` that `operator` can change."""

    path: str
    operator: str
    occurrence: int

    def __str__(self) -> str:
        return f"{self.path} {self.operator.removeprefix('core/')} {self.occurrence}"


def mutants(path: str) -> Iterator[Mutant]:
    """Every change of the file, in a fixed order."""
    parsed = get_ast((ROOT / path).read_text())
    for name in sorted(cosmic_ray.plugins.operator_names()):
        operator = cosmic_ray.plugins.get_operator(name)
        if name.startswith(_ANNOTATIONS) or operator.arguments():
            continue
        places = sum(len(list(operator().mutation_positions(node))) for node in ast_nodes(parsed))
        yield from (Mutant(path, name, occurrence) for occurrence in range(places))


def mutated(mutant: Mutant) -> str | None:
    """The file's text after the change; `None` where the program stays the same, or is none."""
    text = (ROOT / mutant.path).read_text()
    operator = cosmic_ray.plugins.get_operator(mutant.operator)()
    try:
        changed: str | None = mutate_code(text, operator, mutant.occurrence)
    except AttributeError:
        return None  # cosmic-ray can't replace an exception whose name has a dot
    try:
        same = changed is None or _meaning(changed) == _meaning(text)
    except SyntaxError:
        return None
    return None if same else changed


class _Meaning(ast.NodeTransformer):
    """Takes out what makes no difference to a program that is right."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        """Take out `frozen` and `slots` of a dataclass."""
        if isinstance(node.func, ast.Name) and node.func.id == "dataclass":
            node.keywords = [keyword for keyword in node.keywords if keyword.arg not in ("frozen", "slots")]
        return self.generic_visit(node)

    def visit_arguments(self, node: ast.arguments) -> ast.AST:
        """Take out which arguments have to be named, and which must not be."""
        without = len(node.posonlyargs) + len(node.args) - len(node.defaults)
        defaults = [*[None] * without, *node.defaults, *node.kw_defaults]
        defaults = [None if default is None else _about(default) for default in defaults]
        node.kwonlyargs = [*node.posonlyargs, *node.args, *node.kwonlyargs]
        node.posonlyargs, node.args, node.defaults, node.kw_defaults = [], [], [], defaults
        return self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST:
        """Take a field's default for what it is about."""
        node.value = None if node.value is None else _about(node.value)
        return self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> ast.AST:
        """Write `==` for `is` and `!=` for `is not` where it is the same."""
        equal: dict[type[ast.cmpop], type[ast.cmpop]] = {ast.Is: ast.Eq, ast.IsNot: ast.NotEq}
        node.ops = [
            equal.get(type(operator), type(operator))() if _is_single(right) else operator
            for operator, right in zip(node.ops, node.comparators, strict=True)
        ]
        return self.generic_visit(node)


def _about(default: ast.expr) -> ast.expr:
    match default:
        case ast.Constant(value=int() | float() as number) if number >= LEAST_SIZE:
            return ast.Constant("a size or a time")
    return default


def _is_single(node: ast.expr) -> bool:
    if isinstance(node, ast.Attribute):  # a member of an enumeration, such as `Reason.EXPIRED`
        return isinstance(node.value, ast.Name) and node.value.id[:1].isupper() and node.attr.isupper()
    return isinstance(node, ast.Constant) and (node.value is None or isinstance(node.value, bool))


def _meaning(program: str) -> str:
    """Raises `SyntaxError`."""
    return ast.dump(_Meaning().visit(ast.parse(program)))


def room_tests(path: str) -> list[str]:
    """The test files of the room that the file is in, not those of rooms inside it; and those of `_REPEATED_IN`."""
    room = Path(path).parent
    folder = Path(_TESTED_IN.get(room.as_posix(), Path("tests", room).as_posix()))
    while not (ROOT / folder).is_dir():
        folder = folder.parent
    beside = [test for ending, test in _REPEATED_IN.items() if path.endswith(ending)]
    return sorted([test.relative_to(ROOT).as_posix() for test in (ROOT / folder).glob("test_*.py")] + beside)


@dataclass(frozen=True, slots=True)
class Room:
    """How long each of a room's tests takes, by its id, and which of them run which lines of which files."""

    seconds: dict[str, float]
    lines: dict[str, dict[str, list[str]]]

    def quickest_first(self, tests: Iterable[str]) -> list[str]:
        """Those of the file first that take the least, so that a mistake is soon noticed."""
        kept = set(tests)
        files: defaultdict[str, float] = defaultdict(float)
        for test in kept:
            files[_file(test)] += self.seconds[test]
        return sorted(kept, key=lambda test: (files[_file(test)], _file(test), self.seconds[test], test))

    def timeouts(self, tests: list[str]) -> tuple[float, float]:
        """The seconds after which one of `tests` counts as hanging, and after which they do together."""
        seconds = [self.seconds[test] for test in tests]
        each, all_together = max(seconds), sum(seconds)
        return (
            SHORTEST_TIMEOUT_SECONDS + TIMEOUT_FACTOR * each,
            SHORTEST_TIMEOUT_SECONDS + TIMEOUT_FACTOR * all_together,
        )


def _file(test: str) -> str:
    return test.partition("::")[0]


def survives(copy: Path, python: str, tests: list[str], timeouts: tuple[float, float]) -> bool:
    """Whether all tests pass in the copy; what hangs is noticed (see `Room.timeouts`)."""
    each, all_together = timeouts
    listed = copy / "tests.txt"
    listed.write_text("\n".join(tests))
    command = ["nice", python, "-m", "pytest", "-x", "-q", "-n", "0", "-p", "no:cacheprovider", f"@{listed}"]
    command += ["-o", f"faulthandler_timeout={each}", "-o", "faulthandler_exit_on_timeout=true"]
    try:
        done = subprocess.run(
            command, cwd=copy, env=_environment(copy), capture_output=True, timeout=all_together, check=False
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def measured(copy: Path, python: str, tests: list[str]) -> Room:
    """What the unchanged tests run. Raises `SystemExit` with what pytest printed if one fails."""
    found = copy / "tests_of_lines.json"
    command = ["nice", python, "-m", "tests.support.tests_of_lines", str(found), *tests]
    done = subprocess.run(command, cwd=copy, env=_environment(copy), capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"Mend these tests first: they fail without any change.\n{done.stdout}{done.stderr}")
    return Room(**json.loads(found.read_text()))


def changed_lines(before: str, after: str) -> list[int]:
    """The numbers of the lines of `before` that are others in `after`."""
    changes = difflib.SequenceMatcher(None, before.splitlines(), after.splitlines(), autojunk=False).get_opcodes()
    return [line + 1 for tag, begins, ends, _, _ in changes if tag != "equal" for line in range(begins, ends)]


def _environment(copy: Path) -> dict[str, str]:
    # Compiled modules are kept: it takes three seconds to compile all of them, and no change lasts less than one.
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**inherited, "PYTHONPATH": str(copy)}


def copied(directory: Path) -> Path:
    """The checkout's files in `directory`, as they are now."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.decode()
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, directory / name)
    return directory


def difference(mutant: Mutant, changed: str) -> str:
    """What the change is, in two lines."""
    before = (ROOT / mutant.path).read_text().splitlines()
    lines = list(difflib.unified_diff(before, changed.splitlines(), lineterm="", n=0))[2:]
    return "\n".join(f"    {line}" for line in lines)


def main() -> int:
    """See `--help`."""
    parser = argparse.ArgumentParser(prog="make mutants", description=__doc__.partition("\n")[0])
    parser.add_argument("paths", nargs="*", help="files to change (default: all of the service)")
    parser.add_argument("--python", type=Path, default=Path(sys.executable), help="runs the tests")
    parser.add_argument("--number", type=int, default=300, help="how many to draw; 0 takes all")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--minutes", type=float, default=600.0, help="begin none after so long")
    given = parser.parse_args()
    paths = given.paths or sorted(
        str(path.relative_to(ROOT)) for package in PACKAGES for path in (ROOT / package).rglob("*.py")
    )
    every = [mutant for path in paths for mutant in mutants(path)]
    drawn = random.Random(given.seed).sample(every, min(given.number or len(every), len(every)))
    print(f"seed {given.seed}: {len(drawn)} of {len(every)} changes in {len(paths)} files", flush=True)
    until = time.monotonic() + given.minutes * 60
    python = str(given.python.absolute())
    results: Counter[str] = Counter()
    rooms: dict[tuple[str, ...], Room] = {}
    with tempfile.TemporaryDirectory() as directory:
        copies: Queue[Path] = Queue()
        for job in range(given.jobs):
            copies.put(copied(Path(directory, str(job))))

        def measure(tests: tuple[str, ...]) -> None:
            copy = copies.get()
            try:
                rooms[tests] = measured(copy, python, list(tests))
            finally:
                copies.put(copy)

        def judge(mutant: Mutant) -> str:
            before, changed = (ROOT / mutant.path).read_text(), mutated(mutant)
            if changed is None:
                return "the same program or none"
            room = rooms[tuple(room_tests(mutant.path))]
            lines = room.lines.get(mutant.path, {})
            running = {test for line in changed_lines(before, changed) for test in lines.get(str(line), ())}
            parts = [room.quickest_first(tests) for tests in (running, room.seconds.keys() - running)]
            copy = copies.get()
            try:
                if time.monotonic() > until:
                    return "not begun"
                (copy / mutant.path).write_text(changed)
                survived = all(survives(copy, python, tests, room.timeouts(tests)) for tests in parts if tests)
            finally:
                shutil.copy2(ROOT / mutant.path, copy / mutant.path)
                copies.put(copy)
            if survived:
                print(f"survived: {mutant}\n{difference(mutant, changed)}", flush=True)
            return "survived" if survived else "noticed"

        with ThreadPoolExecutor(given.jobs) as jobs:
            for _ in jobs.map(measure, sorted({tuple(room_tests(mutant.path)) for mutant in drawn})):
                pass
            print(f"{len(rooms)} rooms pass their tests unchanged", flush=True)
            for number, result in enumerate(jobs.map(judge, drawn), 1):
                results[result] += 1
                if number % 50 == 0:
                    print(f"{number} of {len(drawn)}", flush=True)
    print(", ".join(f"{count} {result}" for result, count in sorted(results.items())))
    return 0


if __name__ == "__main__":
    sys.exit(main())
