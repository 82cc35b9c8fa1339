"""The rules of Microsoft Entra ID's tokens, v1 and v2: whose tenant, which user, what for."""

import re
from collections.abc import Collection, Mapping
from typing import Any

from quart_app.auth.key_sets import SigningKey
from quart_app.auth.refusals import InsufficientScope, Reason
from quart_app.auth.rules import Content, Rule, invalid, words
from quart_app.auth.signed_tokens import VerifiedToken
from quart_app.auth.subjects import is_nobody
from storage.mapping import UserKey

_GUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


class EntraTokens:
    """`TokenRules` for the users of `tenants` only.

    The rules are those of https://learn.microsoft.com/entra/identity-platform/access-tokens and claims-validation: the
    issuer is that of the metadata whose key signed the token, and names the token's own tenant; the signing key's own
    issuer is respected. `authority_host` is the root of this cloud's v2 issuers, without a trailing slash.
    """

    def __init__(self, tenants: Collection[str], authority_host: str) -> None:
        self._tenants = frozenset(tenant.lower() for tenant in tenants)
        self._authority_host = authority_host
        self.issuer_rules: tuple[Rule, ...] = (
            Rule(
                ("tid",),
                f"a tenant that may call: {', '.join(sorted(self._tenants))}",
                "Sign in to one of these tenants, or let the operator add this one to ENTRA_ALLOWED_TENANTS.",
                lambda content: _is_guid(content.claims.get("tid")) and content.claims["tid"].lower() in self._tenants,
                invalid(Reason.TENANT),
            ),
        )
        self.rules: tuple[Rule, ...] = _RULES

    def issuer_of(self, claims: Mapping[str, Any], key: SigningKey) -> str:
        """The `iss` that a token with these claims must name if `key` signed it."""
        return key.issuer.replace("{tenantid}", claims["tid"])

    def issuer_matches_key(self, claims: Mapping[str, Any], key: SigningKey) -> bool:
        """See `TokenRules.issuer_matches_key`."""
        tenant, issuer = claims["tid"], self.issuer_of(claims, key)
        if claims["iss"] != issuer or tenant not in issuer.split("/"):
            return False
        if key.key_issuer is None:
            return True
        key_issuer = key.key_issuer.replace("{tenantid}", tenant)
        return key_issuer in (issuer, f"{self._authority_host}/{tenant}/v2.0")

    def read(self, content: Content, key: SigningKey) -> VerifiedToken:
        """See `TokenRules.read`. The user is `(tenant id, object id)`, both in lower case."""
        claims = content.claims
        client_id = _client(claims)
        return VerifiedToken(
            user=UserKey(claims["tid"].lower(), claims["oid"].lower()),
            expires_at=claims["exp"],
            scopes=words(claims.get("scp")),
            client_id=client_id.lower() if client_id else None,
            capabilities=frozenset(item for item in claims.get("xms_cc", []) if isinstance(item, str)),
            key=key,
            content=content,
        )


def entra_admission(scope: str, clients: Collection[str], *, guests: bool) -> tuple[Rule, ...]:
    """What a user's token must say to be let in: it carries `scope`.

    If `clients` are given, one of them got it. Without `guests`, its user is a member of the tenant.
    """
    rules = [
        Rule(
            ("scp", "roles"),
            "there, as in every token that a client gets for a user",
            f"Send an access token for this API, got for a user with the scope {scope}; id tokens and tokens of "
            "applications carry none.",
            lambda content: content.claims.get("scp") is not None or bool(content.claims.get("roles")),
            invalid(Reason.NOT_AN_ACCESS_TOKEN),
        ),
        Rule(
            ("scp", "roles"),
            "a scope, not only application roles",
            "Let the client sign a user in: an application's own token (client credentials) is no user's.",
            lambda content: content.claims.get("scp") is not None,
            invalid(Reason.APPLICATION_TOKEN),
        ),
    ]
    if clients:
        rules.append(
            Rule(
                ("azp", "appid"),
                f"one of {', '.join(clients)}",
                "Use one of these client applications, or let the operator add this one to ENTRA_ALLOWED_CLIENTS.",
                lambda content: str(_client(content.claims)).lower() in clients,
                invalid(Reason.CLIENT),
            )
        )
    if not guests:
        rules.append(
            Rule(
                ("acct",),
                "0: a member of the tenant, no guest",
                "Sign in with a member's account. If it is one, let the operator add the optional claim acct to the "
                "API's app registration (Token configuration, access token).",
                lambda content: content.claims.get("acct") == 0 and type(content.claims["acct"]) is int,
                invalid(Reason.GUEST),
            )
        )
    rules.append(
        Rule(
            ("scp",),
            f"{scope} among others, separated by blanks",
            f"Let the client ask for the scope {scope} of this API.",
            lambda content: scope in (words(content.claims.get("scp")) or ()),
            lambda: InsufficientScope(scope),
        )
    )
    return tuple(rules)


def _is_guid(value: Any) -> bool:
    return isinstance(value, str) and _GUID.fullmatch(value) is not None


def _client(claims: Mapping[str, Any]) -> Any:
    return claims.get("azp", claims.get("appid"))


_RULES = (
    Rule(
        ("aud",),
        "one audience, as text",
        "Get an access token from Microsoft Entra ID, which writes one audience.",
        lambda content: isinstance(content.claims.get("aud"), str),
        invalid(Reason.AUDIENCE),
    ),
    Rule(
        ("exp",),
        "a whole number of seconds",
        "Get an access token from Microsoft Entra ID, which writes whole seconds.",
        lambda content: isinstance(content.claims.get("exp"), int),
        invalid(Reason.MALFORMED),
    ),
    Rule(
        ("idtyp",),
        "user, or left out",
        "Let the client sign a user in: this token is of an application or a device.",
        lambda content: content.claims.get("idtyp", "user") == "user",
        invalid(Reason.APPLICATION_TOKEN),
    ),
    Rule(
        ("oid",),
        "a user's object id: a GUID",
        "Get an access token for a user; object ids are in tokens of work or school accounts.",
        lambda content: _is_guid(content.claims.get("oid")) and not is_nobody(content.claims["oid"]),
        invalid(Reason.SUBJECT),
        quoted=False,
    ),
    Rule(
        ("scp",),
        "scopes as text, separated by blanks",
        "Get an access token from Microsoft Entra ID, which writes scopes as text.",
        lambda content: isinstance(content.claims.get("scp"), str | None),
        invalid(Reason.MALFORMED),
    ),
    Rule(
        ("azp", "appid"),
        "the client application's id as text, or left out",
        "Get an access token from Microsoft Entra ID, which writes the client's id as text.",
        lambda content: isinstance(_client(content.claims), str | None),
        invalid(Reason.CLIENT),
    ),
    Rule(
        ("xms_cc",),
        "a list of the client's capabilities, or left out",
        "Get an access token from Microsoft Entra ID, which writes a list.",
        lambda content: isinstance(content.claims.get("xms_cc", []), list),
        invalid(Reason.MALFORMED),
    ),
)
