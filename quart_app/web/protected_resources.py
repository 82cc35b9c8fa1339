"""This API as a protected resource (RFC 9728): under which address it was asked, and where its metadata is."""

import re

from quart import request

METADATA_PATH = "/.well-known/oauth-protected-resource"
_HOST = re.compile(r"([A-Za-z0-9](?:[A-Za-z0-9.-]{0,252})|\[[0-9A-Fa-f:.]{2,45}\])(:[0-9]{1,5})?")


def asked_origin() -> str | None:
    """Scheme and host by which the client asked, as trusted proxies report them; `None` if the host can't be one.

    It is the client's own statement and decides nothing: it only goes back to the same client, in an answer that no
    cache keeps.
    """
    host = request.headers.get("Host", "")
    return f"{request.scheme}://{host}" if _HOST.fullmatch(host) else None


def metadata_url() -> str | None:
    """Where the metadata of the requested path is (RFC 9728, section 3.1); `None` if the host can't be one."""
    origin, rule = asked_origin(), request.url_rule
    if origin is None:
        return None
    return f"{origin}{METADATA_PATH}{rule.rule if rule is not None else ''}"
