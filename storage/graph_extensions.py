"""The open extension that holds a mapping in Microsoft Graph: its properties, written and read.

`acsUserIdentity` is that of Microsoft's samples, which ignore the others. Anyone who signs in as the user may write
all of them, so a mapping counts only with its seal.
"""

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from storage import values
from storage.mapping import IdentityMapping, Unreadable, UnreadableMapping, UserKey
from storage.seal import Seals, SealVerdict

IDENTITY = "acsUserIdentity"
CREATED_AT = "acsUserIdentityCreatedAt"
DELETING = "acsUserIdentityDeleting"
SIGNED_OUT_AT = "acsUserIdentitySignedOutAt"
SEAL = "acsUserIdentitySeal"


@dataclass(frozen=True, slots=True)
class StoredExtension:
    """A user's extension as it is stored, whatever that means."""

    user: UserKey
    properties: dict[str, Any] = field(repr=False)

    @property
    def version(self) -> str:
        """The version of the mapping that it holds, readable or not."""
        return version_of(self.properties)


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


def created(mapping: IdentityMapping, seals: Seals) -> dict[str, Any]:
    """The properties of a new mapping."""
    seal = seals.seal(mapping.user, mapping.acs_user_id)
    return {IDENTITY: mapping.acs_user_id, CREATED_AT: mapping.created_at.isoformat(), SEAL: seal}


def changed(properties: dict[str, Any], mapping: IdentityMapping) -> dict[str, Any]:
    """The properties of a changed mapping. Those that others wrote stay, and so does what is sealed."""
    marks: dict[str, Any] = {}
    if mapping.deleting:
        marks[DELETING] = True
    if mapping.signed_out_at is not None:
        marks[SIGNED_OUT_AT] = mapping.signed_out_at.isoformat()
    kept = {name: value for name, value in properties.items() if name not in (DELETING, SIGNED_OUT_AT)}
    return kept | marks


def mapping_of(stored: StoredExtension, seals: Seals, *, accept_unsealed: bool) -> IdentityMapping | UnreadableMapping:
    """What an extension holds. The seal is checked before anything else, because the user may write all of it."""
    user, properties = stored.user, stored.properties
    proven: str | None = None

    def unreadable(reason: Unreadable, detail: str = "") -> UnreadableMapping:
        return UnreadableMapping(
            user, stored.version, reason, detail, key=user.subject, acs_user_id=proven, users_may_write=True
        )

    try:
        identity = values.acs_user_id(properties.get(IDENTITY))
        unsealed = SEAL not in properties
        if unsealed and not accept_unsealed:
            return unreadable(Unreadable.UNSEALED)
        if not unsealed:
            match seals.verify(properties[SEAL], user, identity):
                case SealVerdict.FOREIGN:
                    return unreadable(Unreadable.FOREIGN_SEAL)
                case SealVerdict.KEY_NOT_HELD:
                    return unreadable(Unreadable.SEAL_KEY_NOT_HELD)
            proven = identity
        return IdentityMapping(
            user,
            identity,
            values.created_at(properties.get(CREATED_AT)),
            deleting=values.deleting(properties.get(DELETING, False)),
            version=stored.version,
            signed_out_at=values.signed_out_at(properties.get(SIGNED_OUT_AT)),
            unsealed=unsealed,
        )
    except values.NoSuchValue as fault:
        return unreadable(Unreadable.DAMAGED, str(fault))
