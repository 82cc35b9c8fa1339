"""The ways to start that README names: each for real where its tool is there, and what is in the wheels always.

These tests run on Windows and macOS, too (.github/workflows/ci.yml).
"""

import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support.ports import port_arguments, some_free_ports

ROOT = Path(__file__).parent.parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PATIENCE_SECONDS = 300
READY = "Press Ctrl-C to stop."
if sys.platform == "win32":
    OWN_GROUP: dict[str, Any] = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    STOP, BIN = signal.CTRL_BREAK_EVENT, "Scripts"
else:
    OWN_GROUP: dict[str, Any] = {}
    STOP, BIN = signal.SIGINT, "bin"


def commands(beginning: str) -> list[str]:
    """The commands of the row of README's table of ways to start whose first command begins so."""
    rows = [re.findall(r"`([^`]+)`", row) for row in README.splitlines() if row.startswith("|")]
    return next(row for row in rows if row and row[0].startswith(beginning))


def needs(program: str) -> pytest.MarkDecorator:
    """Skips a test where this program is missing; what it is told to install comes from the package index."""
    return pytest.mark.skipif(shutil.which(program) is None, reason=f"{program} is not installed")


def carry_out(command: Sequence[str | Path], directory: Path = ROOT, **variables: str) -> None:
    """Wait for a command's good end."""
    subprocess.run(command, cwd=directory, env=os.environ | variables, timeout=PATIENCE_SECONDS, check=True)


async def first_run(program: Sequence[str | Path], state: Path, **variables: str) -> str:
    """What `acs-auth-local run` prints until it is ready and has been ended by Ctrl-C, cleanly."""
    process = await asyncio.create_subprocess_exec(
        *program,
        *("run", "--state-dir", str(state), *port_arguments(some_free_ports())),
        cwd=ROOT if "uvx" in str(program[0]) else state.parent,
        env=os.environ | variables | {"PYTHONIOENCODING": "utf-8"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        **OWN_GROUP,
    )
    assert process.stdout is not None
    output = ""
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            async for line in process.stdout:
                output += line.decode()
                if READY in output:
                    process.send_signal(STOP)
                    break
            output += (await process.stdout.read()).decode()
            assert await process.wait() == 0, output
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return output


def assert_a_token_was_issued(output: str) -> None:
    assert "/api/token -> 201" in output
    assert '"skypeid"' in output  # decoded
    assert output.endswith("Stopped.\n")


def test_every_way_stands_in_a_row_of_readme() -> None:
    assert commands("make run")
    assert commands("docker compose up")
    assert (ROOT / "compose.yaml").exists()
    assert (ROOT / ".devcontainer/devcontainer.json").exists()
    for beginning in ("uvx", "pipx", "py -3"):
        *_, last = commands(beginning)
        assert last.endswith("acs-auth-local run")
    for named in ("uvx --with . --from ./local_azure", "pipx install --preinstall"):
        assert commands(named)


async def test_the_wheels_run_by_themselves(tmp_path: Path) -> None:
    """Built here and installed into an environment of their own; what they depend on is this one's."""
    wheels = tmp_path / "wheels"
    for project in (ROOT, ROOT / "local_azure"):
        building = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(wheels)]
        carry_out(building, project)
    environment = tmp_path / "environment"
    venv.create(environment)
    python = min((environment / BIN).glob("python*"))
    (packages,) = environment.glob("**/site-packages")
    (packages / "of_the_tests.pth").write_text(sysconfig.get_path("purelib"))
    installing = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-index"]
    carry_out([*installing, *wheels.glob("*.whl")])
    program = environment / BIN / "acs-auth-local"
    assert_a_token_was_issued(await first_run([program], tmp_path / "state", PYTHONPATH=""))


@needs("uvx")
async def test_uv_starts_it(tmp_path: Path) -> None:
    (line,) = commands("uvx")
    *program, run = line.split()
    assert run == "run"
    assert_a_token_was_issued(await first_run(program, tmp_path / "state"))


@needs("pipx")
async def test_pipx_installs_it(tmp_path: Path) -> None:
    install, run = commands("pipx")
    assert run == "acs-auth-local run"
    words = [word.strip('"').replace("$PWD", str(ROOT)) for word in install.split()]
    carry_out(words, PIPX_HOME=str(tmp_path / "pipx"), PIPX_BIN_DIR=str(tmp_path / "bin"))
    program = next((tmp_path / "bin").glob("acs-auth-local*"))
    assert_a_token_was_issued(await first_run([program], tmp_path / "state"))


@needs("py")
async def test_powershell_installs_it(tmp_path: Path) -> None:
    """Step by step as README says, with an environment elsewhere."""
    environment = tmp_path / "environment"
    make, install, run = commands("py -3")[0].split("; ")
    carry_out(make.replace(".venv", str(environment)).split())
    carry_out(install.replace(".venv", str(environment)).split())
    program = run.replace(".venv", str(environment)).removesuffix(" run")
    assert_a_token_was_issued(await first_run([program], tmp_path / "state"))
