"""The rules of Microsoft Entra ID's tokens, v1 and v2: whose tenant, which user, what for."""

import re
from collections.abc import Collection, Mapping
from typing import Any

from quart_app.auth.signed_tokens import InvalidAccessToken, VerifiedToken, words
from quart_app.auth.signing_keys import SigningKey
from storage.mapping import UserKey

_GUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


class EntraTokens:
    """`TokenRules` for the users of `tenants` alone.

    The rules are those of https://learn.microsoft.com/entra/identity-platform/access-tokens and claims-validation: the
    issuer is that of the metadata whose key signed the token, and names the token's own tenant; the signing key's own
    issuer is honoured. `authority_host` is the root that this cloud's v2 issuers begin with, without a trailing slash.
    """

    def __init__(self, tenants: Collection[str], authority_host: str) -> None:
        self._tenants = frozenset(tenant.lower() for tenant in tenants)
        self._authority_host = authority_host

    def issuer_matches_key(self, claims: Mapping[str, Any], key: SigningKey) -> bool:
        """See `TokenRules.issuer_matches_key`."""
        tenant = claims.get("tid")
        if not isinstance(tenant, str) or not _GUID.fullmatch(tenant) or tenant.lower() not in self._tenants:
            raise InvalidAccessToken
        issuer = key.issuer.replace("{tenantid}", tenant)
        if claims["iss"] != issuer or tenant not in issuer.split("/"):
            return False
        if key.key_issuer is None:
            return True
        key_issuer = key.key_issuer.replace("{tenantid}", tenant)
        return key_issuer in (issuer, f"{self._authority_host}/{tenant}/v2.0")

    def read(self, claims: Mapping[str, Any], key: SigningKey) -> VerifiedToken:
        """See `TokenRules.read`. The user is `(tenant id, object id)`, both in lower case."""
        object_id, scopes, capabilities = claims.get("oid"), claims.get("scp"), claims.get("xms_cc", [])
        client_id = claims.get("azp", claims.get("appid"))
        if (
            not isinstance(claims["aud"], str)
            or not isinstance(claims["exp"], int)
            or not isinstance(object_id, str)
            or not _GUID.fullmatch(object_id)
            or not isinstance(scopes, str | None)
            or not isinstance(client_id, str | None)
            or not isinstance(capabilities, list)
        ):
            raise InvalidAccessToken
        is_user = claims.get("idtyp", "user") == "user"
        return VerifiedToken(
            user=UserKey(claims["tid"].lower(), object_id.lower()),
            expires_at=claims["exp"],
            scopes=words(scopes) if scopes is not None and is_user else None,
            roles=frozenset(),
            client_id=client_id.lower() if client_id else None,
            capabilities=frozenset(item for item in capabilities if isinstance(item, str)),
            key=key,
        )
