"""The items that hold mappings in Cosmos DB: how they are called, written and read."""

import hashlib
import json
import re
from typing import Any

from storage import values
from storage.mapping import IdentityMapping, Unreadable, UnreadableMapping, UserKey


def item_id(user: UserKey) -> str:
    """The id of the user's item: `<issuer>:<subject>` where both are plain, as Entra ID's GUIDs are, otherwise a hash.

    Different users have different ids (a colon and a tilde are in no plain part). Ids hold none of the characters that
    Cosmos DB refuses and at most 255 bytes: https://learn.microsoft.com/azure/cosmos-db/concepts-limits
    """
    if _PLAIN.fullmatch(user.issuer) and _PLAIN.fullmatch(user.subject):
        return f"{user.issuer}:{user.subject}"
    # JSON keeps the parts apart, and escapes what UTF-8 can't encode.
    return "sha256~" + hashlib.sha256(json.dumps([user.issuer, user.subject]).encode()).hexdigest()


def item_of(mapping: IdentityMapping) -> dict[str, Any]:
    """The item to be written for a mapping."""
    item = {
        "id": item_id(mapping.user),
        "issuer": mapping.user.issuer,
        "subject": mapping.user.subject,
        "acsUserId": mapping.acs_user_id,
        "createdAt": mapping.created_at.isoformat(),
        "deleting": mapping.deleting,
    }
    if mapping.signed_out_at is not None:
        item["signedOutAt"] = mapping.signed_out_at.isoformat()
    return item


def mapping_of(item: dict[str, Any], user: UserKey | None = None) -> IdentityMapping | UnreadableMapping:
    """What the item holds; `user` is whose it was read as, `None` in a listing."""
    key, version = str(item.get("id", "")), str(item.get("_etag", ""))
    owner = user or _named_by(key)
    identity = None
    try:
        owner = _owner(item, user)
        identity = values.acs_user_id(item.get("acsUserId"))
        return IdentityMapping(
            owner,
            identity,
            values.created_at(item.get("createdAt")),
            deleting=values.deleting(item.get("deleting", False)),
            version=values.text(version, "_etag"),
            signed_out_at=values.signed_out_at(item.get("signedOutAt")),
        )
    except values.NoSuchValue as fault:
        return UnreadableMapping(owner, version, Unreadable.DAMAGED, str(fault), key=key, acs_user_id=identity)


_PLAIN = re.compile(r"[A-Za-z0-9_-]{1,127}")


def _named_by(key: str) -> UserKey | None:
    """The user whose item has this id, where an id says that."""
    issuer, separator, subject = key.partition(":")
    plain = separator and _PLAIN.fullmatch(issuer) and _PLAIN.fullmatch(subject)
    return UserKey(issuer, subject) if plain else None


def _owner(item: dict[str, Any], user: UserKey | None) -> UserKey:
    found = UserKey(values.text(item.get("issuer"), "issuer"), values.text(item.get("subject"), "subject"))
    if item_id(found) != item.get("id") or user not in (None, found):
        raise values.NoSuchValue("its id is not that of the user whom it names")
    return found
