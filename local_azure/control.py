"""Control routes that every stand-in offers for tests and the command line: scripting faults, reading the journal."""

import dataclasses
import json
from typing import Any

from aiohttp import web

from local_azure.faults import Fault, Faults

_FIELDS = {field.name for field in dataclasses.fields(Fault)}


def add_fault_routes(application: web.Application, faults: Faults) -> None:
    """Add the routes that script `faults` over HTTP.

    - `PUT /local/faults/{operation}`: body is one `Fault` as JSON, or a list of them; 204, or 400 for a bad body
    - `DELETE /local/faults`: forget every scripted fault; 204
    - `GET /local/calls`: how many calls of each operation arrived, as JSON
    """

    async def put(request: web.Request) -> web.Response:
        try:
            body = await request.json()
            scripted = [_fault(entry) for entry in (body if isinstance(body, list) else [body])]
        except (json.JSONDecodeError, TypeError, ValueError) as error:
            raise web.HTTPBadRequest(text=f"Not a fault: {error}\n") from error
        faults.script(request.match_info["operation"], *scripted)
        return web.Response(status=204)

    async def delete(_: web.Request) -> web.Response:
        faults.clear()
        return web.Response(status=204)

    async def calls(_: web.Request) -> web.Response:
        return web.json_response(dict(faults.counts))

    application.router.add_put("/local/faults/{operation}", put, name="local_faults_put")
    application.router.add_delete("/local/faults", delete, name="local_faults_delete")
    application.router.add_get("/local/calls", calls, name="local_calls")


def _fault(entry: Any) -> Fault:
    if not isinstance(entry, dict):
        raise TypeError("an object is expected")
    unknown = entry.keys() - _FIELDS
    if unknown:
        raise ValueError(f"unknown fields {sorted(unknown)}; known are {sorted(_FIELDS)}")
    fault = Fault(**entry)
    for name, kinds in (("status", (int, type(None))), ("times", (int, type(None))), ("delay", (int, float))):
        if not isinstance(getattr(fault, name), kinds):
            raise TypeError(f"{name} has the wrong type")
    if not isinstance(fault.headers, dict) or not all(isinstance(text, str) for text in fault.headers.values()):
        raise TypeError("headers must map strings to strings")
    if fault.times is not None and fault.times < 1:
        raise ValueError("times must be at least 1, or null")
    return fault
