"""Who may call ACS Identity: requests signed with the resource's access key, or an Entra token for ACS.

The signature is described at https://learn.microsoft.com/azure/communication-services/tutorials/hmac-header-tutorial.
"""

import base64
import hashlib
import hmac
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import Any

from aiohttp import web

from local_azure.acs import errors
from local_azure.clock import Clock

ALLOWED_SKEW_SECONDS = 300
AUDIENCES = ("https://communication.azure.com", "https://communication.azure.com/")

_HMAC_PREFIX = "HMAC-SHA256 SignedHeaders=x-ms-date;host;x-ms-content-sha256&Signature="
_BEARER_PREFIX = "Bearer "


def check_signature(request: web.Request, body: bytes, access_key: str, clock: Clock) -> None:
    """Verify the HMAC over the request target exactly as it arrived, the `Host` header and the real body.

    `access_key` is base64. Raises `ServiceError` (401 `Denied`).
    """
    authorization = request.headers.get("Authorization", "")
    date = request.headers.get("x-ms-date", "")
    content_hash = base64.b64encode(hashlib.sha256(body).digest()).decode()
    if not authorization.startswith(_HMAC_PREFIX) or request.headers.get("x-ms-content-sha256") != content_hash:
        raise errors.denied()
    if abs(clock() - _seconds(date)) > ALLOWED_SKEW_SECONDS:
        raise errors.clock_skew()
    host = request.headers.get("Host", "")
    signed = f"{request.method}\n{request.raw_path}\n{date};{host};{content_hash}"
    key = base64.b64decode(access_key)
    signature = base64.b64encode(hmac.digest(key, signed.encode(errors="surrogateescape"), "sha256"))
    sent = authorization.removeprefix(_HMAC_PREFIX).encode(errors="surrogateescape")
    if not hmac.compare_digest(signature, sent):
        raise errors.denied()


def is_bearer(request: web.Request) -> bool:
    """Whether the request carries an Entra access token instead of a signature."""
    return request.headers.get("Authorization", "").startswith(_BEARER_PREFIX)


def check_bearer(request: web.Request, verify: Callable[[str], dict[str, Any] | None], clock: Clock) -> None:
    """Accept an unexpired Entra access token for ACS; roles are not modelled. Raises `ServiceError` (401 `Denied`)."""
    claims = verify(request.headers["Authorization"].removeprefix(_BEARER_PREFIX))
    if claims is None or claims.get("aud") not in AUDIENCES or claims.get("exp", 0) <= clock():
        raise errors.denied()


def _seconds(date: str) -> float:
    try:
        return parsedate_to_datetime(date).timestamp()
    except ValueError as error:
        raise errors.denied() from error
