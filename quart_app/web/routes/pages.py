"""The plain page at `/`, and what every page needs: its style and the icon."""

from importlib.resources import files

from quart import Blueprint, Response

from quart_app.auth.guard import public
from quart_app.web.pages import FRONT_PAGE, page

CACHED = {"Cache-Control": "public, max-age=3600"}


def page_routes(*, with_front_page: bool) -> Blueprint:
    """`/page.css`, `/favicon.svg` and `/favicon.ico`; `/` unless something else is there."""
    blueprint = Blueprint("pages", __name__)
    assets = files("quart_app.web") / "assets"
    style = (assets / "page.css").read_bytes()
    icon = (assets / "favicon.svg").read_bytes()

    @blueprint.get("/page.css")
    @public
    async def page_style() -> Response:
        return Response(style, mimetype="text/css", headers=CACHED)

    @blueprint.get("/favicon.svg")
    @blueprint.get("/favicon.ico")
    @public
    async def favicon() -> Response:
        return Response(icon, mimetype="image/svg+xml", headers=CACHED)

    if with_front_page:

        @blueprint.get("/")
        @public
        async def front_page() -> Response:
            return page("ACS authentication service", FRONT_PAGE)

    return blueprint
