"""Whose access tokens are taken, by the settings: those of Microsoft Entra ID or those of another issuer."""

from dataclasses import dataclass

from quart_app.auth.entra_tokens import EntraTokens, entra_admission
from quart_app.auth.oidc_tokens import OidcTokens, oidc_admission
from quart_app.auth.rules import Rule
from quart_app.auth.signed_tokens import TokenRules
from quart_app.auth.signing_keys import SignInEndpoints
from quart_app.clouds import issuing_host
from quart_app.settings import EntraSettings, OidcSettings, Settings


@dataclass(frozen=True, slots=True)
class AcceptedTokens:
    """Which access tokens are taken.

    Keys are found by `discovery_urls`, whose documents must name `issuer` exactly if there is one. `rules` tell how the
    tokens are read, `audiences` whom they must be for, `admission` what else lets a caller in.
    `is_entra` says that callers are users of Microsoft Entra ID. `authorization_servers` are the issuers at which
    clients sign in, `full_scopes` the scopes as they ask for them there.
    """

    discovery_urls: tuple[str, ...]
    issuer: str | None
    rules: TokenRules
    audiences: tuple[str, ...]
    admission: tuple[Rule, ...]
    is_entra: bool
    authorization_servers: tuple[str, ...]
    full_scopes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SignIn:
    """How a browser client gets an access token for this API: where, and with which scopes. `issuer` names the kind.

    `scopes_besides` are needed only by the routes that say so.
    """

    issuer: str
    endpoints: SignInEndpoints
    scopes: tuple[str, ...]
    scopes_besides: tuple[str, ...] = ()


def accepted_tokens(settings: Settings) -> AcceptedTokens:
    """What the settings say."""
    return _entra(settings.entra) if settings.oidc.issuer is None else _oidc(settings.oidc, settings.oidc.issuer)


def sign_in(settings: Settings, discovered: SignInEndpoints | None) -> SignIn | None:
    """How clients sign in; `discovered` is what another issuer's document tells, `None` while that is not known."""
    entra, oidc, docs = settings.entra, settings.oidc, settings.docs
    if oidc.issuer is None:
        oauth2 = f"{entra.authority_host}/{entra.tenant_id}/oauth2/v2.0"
        endpoints = SignInEndpoints(f"{oauth2}/authorize", f"{oauth2}/token")
        besides = (entra.in_full(entra.resolve_scope),) if entra.resolve_scope else ()
        return SignIn("entra", endpoints, docs.scopes or (entra.full_scope,), besides)
    if discovered is None:
        return None
    return SignIn("oidc", discovered, docs.scopes or (oidc.required_scope or "openid",))


def _entra(entra: EntraSettings) -> AcceptedTokens:
    # Both versions' metadata of each tenant: which one a token has is decided by the API's registration. An application
    # with claims mapping has a key of its own, listed only where its id is asked with; Teams tokens have the tenant's.
    # https://learn.microsoft.com/entra/identity-platform/access-tokens#validate-the-signature
    return AcceptedTokens(
        discovery_urls=tuple(
            f"{entra.authority_host}/{tenant}{version}/.well-known/openid-configuration{whose}"
            for tenant in entra.tenants
            for version in ("/v2.0", "")
            for whose in ("", f"?appid={entra.client_id}")
        ),
        issuer=None,
        rules=EntraTokens(entra.tenants, issuing_host(entra.authority_host)),
        audiences=entra.accepted_audiences,
        admission=entra_admission(entra.required_scope, entra.allowed_clients, guests=entra.allow_guests),
        is_entra=True,
        authorization_servers=tuple(f"{issuing_host(entra.authority_host)}/{tenant}/v2.0" for tenant in entra.tenants),
        full_scopes=(entra.full_scope,),
    )


def _oidc(oidc: OidcSettings, issuer: str) -> AcceptedTokens:
    return AcceptedTokens(
        discovery_urls=(str(oidc.discovery_address),),
        issuer=issuer,
        rules=OidcTokens(issuer, oidc.subject_claim),
        audiences=oidc.audience,
        admission=oidc_admission(oidc.required_scope, oidc.required_role, oidc.roles_claim),
        is_entra=False,
        authorization_servers=(issuer,),
        full_scopes=(oidc.required_scope,) if oidc.required_scope else (),
    )
