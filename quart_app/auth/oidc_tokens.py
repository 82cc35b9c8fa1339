"""The rules of the access tokens of any other OpenID Connect issuer: which user, what for."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from quart_app.auth.signed_tokens import InvalidAccessToken, VerifiedToken, words
from quart_app.auth.signing_keys import SigningKey
from storage.mapping import UserKey

MAXIMUM_SUBJECT_CHARACTERS = 255
"""OpenID Connect Core 1.0, section 2: `sub` has at most 255 characters."""

_SCOPE_CLAIMS = ("scope", "scp")  # RFC 8693, section 4.2; the shorter name is that of Entra External ID, B2C and Okta
_CLIENT_CLAIMS = ("azp", "client_id", "appid", "cid")


@dataclass(frozen=True, slots=True)
class OidcTokens:
    """`TokenRules` for the users of one `issuer`, which a token must name exactly.

    `subject_claim` tells who the user is, `roles_claim` what roles the user has. The members that some issuers add to
    their keys (Entra External ID's `issuer`) decide nothing: the key set is that one issuer's own.
    """

    issuer: str
    subject_claim: str = "sub"
    roles_claim: str = "roles"

    def issuer_matches_key(self, claims: Mapping[str, Any], key: SigningKey) -> bool:
        """See `TokenRules.issuer_matches_key`."""
        if claims["iss"] != self.issuer or key.issuer != self.issuer:
            raise InvalidAccessToken
        return True

    def read(self, claims: Mapping[str, Any], key: SigningKey) -> VerifiedToken:
        """See `TokenRules.read`. The user is `(issuer, subject)`, exactly as the token writes them."""
        subject, expires_at = claims.get(self.subject_claim), claims["exp"]
        if (
            not isinstance(subject, str)
            or not 0 < len(subject) <= MAXIMUM_SUBJECT_CHARACTERS
            or not subject.isprintable()  # neither control characters nor what has no encoding
            or not isinstance(expires_at, int | float)
        ):
            raise InvalidAccessToken
        clients = [claims[name] for name in _CLIENT_CLAIMS if isinstance(claims.get(name), str)]
        if _is_of_an_application(claims, clients):
            raise InvalidAccessToken
        given = [words(claims[name]) for name in _SCOPE_CLAIMS if name in claims]
        return VerifiedToken(
            user=UserKey(self.issuer, subject),
            expires_at=int(expires_at),
            scopes=frozenset().union(*given) if given else None,
            roles=words(claims.get(self.roles_claim, [])),
            client_id=clients[0] if clients else None,
            capabilities=frozenset(),
            key=key,
        )


def _is_of_an_application(claims: Mapping[str, Any], clients: list[str]) -> bool:
    """Whether an application got the token for itself: there is no user behind it.

    No claim says so everywhere. By RFC 9068, section 2.2, the subject is then the client; Entra External ID says
    `idtyp`, Auth0 `gty` and a subject that ends with `@clients`.
    """
    return (
        str(claims.get("sub")).removesuffix("@clients") in clients
        or claims.get("idtyp", "user") != "user"
        or claims.get("gty") == "client-credentials"
    )
