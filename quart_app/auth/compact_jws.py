"""The compact form of a JSON Web Signature, read so strictly that no two readers can take one token differently."""

import base64
import json
import re
from typing import Any

MAXIMUM_DEPTH = 100
"""How deep arrays and objects may be nested in a header or in claims."""

# A string, even an unterminated one, is matched whole and only once, so that brackets inside it are not counted.
_TEXT_OR_BRACKET = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|([\[\]{}])', re.DOTALL)


def decoded_parts(token: str) -> tuple[bytes, bytes, bytes]:
    """Header, payload and signature of `token` as bytes; nothing is verified.

    Each part has only one spelling: base64url without padding, its unused bits zero (RFC 7515, section 2; RFC 4648,
    section 3.5). Otherwise a token could be changed and stay valid. Raises `ValueError`.
    """
    header, payload, signature = (_decoded(part) for part in token.split("."))
    return header, payload, signature


def json_object(text: bytes) -> dict[str, Any]:
    """The JSON object in `text`, which must be UTF-8 (RFC 8725, section 3.7).

    It also refuses what Python's own reader accepts: a member given twice, of which some readers see the first and some
    the last (RFC 7515, section 4; RFC 7519, section 4), and numbers that are not JSON, `NaN` and `Infinity`. Raises
    `ValueError`.
    """
    # How deep Python's own reader goes differs from one version to the next; so deep it goes in all of them.
    if _depth(text) > MAXIMUM_DEPTH:
        raise ValueError("It nests too deeply.")
    value = json.loads(text.decode("utf-8"), object_pairs_hook=_members, parse_constant=_no_number)
    if not isinstance(value, dict):
        raise ValueError("It is not an object.")  # noqa: TRY004 (one error for whatever is wrong with the text)
    return value


def _depth(text: bytes) -> int:
    """How deep arrays and objects are nested; brackets inside strings don't count."""
    depth = deepest = 0
    for bracket in _TEXT_OR_BRACKET.findall(text):
        if bracket in (b"[", b"{"):
            depth += 1
            deepest = max(deepest, depth)
        elif bracket:
            depth -= 1
    return deepest


def _decoded(part: str) -> bytes:
    if not part.isascii():
        raise ValueError("It is not base64url.")
    decoded = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    if base64.urlsafe_b64encode(decoded).rstrip(b"=").decode() != part:
        raise ValueError("It is not base64url as it must be written.")
    return decoded


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise ValueError("A member is given twice.")
    return members


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is not JSON.")
