"""Whose access tokens are taken, by the settings: those of Microsoft Entra ID or those of another issuer."""

from dataclasses import dataclass

from quart_app.auth.entra_tokens import EntraTokens
from quart_app.auth.oidc_tokens import OidcTokens
from quart_app.auth.signed_tokens import TokenRules
from quart_app.auth.signing_keys import SignInEndpoints
from quart_app.clouds import issuing_host
from quart_app.settings import EntraSettings, OidcSettings, Settings


@dataclass(frozen=True, slots=True)
class AcceptedTokens:
    """Which access tokens are taken.

    Keys are found by `discovery_urls`, whose documents must name `issuer` exactly if there is one. `rules` tell how the
    tokens are read, `audiences` whom they must be for, `scope` and `role` what they must allow, if anything.
    `is_entra` says that callers are users of Microsoft Entra ID.
    """

    discovery_urls: tuple[str, ...]
    issuer: str | None
    rules: TokenRules
    audiences: tuple[str, ...]
    scope: str | None
    role: str | None
    is_entra: bool


@dataclass(frozen=True, slots=True)
class SignIn:
    """How a browser client gets an access token for this API: where, and with which scopes. `issuer` names the kind."""

    issuer: str
    endpoints: SignInEndpoints
    scopes: tuple[str, ...]


def accepted_tokens(settings: Settings) -> AcceptedTokens:
    """What the settings say."""
    return _entra(settings.entra) if settings.oidc.issuer is None else _oidc(settings.oidc, settings.oidc.issuer)


def sign_in(settings: Settings, discovered: SignInEndpoints | None) -> SignIn | None:
    """How clients sign in; `discovered` is what another issuer's document tells, `None` while that is not known."""
    entra, oidc, docs = settings.entra, settings.oidc, settings.docs
    if oidc.issuer is None:
        oauth2 = f"{entra.authority_host}/{entra.tenant_id}/oauth2/v2.0"
        endpoints = SignInEndpoints(f"{oauth2}/authorize", f"{oauth2}/token")
        return SignIn("entra", endpoints, docs.scopes or (entra.full_scope,))
    if discovered is None:
        return None
    return SignIn("oidc", discovered, docs.scopes or (oidc.required_scope or "openid",))


def _entra(entra: EntraSettings) -> AcceptedTokens:
    # Both versions' metadata of each tenant: which one a token has is decided by the API's registration.
    return AcceptedTokens(
        discovery_urls=tuple(
            f"{entra.authority_host}/{tenant}{version}/.well-known/openid-configuration"
            for tenant in entra.tenants
            for version in ("/v2.0", "")
        ),
        issuer=None,
        rules=EntraTokens(entra.tenants, issuing_host(entra.authority_host)),
        audiences=entra.accepted_audiences,
        scope=entra.required_scope,
        role=None,
        is_entra=True,
    )


def _oidc(oidc: OidcSettings, issuer: str) -> AcceptedTokens:
    return AcceptedTokens(
        discovery_urls=(str(oidc.discovery_address),),
        issuer=issuer,
        rules=OidcTokens(issuer, oidc.subject_claim, oidc.roles_claim),
        audiences=oidc.audience,
        scope=oidc.required_scope,
        role=oidc.required_role,
        is_entra=False,
    )
