"""Verifies a token that Entra ID signed: its signature, times, audience, issuer and tenant."""

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import jwt

from quart_app.auth.signing_keys import SigningKey, SigningKeys

MAXIMUM_TOKEN_BYTES = 16 * 1024
LEEWAY_SECONDS = 60
_GUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_COMPACT_JWS = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")


class InvalidAccessToken(Exception):
    """The token proves nothing. The reason is not told: whoever forges tokens would learn from it."""


@dataclass(frozen=True, slots=True)
class VerifiedToken:
    """What a verified token says. `tenant_id` and `object_id` are GUIDs in lower case; `expires_at` in epoch seconds.

    `scopes` is `None` in a token that is not a user's delegated access token. `client_id` is `azp` or `appid`.
    """

    tenant_id: str
    object_id: str
    expires_at: int
    scopes: frozenset[str] | None
    client_id: str | None
    capabilities: frozenset[str]
    key: SigningKey


class SignedTokens:
    """Verifies v1 and v2 tokens of Entra ID, of these tenants alone.

    The rules are those of https://learn.microsoft.com/entra/identity-platform/access-tokens and claims-validation:
    RS256 alone; `exp iat iss aud` required; the issuer is that of the metadata whose key signed the token, and names
    the token's own tenant; the signing key's own issuer is honoured. `authority_host` is the authority's root, without
    a trailing slash.
    """

    def __init__(self, keys: SigningKeys, tenants: Collection[str], authority_host: str) -> None:
        self._keys = keys
        self._tenants = frozenset(tenant.lower() for tenant in tenants)
        self._authority_host = authority_host

    async def verify(self, token: str, audiences: Collection[str]) -> VerifiedToken:
        """Verify `token` for one of `audiences`.

        Raises `InvalidAccessToken`, or `SigningKeysUnavailable` when no statement is possible.
        """
        if len(token) > MAXIMUM_TOKEN_BYTES or not _COMPACT_JWS.fullmatch(token):
            raise InvalidAccessToken
        for key in await self._keys.find(_key_id(token)):
            claims = _signed_claims(token, key, audiences)
            if claims is not None and self._issuer_fits(claims, key):
                return _typed(claims, key)
        raise InvalidAccessToken

    def still_verifies(self, token: VerifiedToken, now: float) -> bool:
        """Whether a token verified earlier is still good: not expired, its signing key still published."""
        return now < token.expires_at and self._keys.holds(token.key)

    def _issuer_fits(self, claims: dict[str, Any], key: SigningKey) -> bool:
        tenant = claims.get("tid")
        if not isinstance(tenant, str) or not _GUID.fullmatch(tenant) or tenant.lower() not in self._tenants:
            return False
        issuer = key.issuer.replace("{tenantid}", tenant)
        if claims["iss"] != issuer or tenant not in issuer.split("/"):
            return False
        if key.key_issuer is None:
            return True
        key_issuer = key.key_issuer.replace("{tenantid}", tenant)
        return key_issuer in (issuer, f"{self._authority_host}/{tenant}/v2.0")


def _key_id(token: str) -> str:
    """The key id that the header names: a hint where to look, nothing more."""
    try:
        header = jwt.get_unverified_header(token)
    except (jwt.PyJWTError, ValueError, RecursionError) as error:
        raise InvalidAccessToken from error
    key_id = header.get("kid")
    fits = header.get("alg") == "RS256" and header.get("typ", "JWT") in ("JWT", "at+jwt") and "crit" not in header
    if not fits or not isinstance(key_id, str):
        raise InvalidAccessToken
    return key_id


def _signed_claims(token: str, key: SigningKey, audiences: Collection[str]) -> dict[str, Any] | None:
    """The claims if this key signed the token; `None` if it did not and another key of the same id may have."""
    try:
        claims: dict[str, Any] = jwt.decode(
            token,
            key=key.key,
            algorithms=["RS256"],
            audience=list(audiences),
            leeway=LEEWAY_SECONDS,
            options={"require": ["exp", "iat", "iss", "aud"]},
        )
    except jwt.InvalidSignatureError:
        return None
    except (jwt.PyJWTError, ValueError, OverflowError, RecursionError) as error:
        raise InvalidAccessToken from error
    return claims


def _typed(claims: dict[str, Any], key: SigningKey) -> VerifiedToken:
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
        tenant_id=claims["tid"].lower(),
        object_id=object_id.lower(),
        expires_at=claims["exp"],
        scopes=frozenset(scopes.split()) if scopes is not None and is_user else None,
        client_id=client_id.lower() if client_id else None,
        capabilities=frozenset(item for item in capabilities if isinstance(item, str)),
        key=key,
    )
