"""When an upstream says that the next attempt should be made."""

import math
import time
from collections.abc import Callable, Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime

LONGEST_SECONDS = 3600.0
"""What is asked for beyond this is cut: no upstream here is throttled for longer, and the value reaches clients."""


def retry_after(headers: Mapping[str, str], now: Callable[[], float] = time.time) -> float | None:
    """Seconds to wait, from `x-ms-retry-after-ms` or `Retry-After` as seconds or as a date; `None` when neither says.

    RFC 9110, section 10.2.3; Azure's data planes send the former as well, or instead of it. `headers` finds names
    whatever their case; `now` returns seconds since the epoch.
    """
    milliseconds = _number(headers.get("x-ms-retry-after-ms"))
    if milliseconds is not None:
        return min(milliseconds / 1000, LONGEST_SECONDS)
    given = headers.get("Retry-After")
    seconds = _number(given)
    if seconds is not None:
        return min(seconds, LONGEST_SECONDS)
    try:
        date = parsedate_to_datetime(given or "")
        moment = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None
    return min(max(0.0, moment - now()), LONGEST_SECONDS)


def _number(text: str | None) -> float | None:
    """The number that `text` writes in plain ASCII digits, perhaps with a fraction; infinite when it is huge."""
    text = (text or "").strip()
    digits, dot, fraction = text.partition(".")
    if not (text.isascii() and digits.isdigit() and (fraction.isdigit() or not dot)):
        return None
    return float(text) if len(text) <= _DIGITS else math.inf


_DIGITS = 30
