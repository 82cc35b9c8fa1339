"""The page on the HTTP API and the OpenAPI document tell the same: routes, parameters, successes and errors."""

import re

import pytest
from quart.typing import TestClientProtocol as Client

from quart_app.web.error_names import ErrorName
from tests.support.markdown import ROOT, page
from tests.support.replicas import replica

TEXT = page(ROOT / "docs/reference/http-api.md").text


def sections_of(text: str) -> dict[str, str]:
    return dict(re.findall(r"^### `([^`]+)`\n(.*?)(?=^##|\Z)", text, re.MULTILINE | re.DOTALL))


def errors_of(text: str) -> set[str]:
    """The statuses of errors that the tables tell of."""
    rows = re.findall(r"^\| ([45]\d\d(?:, [45]\d\d)*) ", text, re.MULTILINE)
    return {status for row in rows for status in row.split(", ")}


def missing(text: str, document: dict[str, object]) -> list[str]:
    """The operations that the text does not name, and the parameters and successes that their sections lack."""
    sections = sections_of(text)
    named = {each for span in re.findall(r"`([A-Z]+ /[^`]*)`", text) for each in span.split(", ")}
    faults = []
    for path, methods in document["paths"].items():  # type: ignore[attr-defined]
        for method, operation in methods.items():
            name = f"{method.upper()} {path}"
            if name not in named:
                faults.append(name)
            if name not in sections:
                continue  # an older name, or an open route: a row of a table
            wanted = [each["name"] for each in operation.get("parameters", [])]
            wanted += [status for status in operation["responses"] if status.startswith("2")]
            faults += [f"{name}: {each}" for each in wanted if each not in sections[name]]
    return faults


async def test_every_route_is_documented_with_its_parameters_and_its_successes(client: Client) -> None:
    document = await (await client.get("/openapi.json")).get_json()
    assert len(document["paths"]) >= 10
    assert missing(TEXT, document) == []


@pytest.mark.parametrize(
    ("part", "fault"),
    [
        ("`GET /api/user`", "GET /api/user"),
        ('| 201 | `{"token": "…", "expiresOn": "…"}` |', "GET /api/token/teams: 201"),
    ],
)
async def test_a_route_or_a_success_that_is_left_out_is_noticed(client: Client, part: str, fault: str) -> None:
    document = await (await client.get("/openapi.json")).get_json()
    assert part in TEXT
    assert fault in missing(TEXT.replace(part, ""), document)


async def test_each_route_has_the_errors_of_the_page_and_no_others(configured: pytest.MonkeyPatch) -> None:
    configured.setenv("ENTRA_RESOLVE_SCOPE", "resolve_colleagues")
    async with replica() as client:
        document = await (await client.get("/openapi.json")).get_json()
    of_all = errors_of(TEXT.partition("\n## Answers\n")[2].partition("\n## ")[0])
    expected = {name: errors_of(section) | of_all for name, section in sections_of(TEXT).items()}
    found = {
        f"{method.upper()} {path}": {status for status in operation["responses"] if status >= "400"}
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }
    assert len(of_all) == 7
    assert {name: found.get(name) for name in expected} == expected


async def test_a_header_must_be_sent_and_what_stands_in_the_query_need_not(client: Client) -> None:
    document = await (await client.get("/openapi.json")).get_json()
    found = {
        (parameter["in"], parameter["required"])
        for methods in document["paths"].values()
        for operation in methods.values()
        for parameter in operation.get("parameters", ())
    }
    assert found == {("header", True), ("query", False)}


async def test_an_answer_has_the_header_that_says_what_to_do(client: Client) -> None:
    document = await (await client.get("/openapi.json")).get_json()
    expected = {"401": "WWW-Authenticate", "403": "WWW-Authenticate", "429": "Retry-After", "503": "Retry-After"}
    found = {
        (status, header)
        for methods in document["paths"].values()
        for operation in methods.values()
        for status, answer in operation["responses"].items()
        for header in answer.get("headers", {})
        if header in expected.values()
    }
    assert found == set(expected.items())
    retry_after = document["paths"]["/api/user"]["get"]["responses"]["503"]["headers"]["Retry-After"]
    assert retry_after["schema"] == {"type": "integer", "minimum": 1}


def test_every_error_that_the_page_names_is_one() -> None:
    known = {name.value for name in ErrorName}
    named = {
        name
        for line in TEXT.splitlines()
        if re.match(r"\| [45]\d\d", line)
        for name in re.findall(r"`([a-z_]+)`", line.split("|")[1])
    }
    assert len(named) > 15
    assert named - known == set()
