"""The layer contracts of `pyproject.toml`: kept (`make check`), and each broken by an import that it forbids."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]

FORBIDDEN = {
    "each room knows only those below it": ("storage/mapping.py", "import quart_app.settings"),
    "no circles, within a room neither": ("upstream/deadline.py", "def late() -> None:\n    import upstream.calls"),
    "only web, serving, app, auth.guard and cli know a web framework": (
        "quart_app/identities/service.py",
        "import werkzeug",
    ),
    "routes hold no logic: they know neither stores nor ACS nor upstream calls": (
        "quart_app/web/routes/user.py",
        "import storage.sqlite",
    ),
    "the service and the stores never import the stand-ins": ("quart_app/app.py", "import local_azure.clock"),
    "the stand-ins import neither the service nor the stores": ("local_azure/clock.py", "import upstream.deadline"),
}


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for package in ("quart_app", "storage", "upstream", "local_azure"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def broken(directory: Path) -> list[str]:
    """The names of the contracts that the code in `directory` breaks."""
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as run; run(['--no-cache'])"]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=300, check=False)
    found = re.findall(r"^(.+) BROKEN", done.stdout, re.MULTILINE)
    assert bool(done.returncode) is bool(found), done.stdout + done.stderr
    return found


def test_every_contract_has_an_import_that_breaks_it() -> None:
    assert list(FORBIDDEN) == [contract["name"] for contract in CONTRACTS]


@pytest.mark.parametrize("contract", FORBIDDEN)
def test_a_forbidden_import_breaks_its_contract(contract: str, copy: Path) -> None:
    path, code = FORBIDDEN[contract]
    file = copy / path
    file.write_text(f"{file.read_text()}\n\n{code}\n")
    assert contract in broken(copy)
