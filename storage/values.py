"""The values of a stored mapping, each parsed once: into its type, or refused by name. Nothing is coerced.

Documents come from elsewhere, too: editors turn null into text, serializers leave `false` out, users may write their
own extension in Microsoft Graph. What a value is not is never guessed at.
"""

import re
from datetime import UTC, datetime

from storage.mapping import UNKNOWN_CREATION


class NoSuchValue(ValueError):
    """The value is missing or is not of its form; the message says which and holds no value."""


def acs_user_id(value: object) -> str:
    """The id of an ACS user, as ACS issues them in its clouds. Raises `NoSuchValue`.

    `8:acs:`, `8:gcch-acs:` or `8:dod-acs:`, the resource's GUID and the identity's own part. Ids of others (Teams users
    are `8:orgid:…`) are no identities that this service may have minted, and an id with a blank, a slash or a question
    mark would lead a request to another address.
    Source: azure-communication-identity, `_shared/models.py`.
    """
    if not isinstance(value, str) or not _ACS_USER_ID.fullmatch(value):
        raise NoSuchValue("the ACS user id is not of the form that ACS gives")
    return value


def deleting(value: object) -> bool:
    """The mark of a deletion: absent (which means `False`) or a truth value. Raises `NoSuchValue`."""
    if not isinstance(value, bool):
        raise NoSuchValue("the mark of a deletion is not a truth value")
    return value


def created_at(value: object) -> datetime:
    """When the mapping was created; `UNKNOWN_CREATION` for whatever is not a point in time, for nothing hangs on it."""
    return _time(value) or UNKNOWN_CREATION


def signed_out_at(value: object) -> datetime | None:
    """When the user signed out everywhere; absent and null are `None`. Raises `NoSuchValue`."""
    if value is None:
        return None
    time = _time(value)
    if time is None:
        raise NoSuchValue("the time of the last sign-out is not a point in time")
    return time


def text(value: object, name: str) -> str:
    """Text, not empty. Raises `NoSuchValue`."""
    if not isinstance(value, str) or not value:
        raise NoSuchValue(f"{name} is not text")
    return value


def digits(value: object, name: str) -> str:
    """Text that is a whole number. Raises `NoSuchValue`."""
    if not isinstance(value, str) or not re.fullmatch("[0-9]+", value):
        raise NoSuchValue(f"{name} is not a whole number")
    return value


_ACS_USER_ID = re.compile(
    r"8:(acs|gcch-acs|dod-acs):[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}_[0-9A-Za-z_-]{1,128}"
)


def _time(value: object) -> datetime | None:
    if not isinstance(value, str):
        return None
    try:
        time = datetime.fromisoformat(value)
        # A time without an offset is not a point in time, and one at the edge of the calendar has none in UTC.
        return None if time.tzinfo is None else time.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
