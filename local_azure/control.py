"""Control routes that every stand-in offers for tests and the command line: scripting faults, reading the journal."""

import base64
import binascii
import dataclasses
import json
from typing import Any

from aiohttp import web

from local_azure.faults import UNKNOWN, Fault, Faults, UnknownOperation, without_content_type

_BYTES = "body_base64"
_FIELDS = {field.name for field in dataclasses.fields(Fault)} - {"until"} | {_BYTES}


def add_fault_routes(application: web.Application, faults: Faults) -> None:
    """Add the routes that script `faults` over HTTP, and what carries them out.

    - `PUT /local/faults/{operation}`: body is one `Fault` as JSON, or a list of them, with `body_base64` in the place
      of a body that is neither text nor JSON; 204, or 400 for a bad body, or 404 with the known operations
    - `DELETE /local/faults`: forget every scripted fault; 204
    - `GET /local/calls`: how many calls of each operation arrived, as JSON
    """

    async def put(request: web.Request) -> web.Response:
        try:
            body = await request.json()
            scripted = [_fault(entry) for entry in (body if isinstance(body, list) else [body])]
        except (json.JSONDecodeError, TypeError, ValueError) as error:
            raise web.HTTPBadRequest(text=f"Not a fault: {error}\n") from error
        try:
            faults.script(request.match_info["operation"], *scripted)
        except UnknownOperation as error:
            raise web.HTTPNotFound(text=f"{error}\n") from error
        return web.Response(status=204)

    async def delete(_: web.Request) -> web.Response:
        faults.clear()
        return web.Response(status=204)

    async def calls(_: web.Request) -> web.Response:
        return web.json_response(dict(faults.counts))

    faults.operations = lambda: operations(application)
    application.on_response_prepare.append(without_content_type)
    application.router.add_put("/local/faults/{operation}", put, name="local_faults_put")
    application.router.add_delete("/local/faults", delete, name="local_faults_delete")
    application.router.add_get("/local/calls", calls, name="local_calls")


def operations(application: web.Application) -> list[str]:
    """The operations that faults can be scripted for: the names of the routes, `*` for every one, `unknown` for a
    request that none of them takes.
    """
    names = {route.name or "" for route in application.router.routes()} - {""}
    return ["*", *sorted(name for name in names if not name.startswith("local_")), UNKNOWN]


def _fault(entry: Any) -> Fault:
    if not isinstance(entry, dict):
        raise TypeError("an object is expected")
    unknown = entry.keys() - _FIELDS
    if unknown:
        raise ValueError(f"unknown fields {sorted(unknown)}; known are {sorted(_FIELDS)}")
    if _BYTES in entry:
        entry = {name: value for name, value in entry.items() if name != _BYTES} | {"body": _bytes(entry)}
    fault = Fault(**entry)
    optional_text = (str, type(None))
    optional_number = (int, type(None))
    for name, kinds in (
        ("status", optional_number),
        ("times", optional_number),
        ("delay", (int, float)),
        ("content_type", optional_text),
    ):
        if not isinstance(getattr(fault, name), kinds):
            raise TypeError(f"{name} has the wrong type")
    if not isinstance(fault.headers, dict) or not all(isinstance(text, str) for text in fault.headers.values()):
        raise TypeError("headers must map strings to strings")
    if fault.times is not None and fault.times < 1:
        raise ValueError("times must be at least 1, or null")
    return fault


def _bytes(entry: dict[str, Any]) -> bytes:
    if "body" in entry:
        raise ValueError(f"body and {_BYTES} exclude each other")
    try:
        return base64.b64decode(entry[_BYTES], validate=True)
    except (binascii.Error, TypeError) as error:
        raise ValueError(f"{_BYTES} is not base64") from error
