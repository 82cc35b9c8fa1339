"""The console at `/`: signs a developer in, calls the API and shows what happened. Its files are in `web/assets`."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from importlib.resources import files
from typing import Any
from urllib.parse import urlsplit

from quart import Blueprint, Response, request
from werkzeug.exceptions import NotFound

from quart_app.auth.doors import SignIn
from quart_app.auth.guard import public
from quart_app.auth.token_explanation import Explanation
from quart_app.settings import DocsSettings
from quart_app.web.json_answers import json_response
from quart_app.web.pages import CONTENT_POLICY

Explain = Callable[[str], Awaitable[Explanation]]

_MIMETYPES = {".js": "text/javascript", ".css": "text/css"}


def console_routes(
    sign_ins: Callable[[], Sequence[SignIn]], docs: DocsSettings, document: dict[str, Any], explain: Explain | None
) -> Blueprint:
    """The console's page, its files, and what it needs to know.

    `sign_ins` says where users sign in, as far as it is known; the page offers the first. `document` is the OpenAPI
    document, by which the page knows which calls there are. `explain` judges a token; it is for development only, since
    it says more than the API.
    """
    blueprint = Blueprint("console", __name__)
    folder = files("quart_app.web") / "assets" / "console"
    assets = {each.name: each.read_bytes() for each in folder.iterdir() if each.is_file()}
    page = assets.pop("index.html")

    @blueprint.get("/")
    @public
    async def console() -> Response:
        known = next(iter(sign_ins()), None)
        token_origin = "" if known is None else _origin(known.endpoints.token)
        policy = f"{CONTENT_POLICY}; connect-src 'self' {token_origin}".rstrip()
        return Response(page, mimetype="text/html", headers={"Content-Security-Policy": policy})

    @blueprint.get("/console/start.json")
    @public
    async def start() -> Response:
        known = next(iter(sign_ins()), None)
        operations = [f"{method.upper()} {path}" for path, item in document["paths"].items() for method in item]
        told: dict[str, Any] = {"explains": explain is not None, "operations": operations, "signIn": None}
        if known is not None:
            told["signIn"] = {
                "issuer": known.issuer,
                "authorization": known.endpoints.authorization,
                "token": known.endpoints.token,
                "scopes": known.scopes,
                "clientId": docs.client_id,
            }
        return json_response(told)

    @blueprint.get("/console/<name>")
    @public
    async def asset(name: str) -> Response:
        if name not in assets:
            raise NotFound
        mimetype = _MIMETYPES[name[name.rindex(".") :]]
        return Response(assets[name], mimetype=mimetype, headers={"Cache-Control": "no-cache"})

    if explain is not None:

        @blueprint.post("/console/explanation")
        @public
        async def explanation() -> Response:
            """What the service says to the token in the header `Authorization`, rule by rule."""
            found = await explain(request.headers.get("Authorization", ""))
            judged = [asdict(each) for each in found.judged]
            return json_response({"accepted": found.accepted, "reason": found.reason, "judged": judged})

    return blueprint


def _origin(address: str) -> str:
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.netloc}"
