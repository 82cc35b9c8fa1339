"""The rules of the access tokens of any other OpenID Connect issuer: which user, what for."""

from collections.abc import Mapping
from typing import Any

from quart_app.auth.key_sets import SigningKey
from quart_app.auth.refusals import InsufficientRole, InsufficientScope, Reason
from quart_app.auth.rules import Content, Rule, invalid, words
from quart_app.auth.signed_tokens import VerifiedToken
from quart_app.auth.subjects import MAXIMUM_SUBJECT_CHARACTERS, is_nobody
from storage.mapping import UserKey

_SCOPE_CLAIMS = ("scope", "scp")  # RFC 8693, section 4.2; the shorter name is that of Entra External ID, B2C and Okta
_CLIENT_CLAIMS = ("azp", "client_id", "appid", "cid")


class OidcTokens:
    """`TokenRules` for the users of one `issuer`, which a token must name exactly.

    `subject_claim` says who the user is. The members that some issuers add to their keys (Entra External ID's
    `issuer`) decide nothing: the key set is that one issuer's own.
    """

    def __init__(self, issuer: str, subject_claim: str = "sub") -> None:
        self._issuer = issuer
        self._subject_claim = subject_claim
        self.issuer_rules: tuple[Rule, ...] = (
            Rule(
                ("iss",),
                issuer,
                "Sign in at this issuer, or let the operator set OIDC_ISSUER exactly as its tokens write it.",
                lambda content: content.claims.get("iss") == issuer,
                invalid(Reason.ISSUER),
            ),
        )
        self.rules: tuple[Rule, ...] = (
            Rule(
                (subject_claim,),
                f"the user's id: printable text of 1 to {MAXIMUM_SUBJECT_CHARACTERS} characters, another for each user",
                "Let the operator set OIDC_SUBJECT_CLAIM to the claim that identifies the user; for Azure AD B2C, oid.",
                lambda content: _is_user(content.claims.get(subject_claim)),
                invalid(Reason.SUBJECT),
                quoted=False,
            ),
            Rule(
                ("idtyp", "gty", "header.gty"),
                "not those of an application's own token",
                "Let the client sign a user in: this token was got with the application's own credentials.",
                lambda content: not _is_of_an_application(content),
                invalid(Reason.APPLICATION_TOKEN),
            ),
        )

    def issuer_matches_key(self, claims: Mapping[str, Any], key: SigningKey) -> bool:
        """See `TokenRules.issuer_matches_key`."""
        return key.issuer == self._issuer

    def read(self, content: Content, key: SigningKey) -> VerifiedToken:
        """See `TokenRules.read`. The user is `(issuer, subject)`, exactly as the token writes them."""
        clients = _clients(content.claims)
        return VerifiedToken(
            user=UserKey(self._issuer, content.claims[self._subject_claim]),
            expires_at=int(content.claims["exp"]),
            scopes=_scopes(content.claims),
            client_id=clients[0] if clients else None,
            capabilities=frozenset(),
            key=key,
            content=content,
        )


def oidc_admission(scope: str | None, role: str | None, roles_claim: str = "roles") -> tuple[Rule, ...]:
    """What a user's token must say to be let in: it carries `scope`, its user has `role`; `None` asks for nothing.

    `roles_claim` is the name of a claim, or names separated by dots that lead to one inside other claims.
    """
    rules: list[Rule] = []
    if scope is not None:
        rules += _scope_rules(scope)
    if role is not None:
        rules += _role_rules(role, roles_claim)
    return tuple(rules)


def _scope_rules(scope: str) -> tuple[Rule, ...]:
    return (
        Rule(
            _SCOPE_CLAIMS,
            "one of them there: id tokens carry none",
            f"Send the access token, and let the client ask for the scope {scope}.",
            lambda content: any(content.claims.get(name) is not None for name in _SCOPE_CLAIMS),
            invalid(Reason.NOT_AN_ACCESS_TOKEN),
        ),
        Rule(
            _SCOPE_CLAIMS,
            "text with blanks between the scopes, or a list of texts",
            "Let the issuer write scopes as RFC 8693, section 4.2, says.",
            lambda content: _scopes(content.claims) is not None,
            invalid(Reason.MALFORMED),
        ),
        Rule(
            _SCOPE_CLAIMS,
            f"{scope} among others",
            f"Let the client ask for the scope {scope}.",
            lambda content: scope in (_scopes(content.claims) or ()),
            lambda: InsufficientScope(scope),
        ),
    )


def _role_rules(role: str, roles_claim: str) -> tuple[Rule, ...]:
    return (
        Rule(
            (roles_claim,),
            "roles as a list of texts, as text with blanks between them, or as the names of an object",
            "Let the operator set OIDC_ROLES_CLAIM to the claim that lists the user's roles.",
            lambda content: _roles(content.claims, roles_claim) is not None,
            invalid(Reason.MALFORMED),
        ),
        Rule(
            (roles_claim,),
            f"{role} among others",
            "Let an administrator of the sign-in give the user this role.",
            lambda content: role in (_roles(content.claims, roles_claim) or ()),
            InsufficientRole,
        ),
    )


def found_at(claims: Mapping[str, Any], name: str) -> Any:
    """The claim of this name; else what the name's parts, separated by dots, lead to (`realm_access.roles`).

    `None` if there is none.
    """
    if name in claims:
        return claims[name]
    found: Any = claims
    for part in name.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found


def _is_user(subject: Any) -> bool:
    return (
        isinstance(subject, str)
        and len(subject) <= MAXIMUM_SUBJECT_CHARACTERS
        and subject.isprintable()  # no control characters, nothing that can't be encoded
        and not is_nobody(subject)
    )


def _scopes(claims: Mapping[str, Any]) -> frozenset[str] | None:
    """`None` if there is no scope claim, or one that can't be read."""
    given = [words(claims[name]) for name in _SCOPE_CLAIMS if claims.get(name) is not None]
    read = [each for each in given if each is not None]
    return frozenset().union(*read) if read and len(read) == len(given) else None


def _roles(claims: Mapping[str, Any], name: str) -> frozenset[str] | None:
    """`None` if the roles can't be read. Zitadel writes them as an object's names, others as a list or a text."""
    found = found_at(claims, name)
    if isinstance(found, dict):
        return frozenset(role for role, given in found.items() if given)
    return frozenset() if found is None else words(found)


def _clients(claims: Mapping[str, Any]) -> list[str]:
    return [claims[name] for name in _CLIENT_CLAIMS if isinstance(claims.get(name), str)]


def _is_of_an_application(content: Content) -> bool:
    """Whether an application got the token for itself: there is no user behind it.

    No claim says so everywhere. By RFC 9068, section 2.2, the subject is then the client. Entra External ID writes
    `idtyp`, Auth0 `gty` and a subject that ends with `@clients`, Kinde a list `gty`; FusionAuth writes it into the
    header.
    """
    claims = content.claims
    return (
        str(claims.get("sub")).removesuffix("@clients") in _clients(claims)
        or claims.get("idtyp", "user") != "user"
        or any("client_credentials" in _grants(given.get("gty")) for given in (claims, content.header))
    )


def _grants(gty: Any) -> set[str]:
    """The grant types in a `gty`, in the spelling of RFC 6749."""
    texts = [text for text in (gty if isinstance(gty, list) else [gty]) if isinstance(text, str)]
    return {grant.lower().replace("-", "_") for text in texts for grant in text.split()}
