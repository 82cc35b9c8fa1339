"""The commands of the documents can be pasted into any shell, and the Azure CLI understands its own."""

import json
import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

import pytest

from tests.infra.bicep import ROOT

DOCUMENTS = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "infra/README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
OF_EXTENSIONS = [["communication"], ["containerapp", "job", "logs"], ["monitor", "app-insights"]]
"""Commands that the Azure CLI installs an extension for when they are used first."""
OF_THE_SHELL = (">", ">>", "<", "|", "&&", "||", ";")
"""What follows one of them is no argument of the command."""
PARSE = """
import json, sys
from azure.cli.core import get_default_cli

refused = []
for words in json.load(sys.stdin):
    cli = get_default_cli()
    make = cli.invocation_cls(cli_ctx=cli, parser_cls=cli.parser_cls, commands_loader_cls=cli.commands_loader_cls,
                              help_cls=cli.help_cls)
    cli.invocation = make
    make.data["command_string"] = make.data["command"] = " ".join(words)
    make.commands_loader.load_command_table(words)
    command = make._rudimentary_get_command(words)
    make.commands_loader.load_arguments(command)
    make.parser.load_command_table(make.commands_loader)
    try:
        make.parser.parse_args(words)
    except SystemExit:
        refused.append(words)
json.dump(refused, sys.stdout)
"""


def blocks(text: str) -> list[str]:
    """The blocks that are marked `sh`."""
    return re.findall(r"^```sh\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def commands(text: str) -> Iterator[list[str]]:
    """The words of each `az` command in a block or a sentence; what stands in `$(…)` comes after, and leaves a word."""
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    for inline in re.findall(r"`(az [a-z][^`…]* --[^`…]*)`", prose):
        yield shlex.split(inline.removeprefix("az "))
    for block in blocks(text):
        for line in whole_lines(block):
            outer, inner = (
                re.subn(r"\$\([^()]*(\([^()]*\)[^()]*)*\)", "VALUE", line)[0],
                re.findall(r"\$\((az .*?)\)(?=\"?(?:\s|$))", line),
            )
            for each in (outer, *inner):
                if each.startswith("az "):
                    words = shlex.split(re.sub(r"\$\{?\w+(%%\.\*)?\}?", "VALUE", each.removeprefix("az ")))
                    yield list(takewhile(lambda word: word not in OF_THE_SHELL, words))


def whole_lines(block: str) -> Iterator[str]:
    """A block's commands, each on one line, also where a quoted text goes over several."""
    line = ""
    for each in block.replace("\\\n", " ").splitlines():
        line = f"{line}\n{each}" if line else each
        if line.count("'") % 2 == 0:
            yield line
            line = ""


def trailing_comments(text: str) -> list[str]:
    """Lines with a comment after a command: zsh passes it on as arguments."""
    return [line for block in blocks(text) for line in block.splitlines() if re.search(r"\S\s+#\s", line)]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_no_comment_follows_a_command(path: Path) -> None:
    assert trailing_comments(path.read_text()) == []


def test_a_comment_would_be_noticed() -> None:
    assert trailing_comments("```sh\naz login  # first\n```\n") == ["az login  # first"]
    assert trailing_comments("```sh\naz login --tag a#b\n```\n") == []


def test_commands_are_found_wherever_they_stand() -> None:
    block = (
        "name=$(az acr list --query '[0].name')\naz lock create --name \"$name\" \\\n  --resource x\n"
        "az account show > file\n"
    )
    text = f"```sh\n{block}```\nor `az login --tenant x`.\n"
    assert list(commands(text)) == [
        ["login", "--tenant", "x"],
        ["acr", "list", "--query", "[0].name"],
        ["lock", "create", "--name", "VALUE", "--resource", "x"],
        ["account", "show"],
    ]


@pytest.mark.skipif(
    "AZURE_CLI_PYTHON" not in os.environ, reason="AZURE_CLI_PYTHON does not name the Azure CLI's Python"
)
def test_the_azure_cli_understands_every_line() -> None:
    found = [words for path in DOCUMENTS for words in commands(path.read_text())]
    lines = [words for words in found if not any(words[: len(each)] == each for each in OF_EXTENSIONS)]
    wrong = ["acr", "list", "--no-such-option"]
    done = subprocess.run(
        [os.environ["AZURE_CLI_PYTHON"], "-c", PARSE],
        input=json.dumps([*lines, wrong]),
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [wrong], done.stderr
