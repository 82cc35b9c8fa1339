"""Plain pages for people who come with a browser; programs get JSON."""

from quart import Response
from werkzeug.datastructures import MIMEAccept

CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)

FRONT_PAGE = """<p>This service signs users of this organization in to Azure Communication Services. It has no pages of
its own for them: an app calls it.</p>
<p>For developers: <a href="/docs">try the API</a> · <a href="/openapi.json">OpenAPI document</a></p>"""

NO_SUCH_PAGE = """<p>Nothing is at this address.</p>
<p><a href="/">Start</a> · <a href="/docs">try the API</a></p>"""

_PAGE = """<!doctype html>
<html lang="en">
<head>
  <meta charset="utf-8">
  <meta name="viewport" content="width=device-width, initial-scale=1">
  <meta name="color-scheme" content="light dark">
  <title>{title} - ACS authentication service</title>
  <link rel="icon" href="/favicon.svg" type="image/svg+xml">
  <link rel="stylesheet" href="/page.css">
</head>
<body class="plain">
<main>
<h1>{title}</h1>
{body}
</main>
</body>
</html>
"""


def page(title: str, body: str, status: int = 200) -> Response:
    """A page; `body` is HTML of this module's, never of a request."""
    text = _PAGE.format(title=title, body=body)
    return Response(text, status, mimetype="text/html", headers={"Content-Security-Policy": CONTENT_POLICY})


def wants_page(method: str, accepted: MIMEAccept) -> bool:
    """Whether this is a browser that opens an address: it prefers HTML to JSON, and says so."""
    return method in ("GET", "HEAD") and accepted.best_match(["application/json", "text/html"]) == "text/html"
