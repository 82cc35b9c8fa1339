"""The bodies of requests: read only by a route that takes one, once its caller is known, and never waited for long."""

from typing import TypeVar

from pydantic import TypeAdapter
from quart import request
from werkzeug.exceptions import UnsupportedMediaType

from quart_app.auth.compact_jws import json_object

T = TypeVar("T")

MAXIMUM_BODY_BYTES = 16 * 1024
"""A larger body is refused: at once if the request announces it, otherwise when a route has read that much of it."""

BODY_SECONDS = 5
"""How long a route waits for the whole body."""


class InvalidBody(Exception):
    """The body is not what the route takes. The message says what that is, and nothing of the body."""


async def json_body(form: TypeAdapter[T], described: str) -> T:
    """The request's body, which is JSON of this form; `described` says in a sentence what to send.

    Raises `InvalidBody`, and werkzeug's errors for another media type, a body that is too large, and one that does not
    arrive in time.
    """
    if request.mimetype != "application/json":
        raise UnsupportedMediaType
    return parsed(await request.get_data(cache=False, as_text=False, parse_form_data=False), form, described)


def parsed(body: bytes, form: TypeAdapter[T], described: str) -> T:
    """What `body` says; JSON is read as strictly as that of tokens. Raises `InvalidBody`."""
    try:
        return form.validate_python(json_object(body), strict=True)
    except ValueError:
        raise InvalidBody(described) from None
