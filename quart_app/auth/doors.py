"""The doors by which callers come in: whose access tokens are accepted, by which rules, as the settings say.

There is one for users of Microsoft Entra ID, one for those of another OpenID Connect issuer, or both. Each judges its
own tokens by its own keys, audiences and rules; nothing that is true of one counts for the other.
"""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from quart_app.auth.entra_tokens import EntraTokens, entra_admission
from quart_app.auth.oidc_tokens import OidcTokens, oidc_admission
from quart_app.auth.rules import Rule
from quart_app.auth.signed_tokens import SignedTokens, TokenRules, named_issuer
from quart_app.auth.signing_keys import SignInEndpoints, SigningKeys, SigningKeysUnavailable
from quart_app.clouds import issuing_host
from quart_app.settings import DoorName, EntraSettings, OidcSettings, Settings


@dataclass(frozen=True, slots=True)
class Door:
    """Whose access tokens are accepted, and what their bearers may get.

    Keys are found by `discovery_urls`, whose documents must name `issuer` exactly if there is one. `rules` say how the
    tokens are read, `audiences` whom they must be for, `admission` what else lets a caller in. `token_scopes` are the
    ACS scopes that callers may have.

    `authorization_servers` are the issuers at which clients sign in, `full_scopes` the scopes as they ask for them
    there, `scopes_besides` those that only some routes need. `endpoints` is where they sign in, unless the discovery
    document says so, and `docs_scopes` what `/docs` asks for.
    """

    name: DoorName
    discovery_urls: tuple[str, ...]
    issuer: str | None
    rules: TokenRules
    audiences: tuple[str, ...]
    admission: tuple[Rule, ...]
    token_scopes: tuple[str, ...]
    authorization_servers: tuple[str, ...]
    full_scopes: tuple[str, ...]
    scopes_besides: tuple[str, ...]
    endpoints: SignInEndpoints | None
    docs_scopes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SignIn:
    """How a browser client gets an access token for this API: where, and with which scopes. `issuer` names the door.

    `scopes_besides` are needed only by the routes that say so.
    """

    issuer: str
    endpoints: SignInEndpoints
    scopes: tuple[str, ...]
    scopes_besides: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class OpenDoor:
    """A door and the keys of its issuers."""

    door: Door
    keys: SigningKeys

    @property
    def tokens(self) -> SignedTokens:
        """What verifies the tokens of this door."""
        return SignedTokens(self.keys, self.door.rules)

    @property
    def sign_in(self) -> SignIn | None:
        """How clients sign in; `None` while another issuer's discovery document is not known, or does not say so."""
        endpoints = self.door.endpoints or self.keys.sign_in
        if endpoints is None:
            return None
        return SignIn(self.door.name, endpoints, self.door.docs_scopes, self.door.scopes_besides)


def doors(settings: Settings) -> tuple[Door, ...]:
    """The doors that the settings describe: at least one."""
    made: list[Door] = []
    for name in settings.doors:
        scopes = settings.token_scopes(name)
        # If there are several doors, /docs knows only the client and the scopes of the first.
        docs_scopes = () if made else settings.docs.scopes
        if name is DoorName.ENTRA:
            made.append(_entra(settings.entra, scopes, docs_scopes))
        else:
            made.append(_oidc(settings.oidc, str(settings.oidc.issuer), scopes, docs_scopes))
    return tuple(made)


def chosen_door(token: str, doors: Sequence[OpenDoor]) -> OpenDoor:
    """The door that judges `token`: the one whose issuer it names, else the first.

    What an unverified token says chooses the door and decides nothing else: whichever is chosen, the token must keep
    all of its rules.
    """
    issuer = named_issuer(token)
    return next((each for each in doors if each.door.issuer == issuer), doors[0])


async def check_keys(doors: Iterable[OpenDoor]) -> None:
    """Make sure that some door's keys are known. Raises `SigningKeysUnavailable`.

    Neither a door without keys nor an issuer that does not answer may take the service away from those who come in by
    the other door: the first door that has keys is enough.
    """
    checks = [asyncio.ensure_future(each.keys.check()) for each in doors]
    try:
        for check in asyncio.as_completed(checks):
            try:
                return await check
            except SigningKeysUnavailable as error:
                unavailable = error
        raise unavailable
    finally:
        for check in checks:
            check.cancel()


def _entra(entra: EntraSettings, token_scopes: tuple[str, ...], docs_scopes: tuple[str, ...]) -> Door:
    # Each tenant's metadata in both versions: the API's registration decides which one a token has. An application
    # with claims mapping has its own key, listed only if its id is in the URL; Teams tokens have the tenant's key.
    # https://learn.microsoft.com/entra/identity-platform/access-tokens#validate-the-signature
    oauth2 = f"{entra.authority_host}/{entra.tenant_id}/oauth2/v2.0"
    return Door(
        name=DoorName.ENTRA,
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
        token_scopes=token_scopes,
        authorization_servers=tuple(f"{issuing_host(entra.authority_host)}/{tenant}/v2.0" for tenant in entra.tenants),
        full_scopes=(entra.full_scope,),
        scopes_besides=(entra.in_full(entra.resolve_scope),) if entra.resolve_scope else (),
        endpoints=SignInEndpoints(f"{oauth2}/authorize", f"{oauth2}/token"),
        docs_scopes=docs_scopes or (entra.full_scope,),
    )


def _oidc(oidc: OidcSettings, issuer: str, token_scopes: tuple[str, ...], docs_scopes: tuple[str, ...]) -> Door:
    return Door(
        name=DoorName.OIDC,
        discovery_urls=(str(oidc.discovery_address),),
        issuer=issuer,
        rules=OidcTokens(issuer, oidc.subject_claim),
        audiences=oidc.audience,
        admission=oidc_admission(oidc.required_scope, oidc.required_role, oidc.roles_claim),
        token_scopes=token_scopes,
        authorization_servers=(issuer,),
        full_scopes=(oidc.required_scope,) if oidc.required_scope else (),
        scopes_besides=(),
        endpoints=None,
        docs_scopes=docs_scopes or (oidc.required_scope or "openid",),
    )
