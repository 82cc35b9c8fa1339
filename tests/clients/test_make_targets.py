"""`make browser` and `make openapi` on a machine that lacks something, and what the locks of npm may hold."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


def make(target: str, *variables: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL")}
    return subprocess.run(
        ["make", target, *variables],
        cwd=ROOT,
        env=kept | ({"PATH": path} if path else {}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def ready_environment(tmp_path: Path) -> str:
    """Python environments that make takes for set up."""
    environment = tmp_path / "v"
    for name in ("v/.packages", "v/.installed", "v-openapi/.packages"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return f"VENV={environment}"


def test_without_chromium_one_sentence_says_what_to_install(ready_environment: str, tmp_path: Path) -> None:
    done = make("browser", ready_environment, f"CHROMIUM={tmp_path}/none")
    sentence, made_by_make = done.stderr.splitlines()
    assert re.fullmatch(r"The browser tests need .*\bchromium\b.*install these Debian packages .*\.", sentence)
    assert made_by_make.startswith("make: ***")
    assert done.returncode == 2


@pytest.mark.parametrize(
    ("target", "sentence"),
    [("browser", "The browser tests need"), ("openapi", "The checks of the OpenAPI document need")],
)
def test_without_node_one_sentence_says_what_to_install(
    target: str, sentence: str, ready_environment: str, tmp_path: Path
) -> None:
    for tool in ("make", "sh", "find", "test", "echo", "dirname"):
        found = next((Path(each) / tool for each in os.get_exec_path() if (Path(each) / tool).exists()), None)
        if found:
            (tmp_path / tool).symlink_to(found)
    done = make(target, ready_environment, path=str(tmp_path))
    assert re.match(rf"{sentence} .*nodejs \(20 or newer\) npm", done.stderr.splitlines()[0])
    assert done.returncode == 2


@pytest.mark.parametrize("folder", ["openapi", "web"])
def test_a_lock_of_npm_names_hashes_and_no_addresses(folder: str) -> None:
    packages = json.loads((ROOT / "clients" / folder / "package-lock.json").read_text())["packages"]
    locked = {name: package for name, package in packages.items() if name}
    assert all("integrity" in package for package in locked.values())
    assert not any("resolved" in package for package in locked.values())
