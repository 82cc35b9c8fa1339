"""Verifies a signed token: its signature, times, audience and issuer. Its issuer's rules say what else."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from quart_app.auth.compact_jws import decoded_parts, json_object
from quart_app.auth.key_sets import SigningKey
from quart_app.auth.refusals import InvalidAccessToken, Reason
from quart_app.auth.registered_claims import require_times, signed_by
from quart_app.auth.rules import Content, Rule, judge
from quart_app.auth.signing_keys import SigningKeys
from quart_app.auth.token_kinds import HEADER_RULES, KIND_RULES
from storage.mapping import UserKey

MAXIMUM_TOKEN_BYTES = 16 * 1024
_KEY_LOOKUPS = 2  # issuers share keys, as Entra ID's tenants do: one may be known to publish a key before another is


@dataclass(frozen=True, slots=True)
class VerifiedToken:
    """What a verified token says. `expires_at` is in epoch seconds.

    `scopes` is `None` if the token carries none: it is not a user's delegated access token. `client_id` is the
    application that got the token. `capabilities` are what that client declared (`xms_cc`). `content` is all of it,
    for further rules.
    """

    user: UserKey
    expires_at: int
    scopes: frozenset[str] | None
    client_id: str | None
    capabilities: frozenset[str]
    key: SigningKey
    content: Content = field(repr=False)


class TokenRules(Protocol):
    """How one kind of issuer writes its tokens. Claims come with a good signature and audience, valid now."""

    @property
    def issuer_rules(self) -> tuple[Rule, ...]:
        """What the claims must say about the issuer, whichever key signed."""
        ...

    @property
    def rules(self) -> tuple[Rule, ...]:
        """What else the claims must say."""
        ...

    def issuer_matches_key(self, claims: Mapping[str, Any], key: SigningKey) -> bool:
        """Whether the token's issuer, by what is known of it, signs with `key`. Called once `issuer_rules` hold."""
        ...

    def read(self, content: Content, key: SigningKey) -> VerifiedToken:
        """What the claims say. Called once all of `rules` hold."""
        ...


class SignedTokens:
    """Verifies tokens that `keys` signed, by the `rules` of their issuers.

    Common to all (RFC 8725, RFC 9068): RS256 only; `exp iat iss aud` required; the issuer is that of the metadata
    whose key signed the token; it is an access token that any bearer may use.
    """

    def __init__(self, keys: SigningKeys, rules: TokenRules) -> None:
        self._keys = keys
        self._rules = rules

    async def verify(self, token: str, audiences: Collection[str]) -> VerifiedToken:
        """Verify `token` for one of `audiences`.

        Raises `InvalidAccessToken`, or `SigningKeysUnavailable` when no statement is possible.
        """
        header = header_of(token)
        judge(Content(header, {}), HEADER_RULES)
        key_id = header.get("kid")
        tried: tuple[SigningKey, ...] = ()
        for _ in range(_KEY_LOOKUPS):
            keys = await self._keys.find(key_id, beyond=tried)
            if not keys:
                break
            verified = self._verified(token, header, keys, audiences)
            if verified is not None:
                return verified
            tried = keys
        raise InvalidAccessToken(Reason.ISSUER if tried else Reason.KEY_UNKNOWN)

    def still_verifies(self, expires_at: float, key: SigningKey, now: float) -> bool:
        """Whether a token verified earlier is still good: not expired, its signing key still published."""
        return now < expires_at and self._keys.holds(key)

    def _verified(
        self, token: str, header: Mapping[str, Any], keys: Collection[SigningKey], audiences: Collection[str]
    ) -> VerifiedToken | None:
        """`None` when one of the keys signed the token, but is not (yet) known as a key of the token's own issuer."""
        signed = False
        for key in keys:
            if signed_by(token, key, audiences):
                signed = True
                content = Content(header, claims_of(token))
                require_times(content.claims)
                judge(content, (*KIND_RULES, *self._rules.issuer_rules))
                if self._rules.issuer_matches_key(content.claims, key):
                    judge(content, self._rules.rules)
                    return self._rules.read(content, key)
        if not signed:
            raise InvalidAccessToken(Reason.SIGNATURE)
        return None


def header_of(token: str) -> dict[str, Any]:
    """The header of `token`, which is a hint and proves nothing. Raises `InvalidAccessToken` if it can't be read."""
    if len(token) > MAXIMUM_TOKEN_BYTES:
        raise InvalidAccessToken(Reason.MALFORMED)
    try:
        return json_object(decoded_parts(token)[0])
    except ValueError as error:
        raise InvalidAccessToken(Reason.MALFORMED) from error


def named_issuer(token: str) -> Any:
    """The issuer that `token` names, which is a hint and proves nothing; `None` if it names none that can be read."""
    try:
        header_of(token)
        return claims_of(token).get("iss")
    except InvalidAccessToken:
        return None


def claims_of(token: str) -> dict[str, Any]:
    """The claims of `token`, not verified here. Raises `InvalidAccessToken` if they can't be read."""
    try:
        return json_object(decoded_parts(token)[1])
    except ValueError as error:
        raise InvalidAccessToken(Reason.MALFORMED) from error
