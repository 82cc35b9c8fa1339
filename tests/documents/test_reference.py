"""What a caller or an operator can name is in the reference: metrics, routes, commands and their options."""

import re

import click
import pytest

from local_azure.cli import main as local_commands
from quart_app.cli import main as commands
from tests.support.markdown import ROOT, page


def options(group: click.Command, path: str = "") -> list[tuple[str, str]]:
    """Each command of a group with each of its options; the help option apart."""
    if not isinstance(group, click.Group):
        return [(path, max(each.opts, key=len)) for each in group.params if isinstance(each, click.Option)]
    return [found for name, command in group.commands.items() for found in options(command, name)]


@pytest.mark.parametrize(
    ("group", "document"),
    [(commands, "docs/commands.md"), (local_commands, "docs/contribute/stand-in-commands.md")],
    ids=["acs-auth", "local"],
)
def test_every_command_and_every_option_is_documented(group: click.Group, document: str) -> None:
    text = page(ROOT / document).text
    found = options(group)
    assert len(found) > 5
    assert [name for name in group.commands if not re.search(rf"\b{name}\b", text)] == []
    assert [each for each in found if each[1] != "--help" and each[1] not in text] == []


def test_every_metric_is_documented() -> None:
    documented = re.findall(r"`((?:acs_auth|http)\.[a-z_.]+)`", page(ROOT / "docs/operations.md").text)
    made = re.compile(r"(?:create_\w+|gauge)\(\s*\"((?:acs_auth|http)\.[a-z_.]+)\"")
    metrics = {name for file in (ROOT / "quart_app").rglob("*.py") for name in made.findall(file.read_text())}
    assert len(metrics) > 10
    assert metrics - set(documented) == set()


def counted(text: str) -> set[str]:
    """What transcripts of commands count, such as `already there`; a dry run says `would be` before some of it."""
    lines = re.findall(r"^ {2,}[\d.]+ {2}(\S.*)$", text, re.MULTILINE)
    return {line.removeprefix("would be ") for line in lines if not line.startswith("by the key")}


def test_transcripts_count_in_the_words_of_the_commands() -> None:
    code = "".join(path.read_text() for path in sorted((ROOT / "quart_app/cli").glob("*.py")))
    found = {phrase for block in page(ROOT / "docs/commands.md").blocks("console") for phrase in counted(block)}
    assert len(found) > 20
    assert sorted(phrase for phrase in found if phrase not in code) == []
    assert counted("        1  nonsense\n") == {"nonsense"}
