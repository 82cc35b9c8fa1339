"""Access tokens and id tokens with the claims that Entra ID puts into them.

Source: Microsoft Entra docs, "Access token claims reference", "ID token claims reference", "Claims challenges".
"""

import base64
import hashlib
import json
import secrets
from dataclasses import dataclass
from typing import Any

from local_azure.clock import Clock
from local_azure.entra import metadata
from local_azure.entra.directory import API, Application, User
from local_azure.entra.scopes import API_NAMES, Requested
from local_azure.entra.signing_keys import SigningKeys

LIFETIME = 75 * 60
"""Seconds. Entra's default is a random value between 60 and 90 minutes."""

PUBLIC, SECRET, CERTIFICATE = "0", "1", "2"
"""How a client proved itself: `azpacr` and `appidacr`."""

_POLICY_SATISFIED = "mfa:"


@dataclass(frozen=True, slots=True)
class TokenIssuer:
    """Builds and signs tokens; `url` is this Entra's own."""

    url: str
    keys: SigningKeys
    clock: Clock

    def user_access_token(
        self,
        user: User,
        client: Application,
        requested: Requested,
        permissions: tuple[str, ...],
        *,
        version: int,
        proof: str = PUBLIC,
        lifetime: float = LIFETIME,
        claims_challenges: bool = False,
        multi_factor: bool = False,
        overrides: dict[str, Any] | None = None,
    ) -> str:
        """An access token for a user. `overrides` replace claims, `None` removes one."""
        claims = {
            **self._common(user.tenant_id, requested.audience(version), version, lifetime),
            "aio": _continuation(multi_factor=multi_factor),
            "oid": user.object_id,
            "sub": _pairwise(user, requested.audience(version)),
            "name": user.name,
            "scp": " ".join(permissions),
        }
        if version == metadata.VERSION_1:
            claims |= {
                "acr": "1",
                "amr": ["pwd", "mfa"] if multi_factor else ["pwd"],
                "appid": client.client_id,
                "appidacr": proof,
                "ipaddr": "127.0.0.1",
                "unique_name": user.username,
                "upn": user.username,
            }
            if user.is_guest:
                claims["idp"] = metadata.issuer(self.url, user.account_tenant_id, version)
        else:
            claims |= {"azp": client.client_id, "azpacr": proof, "preferred_username": user.username}
        if claims_challenges:
            claims["xms_cc"] = ["cp1"]
        return self._signed(claims, overrides)

    def app_access_token(
        self,
        client: Application,
        tenant_id: str,
        requested: Requested,
        *,
        version: int,
        proof: str = SECRET,
        lifetime: float = LIFETIME,
        claims_challenges: bool = False,
        overrides: dict[str, Any] | None = None,
    ) -> str:
        """An app-only access token: no `scp`, the app roles as `roles`. `overrides` as for users."""
        claims = {
            **self._common(tenant_id, requested.audience(version), version, lifetime),
            "aio": _continuation(multi_factor=False),
            "oid": client.object_id,
            "sub": client.object_id,
        }
        if requested.for_api and API.app_roles:
            claims["roles"] = list(API.app_roles)
        elif client.graph_roles and requested.resource.startswith("https://"):
            # The Graph stand-in's own address is not known here: every API that is named by one counts as it.
            claims["roles"] = list(client.graph_roles)
        if version == metadata.VERSION_1:
            claims |= {"appid": client.client_id, "appidacr": proof, "idp": claims["iss"]}
        else:
            claims |= {"azp": client.client_id, "azpacr": proof}
        if claims_challenges:
            claims["xms_cc"] = ["cp1"]
        return self._signed(claims, overrides)

    def id_token(self, user: User, client: Application, scopes: frozenset[str], nonce: str | None) -> str:
        """An id token (v2.0) for the client."""
        claims = {
            **self._common(user.tenant_id, client.client_id, metadata.VERSION_2, LIFETIME),
            "oid": user.object_id,
            "sub": _pairwise(user, client.client_id),
        }
        if "profile" in scopes:
            claims |= {"name": user.name, "preferred_username": user.username}
        if "email" in scopes:
            claims["email"] = user.username
        if nonce:
            claims["nonce"] = nonce
        return self._signed(claims)

    def _common(self, tenant_id: str, audience: str, version: int, lifetime: float) -> dict[str, Any]:
        now = int(self.clock())
        return {
            "aud": audience,
            "iss": metadata.issuer(self.url, tenant_id, version),
            "iat": now,
            "nbf": now,
            "exp": now + int(lifetime),
            "rh": f"1.A{secrets.token_urlsafe(24)}.",
            "tid": tenant_id,
            "uti": secrets.token_urlsafe(16),
            "ver": f"{version}.0",
        }

    def _signed(self, claims: dict[str, Any], overrides: dict[str, Any] | None = None) -> str:
        merged = {**claims, **(overrides or {})}
        own = self.keys.own(API.client_id) if merged.get("aud") in API_NAMES else None
        return self.keys.sign({name: value for name, value in merged.items() if value is not None}, own=own)


def is_multi_factor(claims: dict[str, Any]) -> bool:
    """Whether the sign-in answered a claims challenge. Entra, too, keeps such facts in the opaque `aio`."""
    try:
        return base64.urlsafe_b64decode(str(claims.get("aio", ""))).startswith(_POLICY_SATISFIED.encode())
    except ValueError:
        return False


def client_info(user: User) -> str:
    """What MSAL asks for with `client_info=1`, to name the account in its cache."""
    info = json.dumps({"uid": user.object_id, "utid": user.tenant_id}).encode()
    return base64.urlsafe_b64encode(info).rstrip(b"=").decode()


def _continuation(*, multi_factor: bool) -> str:
    note = (_POLICY_SATISFIED if multi_factor else "").encode()
    return base64.urlsafe_b64encode(note + secrets.token_bytes(36 - len(note))).decode()


def _pairwise(user: User, audience: str) -> str:
    """`sub` differs from app to app and stays the same within one."""
    digest = hashlib.sha256(f"{user.tenant_id}/{user.object_id}/{audience}".encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
