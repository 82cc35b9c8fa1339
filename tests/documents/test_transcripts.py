"""Commands of the documents exist, and their transcripts are true: they run against the stand-ins."""

import asyncio
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest

from local_azure.cli import main as local_commands
from quart_app.cli import main as commands
from tests.infra.test_documents import whole_lines
from tests.local_azure.test_run import running
from tests.support.markdown import ROOT, Page, page

PAGES = [page(ROOT / "README.md"), *(page(path) for path in sorted((ROOT / "docs").rglob("*.md")))]
APART = {"docs/commands.md"}
"""Whose transcripts need mappings that are in disorder; tests/quart_app/cli makes them."""
WITH_TRANSCRIPTS = [each for each in PAGES if any(each.blocks("console")) and each.name not in APART]
TOOLS = {
    *("cd", "cp", "curl", "docker", "git", "npm", "npx", "openapi-python-client", "openssl", "rm", "sqlite3"),
    *(".venv/bin/pip", "client/bin/pip"),
}
"""Whose own documentation says which options there are."""
AZD = {"auth login", "deploy", "down", "env get-value", "env new", "env set", "pipeline config", "provision", "up"}
"""The commands of the Azure Developer CLI that the documents use."""


def steps(block: str) -> Iterator[tuple[str, str]]:
    """Each command of a transcript with what it printed, where `…` stands for anything."""
    for each in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        command, _, printed = re.sub(r"\\\n\s*", "", each).partition("\n")
        yield command, printed.strip()


def pattern(printed: str) -> str:
    return r"\s*" + ".*?".join(re.escape(part) for part in printed.split("…")) + r"\s*"


def unknown(line: str) -> str | None:
    """Why a line of an `sh` block can't be run, or None."""
    assignments = re.compile(r"^(\w+=\$\((?P<inner>.*)\)|(\w+=\S*\s*)+(?P<rest>.*))$")
    if assigned := assignments.match(line):
        line = assigned["inner"] or assigned["rest"]
    words = shlex.split(line, comments=True)
    if not words:
        return None
    match words:
        case ["make", *targets]:
            there = re.findall(r"^\.PHONY: (\w+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
            return next((f"make {each}" for each in targets if each not in there and not each.startswith("ARGS")), None)
        case [".venv/bin/acs-auth" | "acs-auth", name, *rest]:
            return _unknown_option(commands, name, rest)
        case [".venv/bin/acs-auth-local" | "acs-auth-local", name, *rest]:
            return _unknown_option(local_commands, name, rest)
        case ["python3", "-m", "venv", _] | ["client/bin/python", _]:
            return None
        case ["python3", script, *rest]:
            text = (ROOT / script).read_text()
            return next((each for each in rest if each.startswith("--") and f'"{each}"' not in text), None)
        case ["az", *_]:
            return None  # tests/infra/test_documents.py
        case ["azd", first, *rest]:
            return None if {first, " ".join([first, *rest[:1]])} & AZD else line
        case [tool, *_] if tool in TOOLS:
            return None
    return line


def _unknown_option(group: click.Group, name: str, rest: list[str]) -> str | None:
    if name not in group.commands:
        return name
    there = {option for each in group.commands[name].params for option in (*each.opts, *each.secondary_opts)}
    return next((each for each in rest if each.startswith("--") and each.partition("=")[0] not in there), None)


@pytest.mark.parametrize("each", PAGES, ids=lambda each: each.name)
def test_every_command_is_one_that_there_is(each: Page) -> None:
    lines = [line for block in each.blocks("sh") for line in whole_lines(block) if line.strip()]
    assert [fault for line in lines if (fault := unknown(line))] == []
    if any(line.startswith(("az ", "azd ")) for line in lines):
        assert re.search("needs? Azure", each.text), "say which commands were not run"


def test_a_command_that_there_is_not_is_noticed() -> None:
    wrong = ["make nonsense", ".venv/bin/acs-auth nonsense", "acs-auth doctor --nonsense", "azd nonsense", "nonsense"]
    assert all(unknown(line) for line in wrong)
    assert unknown("python3 infra/entra/register.py --nonsense") == "--nonsense"


async def test_transcripts_are_what_a_newcomer_sees(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    local = tmp_path / ".venv/bin/acs-auth-local"
    local.parent.mkdir(parents=True)
    local.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m local_azure.cli "$@"\n')
    local.chmod(0o755)
    ran = 0
    async with running(tmp_path / ".local-azure") as run:
        for each in WITH_TRANSCRIPTS:
            for block in each.blocks("console"):
                told = [
                    (command.replace("http://localhost:5000", run.service_url), out) for command, out in steps(block)
                ]
                # One shell for the block: variables are kept. A line of its own parts the outputs.
                script = "\n".join(f"{command}\necho; echo '=== next'" for command, _ in told)
                done = await asyncio.to_thread(
                    subprocess.run,
                    ["bash", "-c", script],
                    cwd=tmp_path,
                    capture_output=True,
                    text=True,
                    timeout=120,
                    check=False,
                )
                outputs = done.stdout.split("\n=== next\n")
                for (command, printed), output in zip(told, outputs, strict=False):
                    assert re.fullmatch(pattern(printed), output, re.DOTALL), f"{each.name}: {command}\n{output}"
                    ran += 1
    assert ran > 5
    record_property("documents", f"{ran} commands of transcripts run on {len(WITH_TRANSCRIPTS)} pages")
