"""What makes Mermaid refuse a diagram, found without a browser; a look at the site shows the rest."""

import re

import pytest

from tests.support.markdown import Page, pages

WITH_DIAGRAMS = [each for each in pages() if any(each.blocks("mermaid"))]


def faults(diagram: str) -> list[str]:
    """Lines with a semicolon, which ends a statement, or with a node that is named by a reserved word."""
    unquoted = re.compile(r'"[^"]*"')
    return [
        line
        for line in diagram.splitlines()
        if ";" in unquoted.sub("", line) or re.search(r"\b(graph|end)[\[({]", line)
    ]


@pytest.mark.parametrize("each", WITH_DIAGRAMS, ids=lambda each: each.name)
def test_no_diagram_has_what_mermaid_refuses(each: Page) -> None:
    for diagram in each.blocks("mermaid"):
        assert re.match(r"(sequenceDiagram|flowchart (LR|TD))\n", diagram)
        assert faults(diagram) == []


@pytest.mark.parametrize("line", ["A->>B: one; two", 'a --> graph["x"]', "end[x]"])
def test_what_mermaid_refuses_is_noticed(line: str) -> None:
    assert faults(f"flowchart LR\n    {line}\n") == [f"    {line}"]
