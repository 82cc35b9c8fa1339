"""A claims challenge of Entra ID or Microsoft Graph, which goes to the client as it came, if it is fit for a header."""

import json

LONGEST_CHALLENGE = 8 * 1024
"""Characters. A longer one makes a response header that servers and clients refuse, and no policy writes one."""


def usable_challenge(claims: object) -> str | None:
    """`claims` if it is a JSON object of bounded length that UTF-8 can encode; `None` for anything else.

    https://learn.microsoft.com/entra/identity-platform/claims-challenge
    """
    if not isinstance(claims, str) or len(claims) > LONGEST_CHALLENGE:
        return None
    try:
        claims.encode()
        asked_for = json.loads(claims)
    except (ValueError, RecursionError):
        return None
    return claims if isinstance(asked_for, dict) and asked_for else None
