"""Reads what ACS answers: an id, a token, a time, each in its own form. Anything else raises `ValueError`.

azure-rest-api-specs: CommunicationIdentity.json 2023-10-01.
"""

import re
from datetime import datetime

from quart_app.acs.interface import AcsToken

_GUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_ID = re.compile(rf"8:(?:dod-|gcch-)?acs:{_GUID}_{_GUID}", re.IGNORECASE)
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]{1,16384}=*")  # RFC 6750, section 2.1
_LONGEST_TIME = 64


def acs_user_id(value: object) -> str:
    """The id of an identity that ACS minted: `8:acs:<resource>_<identity>`, or with the prefix of a national cloud.

    https://learn.microsoft.com/azure/communication-services/concepts/identifiers
    """
    if not isinstance(value, str) or not _ID.fullmatch(value):
        raise ValueError("ACS answered without the id of an identity.")
    return value


def acs_token(token: object, expires_on: object) -> AcsToken:
    """An access token and when it expires: an ISO 8601 time with its zone, kept as ACS wrote it."""
    if not isinstance(token, str) or not _TOKEN.fullmatch(token):
        raise ValueError("ACS answered without an access token.")
    if not isinstance(expires_on, str) or len(expires_on) > _LONGEST_TIME or not expires_on.isascii():
        raise ValueError("ACS answered without the time at which the token expires.")
    if datetime.fromisoformat(expires_on).tzinfo is None:
        raise ValueError("ACS answered with a time without its zone.")
    return AcsToken(token, expires_on)
