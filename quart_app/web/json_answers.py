"""The one way JSON answers are written."""

import json
from collections.abc import Mapping
from typing import Any

from quart import Response

as_json = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


def json_response(body: Mapping[str, Any], status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON answer of the application."""
    return Response(as_json(body), status, headers=dict(headers or {}), mimetype="application/json")


def no_content() -> Response:
    """204, which has neither a body nor a type."""
    response = Response("", 204)
    del response.headers["Content-Type"]
    return response
