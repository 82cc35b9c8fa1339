"""The project's own files: locks, commands, make targets, layers, the example of an environment file."""

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from quart_app.settings import variable_names

ROOT = Path(__file__).parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
LOCKS = ("run", "dev", "docs", "openapi")

# Stands in for a Python interpreter and for the one in the environment that it makes; notes each call in $CALLS.
# $REFUSED names what it fails at: the version check, the check for venv, or pip. Its pip collects 60 packages.
STUB_PYTHON = """#!/bin/sh
echo "$*" >> "$CALLS"
test -n "$REFUSED" && case "$*" in *"$REFUSED"*) exit 1;; esac
case "$*" in *"-m venv"*) mkdir -p "$4/bin" && cp "$0" "$4/bin/python";; esac
case "$*" in *"--require-hashes"*) seq -f 'Collecting package-%g' 60; echo 'Installing collected packages: all';; esac
"""
STUB_MAKE = """#!/bin/sh
echo "$PWD make $*" >> "$CALLS"
test "$*" != "$REFUSED"
"""


def locked(lock: str) -> list[str]:
    """Each requirement of a lock file with its hashes, as one line."""
    text = (ROOT / "requirements" / f"{lock}.txt").read_text().replace("\\\n", " ")
    return [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]


def pins(lock: str) -> set[tuple[str, str, str]]:
    """What a lock file pins: name, exact version, marker."""
    requirements = [Requirement(line.partition("--hash")[0]) for line in locked(lock)]
    return {(canonicalize_name(each.name), str(each.specifier), str(each.marker or "")) for each in requirements}


def call(*command: str | Path, calls: Path, refused: str = "", path: Path | None = None) -> tuple[int, str, str]:
    """Runs a command in the project; what comes back is its exit status, output and errors."""
    environment = {
        name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "PYTHON")
    }
    environment |= {"CALLS": str(calls), "REFUSED": refused}
    if path:
        environment["PATH"] = f"{path}{os.pathsep}{environment['PATH']}"
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def executable(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o755)
    return path


@pytest.fixture
def calls(tmp_path: Path) -> Path:
    return tmp_path / "calls"


@pytest.fixture
def stub_python(tmp_path: Path) -> Path:
    return executable(tmp_path / "python", STUB_PYTHON)


@pytest.mark.parametrize("lock", LOCKS)
def test_every_locked_requirement_is_one_exact_version_with_hashes_and_nothing_else(lock: str) -> None:
    exact = re.compile(r"[a-z0-9._-]+==[^\s;]+( ; [^:]+?)?(\s+--hash=sha256:[0-9a-f]{64})+\s*")
    assert [line for line in locked(lock) if not exact.fullmatch(line)] == []


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_names_no_address_and_no_directory_of_a_machine(lock: str) -> None:
    lines = (ROOT / "requirements" / f"{lock}.txt").read_text().splitlines()
    assert [line for line in lines if re.search(r"://|index-url|find-links|\s/|~/", line)] == []


def test_development_runs_on_the_releases_that_production_installs() -> None:
    assert pins("run") <= pins("dev")


@pytest.mark.parametrize(
    ("lock", "declared"),
    [
        ("run", PROJECT["dependencies"]),
        ("dev", [each for extra in PROJECT["optional-dependencies"].values() for each in extra]),
        ("docs", PYPROJECT["dependency-groups"]["docs"]),
        ("openapi", PYPROJECT["dependency-groups"]["openapi"]),
    ],
    ids=LOCKS,
)
def test_what_pyproject_declares_is_locked_in_a_version_that_it_allows(lock: str, declared: list[str]) -> None:
    versions: dict[str, list[str]] = {}
    for name, specifier, _ in pins(lock):
        versions.setdefault(name, []).append(specifier.removeprefix("=="))
    wanted = [Requirement(each) for each in declared if not each.startswith(PROJECT["name"])]
    unlocked = [
        str(each)
        for each in wanted
        if not (found := versions.get(canonicalize_name(each.name))) or not all(map(each.specifier.contains, found))
    ]
    assert unlocked == [], "run `make lock`"


@pytest.mark.parametrize("command", PROJECT["scripts"])
def test_each_command_leads_to_a_function(command: str) -> None:
    assert callable(EntryPoint(command, PROJECT["scripts"][command], "console_scripts").load())


def test_make_alone_lists_every_target_with_what_it_does(calls: Path) -> None:
    targets = re.findall(r"^\.PHONY: (\w+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    status, listed, _ = call("make", calls=calls)
    assert status == 0
    assert re.findall(r"^make (\w+) +\S.*$", listed, re.MULTILINE) == targets
    assert {"help", "run", "test", "check", "lock"} <= set(targets)


def test_make_check_looks_at_lint_format_types_and_layers(calls: Path) -> None:
    _, commands, _ = call("make", "--dry-run", "check", "VENV=v", calls=calls)
    assert re.findall(r"^v/bin/(.+)$", commands, re.MULTILINE)[-4:] == [
        "ruff check",
        "ruff format --check",
        "mypy",
        "lint-imports",
    ]


def test_the_production_wheel_holds_the_service_and_neither_stand_ins_nor_their_command(tmp_path: Path) -> None:
    wheels = {}
    for project in (ROOT, ROOT / "local_azure"):
        directory = tmp_path / project.name
        building = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(directory)]
        subprocess.run(building, cwd=project, capture_output=True, text=True, timeout=300, check=True)
        (wheel,) = directory.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            names = archive.namelist()
            (commands,) = (name for name in names if name.endswith("entry_points.txt"))
            wheels[project] = ({name.split("/")[0] for name in names}, archive.read(commands).decode(), names)
    service, commands, names = wheels[ROOT]
    assert {name for name in service if "." not in name} == {"quart_app", "storage", "upstream"}
    assert "acs-auth-local" not in commands
    assert {"quart_app/py.typed", "storage/py.typed", "upstream/py.typed"} <= set(names)
    stand_ins, commands, names = wheels[ROOT / "local_azure"]
    assert {name for name in stand_ins if "." not in name} == {"local_azure"}
    assert "acs-auth-local" in commands
    assert "local_azure/py.typed" in names


@pytest.mark.parametrize(
    ("refused", "steps", "status"),
    [
        ("", ["check", "infra", "test", "openapi", "browser"], 0),
        ("check", ["check"], 2),
        ("infra", ["check", "infra"], 2),
        ("test", ["check", "infra", "test"], 2),
        ("openapi", ["check", "infra", "test", "openapi"], 2),
        ("browser", ["check", "infra", "test", "openapi", "browser"], 2),
    ],
)
def test_ci_checks_and_tests_and_fails_when_one_of_them_does(
    refused: str, steps: list[str], status: int, calls: Path, tmp_path: Path
) -> None:
    executable(tmp_path / "make", STUB_MAKE)
    executable(tmp_path / "apt-get", "#!/bin/sh\n")  # nothing is installed here
    done, _, _ = call(ROOT / ".ci" / "run", calls=calls, refused=refused, path=tmp_path)
    assert calls.read_text().splitlines() == [f"{ROOT} make {step}" for step in steps]
    assert bool(done) is bool(status)


def test_make_accepts_the_python_versions_that_the_package_does() -> None:
    floor = re.search(r"sys\.version_info < \((\d+), (\d+)\)", (ROOT / "Makefile").read_text())
    assert floor
    assert PROJECT["requires-python"] == ">={}.{}".format(*floor.groups())


@pytest.mark.parametrize(
    ("refused", "sentence"),
    [
        ("version_info", "Python 3.11 or newer is needed"),
        ("ensurepip", "cannot make virtual environments"),
        ("-m pip", "The packages could not be installed"),
    ],
)
def test_a_machine_on_which_set_up_cannot_work_gets_one_sentence(
    refused: str, sentence: str, calls: Path, stub_python: Path, tmp_path: Path
) -> None:
    status, _, errors = call(
        "make", "test", f"PYTHON={stub_python}", f"VENV={tmp_path / 'v'}", calls=calls, refused=refused
    )
    explained, made_by_make = errors.splitlines()
    assert sentence in explained
    assert made_by_make.startswith("make: ***")
    assert status == 2


def test_the_first_set_up_says_how_far_it_is(calls: Path, stub_python: Path, tmp_path: Path) -> None:
    environment = tmp_path / "v"
    _, output, errors = call(
        "make", f"{environment}/.installed", f"PYTHON={stub_python}", f"VENV={environment}", calls=calls
    )
    assert re.sub(r"of \d+", "of all", output).splitlines()[1:] == [
        "  25 of all packages fetched",
        "  50 of all packages fetched",
        "  60 packages fetched, installing them",
    ]
    assert errors == ""


def test_set_up_is_done_once_and_again_only_as_far_as_its_causes_changed(
    calls: Path, stub_python: Path, tmp_path: Path
) -> None:
    def set_up(*options: str) -> list[str]:
        calls.write_text("")
        call("make", f"{tmp_path}/v/.installed", f"PYTHON={stub_python}", f"VENV={tmp_path}/v", *options, calls=calls)
        return re.findall(r"-m venv|--require-hashes|--editable(?= \.)", calls.read_text())

    assert set_up() == ["-m venv", "--require-hashes", "--editable"]
    assert set_up() == []
    assert set_up("--what-if=pyproject.toml") == ["--editable"]
    assert set_up("--what-if=requirements/dev.txt") == ["-m venv", "--require-hashes", "--editable"]


def test_the_example_environment_file_names_every_setting_in_the_settings_own_order() -> None:
    lines = (ROOT / ".env.example").read_text().splitlines()
    assert [line.lstrip("#").partition("=")[0] for line in lines if re.match(r"#?[A-Z_]+=", line)] == variable_names()
