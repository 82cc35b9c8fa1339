"""Spectral and Redocly find nothing in the OpenAPI document; and each is seen to find what is wrong in a broken one."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.openapi.tools import FOLDER, Tools

LINTERS = {
    "spectral": ("lint", "--ruleset", FOLDER / ".spectral.yaml", "--fail-severity", "hint", "--format", "text"),
    "redocly": ("lint", "--config", FOLDER / "redocly.yaml", "--format", "stylish", "--max-problems", "1000"),
}

Document = dict[str, Any]


def _without_operation_id(document: Document) -> None:
    del document["paths"]["/api/user"]["get"]["operationId"]


def _with_a_tag_that_nobody_describes(document: Document) -> None:
    document["paths"]["/api/user"]["get"]["tags"] = ["nobody"]


def _with_a_reference_to_nothing(document: Document) -> None:
    content = document["paths"]["/api/user"]["get"]["responses"]["200"]["content"]
    content["application/json"]["schema"]["$ref"] = "#/components/schemas/Nothing"


def _with_an_example_that_breaks_its_schema(document: Document) -> None:
    content = document["paths"]["/api/token"]["get"]["responses"]["400"]["content"]
    content["application/json"]["example"]["error"] = "identity_not_found"


def _without_descriptions(document: Document) -> None:
    for operation in document["paths"]["/api/user"].values():
        operation.pop("description", None)


BREAKS: tuple[Callable[[Document], None], ...] = (
    _without_operation_id,
    _with_a_tag_that_nobody_describes,
    _with_a_reference_to_nothing,
    _with_an_example_that_breaks_its_schema,
    _without_descriptions,
)


@pytest.mark.parametrize("linter", LINTERS)
async def test_a_linter_finds_nothing_in_the_document(linter: str, tools: Tools, documents: list[Path]) -> None:
    status, printed = await tools.npm(linter, *LINTERS[linter], *documents)
    assert status == 0, printed
    assert " warning " not in printed


@pytest.mark.parametrize("linter", LINTERS)
async def test_a_linter_finds_what_is_wrong_in_a_broken_document(
    linter: str, tools: Tools, documents: list[Path], tmp_path: Path
) -> None:
    whole = json.loads(documents[0].read_text())
    broken = []
    for break_it in BREAKS:
        document = copy.deepcopy(whole)
        break_it(document)
        broken.append(tmp_path / f"{break_it.__name__}.json")
        broken[-1].write_text(json.dumps(document, indent=1))
    status, printed = await tools.npm(linter, *LINTERS[linter], *broken)
    assert status == 1, printed
    assert [file.stem for file in broken if f"{file.name}:" not in printed] == []
