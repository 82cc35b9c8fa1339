"""The examples of generated clients are lines of the programs that `make openapi` runs."""

import pytest

from tests.support.markdown import ROOT, page

CLIENTS = page(ROOT / "docs" / "clients.md")


@pytest.mark.parametrize(
    ("language", "program", "mark"), [("ts", "journey.ts", "schema.js"), ("python", "journey.py", "acs_auth.")]
)
def test_each_line_of_an_example_is_one_that_is_run(language: str, program: str, mark: str) -> None:
    run = {line.strip() for line in (ROOT / "clients" / "openapi" / program).read_text().splitlines()}
    (example,) = (block for block in CLIENTS.blocks(language) if mark in block)
    assert {line.strip() for line in example.splitlines()} - run - {""} == set()
