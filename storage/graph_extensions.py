"""The open extension that holds a mapping in Microsoft Graph: its properties, written and read."""

import hashlib
import json
from typing import Any

from storage import values
from storage.mapping import IdentityMapping, Unreadable, UnreadableMapping, UserKey

IDENTITY = "acsUserIdentity"
CREATED_AT = "acsUserIdentityCreatedAt"
DELETING = "acsUserIdentityDeleting"
SIGNED_OUT_AT = "acsUserIdentitySignedOutAt"


def properties_of(extension: dict[str, Any]) -> dict[str, Any]:
    """What is stored, without Graph's own description of it."""
    return {
        name: value
        for name, value in extension.items()
        if name not in ("id", "extensionName") and "@odata." not in name
    }


def version_of(properties: dict[str, Any]) -> str:
    """A hash of the content, in the place of the etag that Graph lacks."""
    return hashlib.sha256(json.dumps(properties, sort_keys=True).encode()).hexdigest()


def created(mapping: IdentityMapping) -> dict[str, Any]:
    """The properties of a new mapping."""
    return {IDENTITY: mapping.acs_user_id, CREATED_AT: mapping.created_at.isoformat()}


def changed(properties: dict[str, Any], mapping: IdentityMapping) -> dict[str, Any]:
    """The properties of a changed mapping. Those that others wrote stay, and so does what is sealed."""
    marks: dict[str, Any] = {}
    if mapping.deleting:
        marks[DELETING] = True
    if mapping.signed_out_at is not None:
        marks[SIGNED_OUT_AT] = mapping.signed_out_at.isoformat()
    kept = {name: value for name, value in properties.items() if name not in (DELETING, SIGNED_OUT_AT)}
    return kept | marks


def mapping_of(user: UserKey, properties: dict[str, Any]) -> IdentityMapping | UnreadableMapping:
    """What an extension of this user holds."""
    version = version_of(properties)
    try:
        return IdentityMapping(
            user,
            values.acs_user_id(properties.get(IDENTITY)),
            values.created_at(properties.get(CREATED_AT)),
            deleting=values.deleting(properties.get(DELETING, False)),
            version=version,
            signed_out_at=values.signed_out_at(properties.get(SIGNED_OUT_AT)),
        )
    except values.NoSuchValue as fault:
        return UnreadableMapping(user, version, Unreadable.DAMAGED, str(fault), key=user.subject, users_may_write=True)
