"""The public error contract: names, their statuses, who documents them, and that describing never fails."""

import asyncio
import json
import re
from http import HTTPStatus
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from quart import Blueprint, Quart, abort
from quart.typing import TestClientProtocol as Client

from local_azure.environment import LocalAzure
from local_azure.faults import Fault
from local_azure.keys import new_rsa_key
from quart_app.app import create_app
from quart_app.auth.compact_jws import json_object
from quart_app.settings import Settings, load_settings
from quart_app.web import errors
from quart_app.web.error_examples import example_of
from quart_app.web.error_names import ErrorName, names_of
from quart_app.web.errors import describe, register_error_handlers
from quart_app.web.routes.description import Answer, describes
from quart_app.web.routes.openapi import openapi_document
from quart_app.web.stack_traces import stack_trace
from storage.mapping import StoreError, StoreThrottled
from tests.quart_app.conftest import Bearer
from tests.support.running_service import served

ROOT = Path(__file__).parents[3]


def test_an_error_is_answered_by_the_nearest_of_its_bases() -> None:
    class OddStoreError(StoreError):
        pass

    class OddThrottled(StoreThrottled):
        pass

    assert describe(OddThrottled(9), "").headers == {"Retry-After": "9"}
    assert describe(OddStoreError(), "").message == describe(StoreError(), "").message
    assert describe(LookupError(), "") is errors.INTERNAL_ERROR


def test_the_answer_does_not_depend_on_the_order_of_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = [kind for kind, answer in errors._ANSWERS.items() if isinstance(answer, errors.ErrorResponse)]
    raised = [BaseException.__new__(kind) for kind in kinds if issubclass(kind, BaseException)]
    before = [describe(error, "") for error in raised]
    monkeypatch.setattr(errors, "_ANSWERS", dict(reversed(list(errors._ANSWERS.items()))))
    assert [describe(error, "") for error in raised] == before


def test_the_documentation_tells_every_name_with_its_status_cause_and_remedy() -> None:
    text = (ROOT / "docs" / "errors.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (\d{3}) \| (.+?) \| (.+?) \|$", text, re.MULTILINE)
    assert {(name, int(status)) for name, status, _, _ in rows} == {(name.value, name.status) for name in ErrorName}
    assert len(rows) == len(ErrorName)


async def test_openapi_publishes_the_names_that_each_status_may_carry(client: Client) -> None:
    document = await (await client.get("/openapi.json")).get_json()
    published = {}
    for operations in document["paths"].values():
        for operation in operations.values():
            for status, response in operation["responses"].items():
                reference = response.get("content", {}).get("application/json", {}).get("schema", {}).get("$ref", "")
                if "/Error" in reference:
                    schema = document["components"]["schemas"][reference.rpartition("/")[2]]
                    published[int(status)] = schema["properties"]
    assert {400, 401, 403, 404, 409, 413, 429, 501, 502, 503} <= set(published)
    for status, members in published.items():
        assert members["code"]["const"] == status
        assert members["error"]["enum"] == [name.value for name in names_of(status)]
        assert ("reason" in members) is (status in {400, 401, 403})
        assert ("stack_trace" in members) is (status >= 500)


async def test_openapi_shows_of_each_status_an_answer_that_the_service_gives(client: Client) -> None:
    document = await (await client.get("/openapi.json")).get_json()
    schemas = document["components"]["schemas"]
    errors_of_a_status = {name: schema for name, schema in schemas.items() if name.startswith("Error")}
    unshown = [name for name, schema in errors_of_a_status.items() if "examples" not in schema]
    assert unshown == [], "choose an error in quart_app/web/error_examples.py"
    shown = [(schema, example) for schema in errors_of_a_status.values() for example in schema["examples"]]
    answers = [
        answer["content"]["application/json"]
        for operations in document["paths"].values()
        for operation in operations.values()
        for status, answer in operation["responses"].items()
        if int(status) >= 400
    ]
    shown += [
        (schemas[each["schema"]["$ref"].rpartition("/")[2]], each["example"]) for each in answers if "example" in each
    ]
    assert len(shown) > 10
    for schema, example in shown:
        jsonschema.validate(example, schema)
    refused = await client.get("/api/user", headers={"Authorization": "Bearer none"})
    assert schemas["Error401"]["examples"][0]["message"] == (await refused.get_json())["message"]


@pytest.mark.parametrize("status", [HTTPStatus.IM_A_TEAPOT, HTTPStatus.BAD_GATEWAY])
async def test_a_status_of_the_framework_that_has_no_name_here_is_an_internal_error(status: HTTPStatus) -> None:
    app = Quart(__name__)
    register_error_handlers(app, "", told_more=False)

    @app.get("/")
    async def view() -> str:
        abort(status)

    answer = await app.test_client().get("/")
    assert (answer.status_code, (await answer.get_json())["error"]) == (500, "internal_error")


def test_openapi_describes_an_error_without_an_example_where_none_was_chosen() -> None:
    app = Quart(__name__)
    blueprint = Blueprint("room", __name__)

    @blueprint.get("/")
    @describes("A view", Answer(404, "Nothing there."), Answer(500, "Broken.", error=ErrorName.INTERNAL_ERROR))
    async def view() -> str:
        return ""

    app.register_blueprint(blueprint)
    document = openapi_document(app)
    schemas, answers = document["components"]["schemas"], document["paths"]["/"]["get"]["responses"]
    assert example_of(500) is example_of(404, ErrorName.STORAGE_FULL) is None
    assert schemas["Error500"]["properties"]["error"]["enum"] == ["internal_error"]
    assert "examples" not in schemas["Error500"]
    assert "example" not in answers["500"]["content"]["application/json"]
    assert schemas["Error404"]["examples"]


async def test_an_error_while_describing_an_error_is_an_internal_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> Any:
        raise RuntimeError("a bug in the description")

    monkeypatch.setattr(errors, "describe", fail)
    app = Quart(__name__)
    register_error_handlers(app, "", told_more=False)
    answer = await app.test_client().get("/nothing")
    assert (answer.status_code, (await answer.get_json())["error"]) == (500, "internal_error")


async def test_in_development_an_error_of_the_service_says_where_and_a_refused_token_why(
    settings: Settings, bearer: Bearer, local_azure: LocalAzure, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENVIRONMENT", "development")
    local_azure.acs.faults.script("create_identity", Fault(status=503, times=None))
    token = local_azure.entra.access_token("alex", aud="api://other")
    async with create_app(load_settings(None)) as app:
        client = app.test_client()
        failed = await (await client.post("/api/user", headers=bearer("alex"))).get_json()
        assert (failed["code"], failed.get("reason")) == (503, None)
        raised, first, *_ = failed["stack_trace"].splitlines()
        assert raised.startswith("quart_app.acs.interface.AcsUnavailable")
        assert first.startswith(str(ROOT / "quart_app"))
        refused = await (await client.get("/api/user", headers={"Authorization": f"Bearer {token}"})).get_json()
        assert (refused["code"], refused["reason"]) == (401, "audience")
        missing = await (await client.get("/api/user", headers=bearer("alex"))).get_json()
        for answer in (refused, missing):
            assert "stack_trace" not in answer
        assert "reason" not in missing


async def test_in_production_only_that_a_token_has_expired_is_told(
    client: Client, bearer: Bearer, local_azure: LocalAzure
) -> None:
    entra = local_azure.entra
    for token, reason in ((entra.access_token("alex", exp=1), "expired"), (entra.access_token("alex", aud="x"), None)):
        answer = await (await client.get("/api/user", headers={"Authorization": f"Bearer {token}"})).get_json()
        assert (answer["error"], answer.get("reason")) == ("invalid_token", reason)
    # Who has no key of ours learns nothing, expired or not.
    forged = entra.sign({"exp": 1, "iat": 1, "iss": "x", "aud": "x"}, key=new_rsa_key())
    answer = await (await client.get("/api/user", headers={"Authorization": f"Bearer {forged}"})).get_json()
    assert "reason" not in answer


def test_a_stack_trace_begins_with_the_services_own_frames() -> None:
    with pytest.raises(ValueError, match="Expecting") as caught:
        json_object(b"{")
    lines = stack_trace(caught.value).splitlines()
    assert lines[0].startswith("json.decoder.JSONDecodeError")
    assert lines[1].startswith(str(ROOT / "quart_app" / "auth" / "compact_jws.py"))
    assert lines[2] == ""
    assert lines[3].startswith("Traceback")


@pytest.mark.parametrize(
    ("request_", "status", "name"),
    [
        (b"GET / HTTP/1.1\r\nHost localhost\r\n\r\n", 400, "bad_request"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n", 400, "bad_request"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 501, "not_implemented"),
        (b"GET / HTTP/1.1\r\nA: " + b"x" * 70_000, 431, "request_header_fields_too_large"),
    ],
    ids=["header", "length", "encoding", "size"],
)
async def test_what_the_server_refuses_by_itself_has_the_same_form(request_: bytes, status: int, name: str) -> None:
    async with served(Quart(__name__)) as address, asyncio.timeout(60):
        host, _, port = address.removeprefix("http://").partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(request_)
        answer = await reader.read()
        writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status} ".encode())
    assert b"content-type: application/json" in head.lower()
    assert b"x-content-type-options: nosniff" in head.lower()
    described = json.loads(body)
    assert set(described) == {"code", "error", "message", "requestId"}
    assert (described["code"], described["error"]) == (status, name)
