"""The rules that need neither network nor accounts."""

import base64
import binascii
import json
import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

MINUTE = 60.0
_AHEAD = 11 * MINUTE
_SPREAD = 5 * MINUTE


def renewal_time(now: float, end: float, drawn: float) -> float:
    """When to renew a token that was received at `now` and ends at `end` (seconds since the epoch).

    11 to 16 minutes before the end, drawn by `drawn` (0 to 1), so that users who signed in together do not come back
    together; for a token with little left, when a quarter to a half of that has passed.
    """
    left = end - now
    return end - min(_AHEAD, left / 2) - drawn * min(_SPREAD, left / 4)


def retry_after(header: str | None, now: float) -> float | None:
    """The seconds that a `Retry-After` header asks to wait: a number or a date (RFC 9110, section 10.2.3)."""
    text = (header or "").strip()
    if re.fullmatch(r"[0-9]{1,9}", text):
        return float(text)
    try:
        date = parsedate_to_datetime(text)
    except ValueError:
        return None
    return max(0.0, (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - now)


def claims_of_challenge(header: str | None) -> str | None:
    """The claims, as JSON, that a `WWW-Authenticate` header challenges the client to sign in again with.

    See https://learn.microsoft.com/entra/identity-platform/claims-challenge.
    """
    parameters = dict(re.findall(r'(?:^|(?<=[\s,]))([a-z_]+)\s*=\s*"([^"]*)"', header or ""))
    if parameters.get("error") != "insufficient_claims" or "claims" not in parameters:
        return None
    try:
        claims = base64.b64decode(parameters["claims"], validate=True).decode()
        json.loads(claims)
    except (binascii.Error, ValueError):
        return None
    return claims


def expiry(text: object) -> float | None:
    """An `expiresOn` of the service, ISO 8601, in seconds since the epoch."""
    if not isinstance(text, str):
        return None
    try:
        date = datetime.fromisoformat(text)
    except ValueError:
        return None
    return date.timestamp() if date.tzinfo else None
