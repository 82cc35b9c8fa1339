"""OpenID Connect metadata and key sets, shaped as Entra's are."""

from typing import Any
from urllib.parse import urlencode

from local_azure.entra.signing_keys import ORGANIZATIONS, SigningKeys

VERSION_1 = 1
VERSION_2 = 2


def issuer(url: str, tenant: str, version: int) -> str:
    """The `iss` of a tenant's tokens; `tenant` may be the template `{tenantid}`."""
    return f"https://sts.windows.net/{tenant}/" if version == VERSION_1 else f"{url}/{tenant}/v2.0"


def openid_configuration(
    url: str, tenant: str | None, alias: str, version: int, app_id: str | None = None
) -> dict[str, Any]:
    """The metadata document. Without a `tenant` it is that of `alias` (`common`, `organizations`), whose issuer is the
    template to be filled with a token's `tid` (Entra docs, "Access tokens", validate the issuer).

    Asked with `?appid=`, it names the address of that application's keys.
    """
    base = f"{url}/{tenant or alias}"
    oauth2 = f"{base}/oauth2/v2.0" if version == VERSION_2 else f"{base}/oauth2"
    keys = f"{base}/discovery/v2.0/keys" if version == VERSION_2 else f"{base}/discovery/keys"
    return {
        "token_endpoint": f"{oauth2}/token",
        "token_endpoint_auth_methods_supported": ["client_secret_post", "private_key_jwt", "client_secret_basic"],
        "jwks_uri": keys if app_id is None else f"{keys}?{urlencode({'appid': app_id})}",
        "response_modes_supported": ["query", "fragment", "form_post"],
        "subject_types_supported": ["pairwise"],
        "id_token_signing_alg_values_supported": ["RS256"],
        "response_types_supported": ["code"],
        "scopes_supported": ["openid", "profile", "email", "offline_access"] if version == VERSION_2 else ["openid"],
        "issuer": issuer(url, tenant or ORGANIZATIONS, version),
        "request_uri_parameter_supported": False,
        "userinfo_endpoint": "https://graph.microsoft.com/oidc/userinfo",
        "authorization_endpoint": f"{oauth2}/authorize",
        "device_authorization_endpoint": f"{oauth2}/devicecode",
        "http_logout_supported": True,
        "frontchannel_logout_supported": True,
        "end_session_endpoint": f"{oauth2}/logout",
        "claims_supported": [
            "sub", "iss", "cloud_instance_name", "cloud_instance_host_name", "cloud_graph_host_name", "msgraph_host",
            "aud", "exp", "iat", "auth_time", "acr", "nonce", "preferred_username", "name", "tid", "ver", "at_hash",
            "c_hash", "email",
        ],
        "tenant_region_scope": "EU" if tenant else None,
        "cloud_instance_name": "microsoftonline.com",
        "cloud_graph_host_name": "graph.windows.net",
        "msgraph_host": "graph.microsoft.com",
        "rbac_url": "https://pas.windows.net",
    }  # fmt: skip


def key_set(url: str, keys: SigningKeys, version: int, *, common: bool, app_id: str | None = None) -> dict[str, Any]:
    """The JSON Web Key Set. Only v2.0 names each key's issuer; `common` mixes personal accounts' keys in.

    Asked with `?appid=`, the set begins with that application's own key, if it has one.
    """
    own = keys.own(app_id or "")
    published = (*([own] if own else []), *keys.published, *(keys.personal if common else ()))
    if version == VERSION_1:
        return {"keys": [key.public() for key in published]}
    return {"keys": [{**key.public(), "issuer": issuer(url, key.tenant, version)} for key in published]}


def instance_discovery(url: str) -> dict[str, Any]:
    """The answer of `/common/discovery/instance`."""
    host = url.removeprefix("https://")
    return {
        "tenant_discovery_endpoint": f"{url}/common/v2.0/.well-known/openid-configuration",
        "api-version": "1.1",
        "metadata": [{"preferred_network": host, "preferred_cache": host, "aliases": [host]}],
    }
