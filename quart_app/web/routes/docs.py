"""`/openapi.json` and `/docs`: Swagger UI with real sign-in (authorization code + PKCE), its files from a package."""

import json
from collections.abc import Callable, Sequence
from importlib.resources import files
from typing import Any
from urllib.parse import urlsplit

from quart import Blueprint, Response
from werkzeug.exceptions import NotFound

from quart_app.auth.doors import SignIn
from quart_app.auth.guard import public
from quart_app.settings import DocsSettings
from quart_app.web.json_answers import json_response
from quart_app.web.routes.openapi import with_sign_in

_ASSETS = {
    "swagger-ui.css": "text/css",
    "swagger-ui-bundle.js": "text/javascript",
    "oauth2-redirect.js": "text/javascript",
}

_PAGE = """<!doctype html>
<html lang="en">
<head>
  <meta charset="utf-8">
  <meta name="viewport" content="width=device-width, initial-scale=1">
  <title>ACS authentication service</title>
  <link rel="stylesheet" href="/docs/swagger-ui.css">
  <link rel="stylesheet" href="/docs/docs.css">
  <link rel="icon" href="/favicon.svg" type="image/svg+xml">
</head>
<body>
  <div id="swagger-ui"></div>
  <script src="/docs/swagger-ui-bundle.js"></script>
  <script src="/docs/start.js"></script>
</body>
</html>
"""

_REDIRECT_PAGE = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>Signing in</title></head>
<body><script src="/docs/oauth2-redirect.js"></script></body>
</html>
"""

_START = """const dark = matchMedia("(prefers-color-scheme: dark)");
const follow = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
dark.onchange = follow;
follow();
const ui = SwaggerUIBundle({
  url: "/docs/openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  tryItOutEnabled: true,
  oauth2RedirectUrl: window.location.origin + "/docs/oauth2-redirect.html",
});
ui.initOAuth(%s);
"""


def docs_routes(document: dict[str, Any], sign_ins: Callable[[], Sequence[SignIn]], docs: DocsSettings) -> Blueprint:
    """The OpenAPI document and the page that lets one sign in and try each call.

    `sign_ins` says where, as far as it is known. The client of `docs` is that of the first.
    """
    blueprint = Blueprint("docs", __name__)
    package = files("flask_swagger_ui") / "dist"
    assets = {name: ((package / name).read_bytes(), mimetype) for name, mimetype in _ASSETS.items()}
    assets["docs.css"] = ((files("quart_app.web") / "assets" / "docs.css").read_bytes(), "text/css")

    def policy() -> dict[str, str]:
        token_hosts = " ".join("https://" + urlsplit(each.endpoints.token).netloc for each in sign_ins())
        return {
            "Content-Security-Policy": f"default-src 'self'; connect-src 'self' {token_hosts}; "
            "img-src 'self' data:; style-src 'self' 'unsafe-inline'; frame-ancestors 'none'"
        }

    @blueprint.get("/openapi.json")
    @public
    async def openapi() -> Response:
        return json_response(with_sign_in(document, sign_ins()))

    @blueprint.get("/docs/openapi.json")
    @public
    async def document_for_the_page() -> Response:
        """The document without a field for a token, where the page can sign all users in by itself."""
        known = sign_ins()
        return json_response(with_sign_in(document, known, by_token=docs.client_id is None or len(known) > 1))

    @blueprint.get("/docs")
    @public
    async def page() -> Response:
        return Response(_PAGE, mimetype="text/html", headers=policy())

    @blueprint.get("/docs/oauth2-redirect.html")
    @public
    async def redirect_page() -> Response:
        return Response(_REDIRECT_PAGE, mimetype="text/html", headers=policy())

    @blueprint.get("/docs/start.js")
    @public
    async def start() -> Response:
        known = sign_ins()
        start_with = {
            "clientId": docs.client_id or "",
            "scopes": list(known[0].scopes) if known else [],
            "usePkceWithAuthorizationCodeGrant": True,
        }
        return Response(_START % json.dumps(start_with), mimetype="text/javascript")

    @blueprint.get("/docs/<name>")
    @public
    async def asset(name: str) -> Response:
        if name not in assets:
            raise NotFound
        content, mimetype = assets[name]
        return Response(content, mimetype=mimetype, headers={"Cache-Control": "public, max-age=86400"})

    return blueprint
