"""What a token says about itself: whether it is an access token that any bearer may use. For every issuer."""

from collections.abc import Iterable
from typing import Any

from quart_app.auth.refusals import Reason
from quart_app.auth.rules import Content, Rule, invalid

_OTHER_FORMS = ("b64", "crit", "cty", "zip")  # headers that would make the claims something other than they look
_TYPES = {"jwt", "at+jwt"}

_KIND_CLAIMS = ("token_use", "typ", "token_type", "tokenName")
"""Where issuers write what a token is: Amazon Cognito, Keycloak, SimpleJWT, ForgeRock AM."""

_OTHER_KINDS = {"id", "refresh", "offline", "logout", "serialized-id"}
_BOUND_KINDS = {"dpop", "pop"}


def media_type(typ: Any) -> str | None:
    """The header member `typ` in its short form: media types ignore case, and `application/` may be left out.

    RFC 7515, section 4.1.9; RFC 9068, section 4. `None` if it is not text.
    """
    return typ.lower().removeprefix("application/") if isinstance(typ, str) else None


def _kinds(content: Content) -> Iterable[str]:
    given = (content.claims.get(name) for name in _KIND_CLAIMS)
    return (kind.lower().removesuffix("_token").removesuffix("-token") for kind in given if isinstance(kind, str))


HEADER_RULES = (
    Rule(
        ("header.alg",),
        "RS256",
        "Let the issuer sign access tokens for this API with RS256.",
        lambda content: content.header.get("alg") == "RS256",
        invalid(Reason.ALGORITHM),
    ),
    Rule(
        ("header.typ",),
        "JWT, at+jwt, or left out",
        "Send the access token, not another token of the sign-in.",
        lambda content: media_type(content.header.get("typ", "JWT")) in _TYPES,
        invalid(Reason.TYPE),
    ),
    Rule(
        tuple(f"header.{name}" for name in _OTHER_FORMS),
        "left out",
        "Get a plain signed token (RFC 7515): neither encrypted nor compressed nor nested.",
        lambda content: content.header.keys().isdisjoint(_OTHER_FORMS),
        invalid(Reason.TYPE),
    ),
    Rule(
        ("header.kid",),
        "text; may be left out where the issuer publishes one key",
        "Let the issuer name the key that signed.",
        lambda content: isinstance(content.header.get("kid", ""), str),
        invalid(Reason.KEY_UNKNOWN),
    ),
)
"""What the header must say, before any key is looked up."""

KIND_RULES = (
    Rule(
        _KIND_CLAIMS,
        "none that names an id, refresh or logout token",
        "Send the access token, not another token of the sign-in.",
        lambda content: _OTHER_KINDS.isdisjoint(_kinds(content)),
        invalid(Reason.NOT_AN_ACCESS_TOKEN),
    ),
    Rule(
        ("events",),
        "left out",
        "Send the access token: this is a message about an event (RFC 8417), such as a logout.",
        lambda content: not isinstance(content.claims.get("events"), dict),
        invalid(Reason.NOT_AN_ACCESS_TOKEN),
    ),
    Rule(
        ("cnf", *_KIND_CLAIMS),
        "left out: a token that is bound to a key is no bearer token (RFC 7800, RFC 9449, RFC 8705)",
        "Get an ordinary bearer token, without DPoP, proof of possession or a client certificate.",
        lambda content: content.claims.get("cnf") is None and _BOUND_KINDS.isdisjoint(_kinds(content)),
        invalid(Reason.PROOF_MISSING),
    ),
)
"""What no claim may say, whoever the issuer is."""
