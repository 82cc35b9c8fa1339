"""Spectral and Redocly find nothing in the OpenAPI document; and each is seen to find what is wrong in a broken one."""

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.openapi.tools import FOLDER, Tools

LINTERS = {
    "spectral": ("lint", f"--ruleset={FOLDER / '.spectral.yaml'}", "--fail-severity=hint", "--quiet", "--format=json"),
    "redocly": ("lint", f"--config={FOLDER / 'redocly.yaml'}", "--max-problems=1000", "--format=json"),
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


BREAKS: dict[str, Callable[[Document], None]] = {
    "no_operation_id": _without_operation_id,
    "unknown_tag": _with_a_tag_that_nobody_describes,
    "reference_to_nothing": _with_a_reference_to_nothing,
    "wrong_example": _with_an_example_that_breaks_its_schema,
    "no_description": _without_descriptions,
}


async def findings(tools: Tools, linter: str, files: list[Path]) -> dict[str, set[str]]:
    """Which rules a linter says are broken, by the name of the file that breaks them."""
    done = await tools.npm(linter, *LINTERS[linter], *files)
    found: dict[str, set[str]] = {}
    if linter == "spectral":
        for finding in json.loads(done.output):
            found.setdefault(Path(finding["source"]).stem, set()).add(finding["code"])
    else:
        for report in _reports(done.output):
            for problem in report["problems"]:
                name = Path(problem["location"][0]["source"]["ref"]).stem
                found.setdefault(name, set()).add(problem["ruleId"])
    assert done.status == (1 if found else 0), done.output + done.errors
    return found


def _reports(output: str) -> Iterator[Any]:
    """Redocly writes one report for each file, one after another."""
    decoder, at = json.JSONDecoder(), 0
    while at < len(output):
        report, end = decoder.raw_decode(output, at)
        yield report
        at = end + len(output[end:]) - len(output[end:].lstrip())


@pytest.mark.parametrize("linter", LINTERS)
async def test_a_linter_finds_nothing_in_the_document(linter: str, tools: Tools, documents: list[Path]) -> None:
    assert await findings(tools, linter, documents) == {}


@pytest.mark.parametrize("linter", LINTERS)
async def test_a_linter_finds_what_is_wrong_in_a_broken_document(
    linter: str, tools: Tools, documents: list[Path], tmp_path: Path
) -> None:
    whole = json.loads(documents[0].read_text())
    broken = []
    for name, break_it in BREAKS.items():
        document = copy.deepcopy(whole)
        break_it(document)
        broken.append(tmp_path / f"{name}.json")
        broken[-1].write_text(json.dumps(document, indent=1))
    assert set(await findings(tools, linter, [documents[0], *broken])) == set(BREAKS)
