"""Verifies a signed token: its signature, times, audience and issuer. What else it must say is its issuer's matter."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import jwt

from quart_app.auth.compact_jws import decoded_parts, json_object
from quart_app.auth.signing_keys import SigningKey, SigningKeys
from storage.mapping import UserKey

MAXIMUM_TOKEN_BYTES = 16 * 1024
LEEWAY_SECONDS = 60
_KEY_LOOKUPS = 2  # issuers share keys, as Entra ID's tenants do: one may be known to publish a key before the next is
_LATEST = 253_402_300_799  # 9999-12-31T23:59:59Z
_OTHER_FORMS = {"b64", "crit", "cty", "zip"}  # headers by which the claims would be something else than they look


class InvalidAccessToken(Exception):
    """The token proves nothing. The reason is not told: whoever forges tokens would learn from it."""


class WrongAudience(InvalidAccessToken):
    """A known key signed the token, but it is for another API."""


@dataclass(frozen=True, slots=True)
class VerifiedToken:
    """What a verified token says. `expires_at` is in epoch seconds.

    `scopes` is `None` in a token that carries none: it is not a user's delegated access token. `client_id` is the
    application that got the token. `capabilities` are what that client declared (`xms_cc`).
    """

    user: UserKey
    expires_at: int
    scopes: frozenset[str] | None
    roles: frozenset[str]
    client_id: str | None
    capabilities: frozenset[str]
    key: SigningKey


class TokenRules(Protocol):
    """How one kind of issuer writes its tokens. Claims come with a good signature, for the right audience, in time."""

    def issuer_matches_key(self, claims: Mapping[str, Any], key: SigningKey) -> bool:
        """Whether the token's issuer, by what is known of it, signs with `key`, which signed this token.

        Raises `InvalidAccessToken` for an issuer that isn't accepted at all.
        """
        ...

    def read(self, claims: Mapping[str, Any], key: SigningKey) -> VerifiedToken:
        """What the claims say. Raises `InvalidAccessToken` if one isn't as it must be."""
        ...


class SignedTokens:
    """Verifies tokens that `keys` signed, by the `rules` of their issuers.

    Common to all (RFC 8725, RFC 9068): RS256 alone; `exp iat iss aud` required; the issuer is that of the metadata
    whose key signed the token.
    """

    def __init__(self, keys: SigningKeys, rules: TokenRules) -> None:
        self._keys = keys
        self._rules = rules

    async def verify(self, token: str, audiences: Collection[str]) -> VerifiedToken:
        """Verify `token` for one of `audiences`.

        Raises `InvalidAccessToken`, of which `WrongAudience` is one, or `SigningKeysUnavailable` when no statement is
        possible.
        """
        if len(token) > MAXIMUM_TOKEN_BYTES:
            raise InvalidAccessToken
        key_id = _key_id(token)
        tried: tuple[SigningKey, ...] = ()
        for _ in range(_KEY_LOOKUPS):
            keys = await self._keys.find(key_id, beyond=tried)
            if not keys:
                break
            verified = self._verified(token, keys, audiences)
            if verified is not None:
                return verified
            tried = keys
        raise InvalidAccessToken

    def still_verifies(self, expires_at: float, key: SigningKey, now: float) -> bool:
        """Whether a token verified earlier is still good: not expired, its signing key still published."""
        return now < expires_at and self._keys.holds(key)

    def _verified(self, token: str, keys: Collection[SigningKey], audiences: Collection[str]) -> VerifiedToken | None:
        """`None` when one of the keys signed the token, but is not (yet) known as a key of the token's own issuer."""
        signed = False
        for key in keys:
            claims = _signed_claims(token, key, audiences)
            if claims is not None:
                signed = True
                if self._rules.issuer_matches_key(claims, key):
                    return self._rules.read(claims, key)
        if not signed:
            raise InvalidAccessToken
        return None


def words(value: Any) -> frozenset[str]:
    """A claim that lists words: separated by spaces (RFC 6749, section 3.3), or a JSON array.

    Raises `InvalidAccessToken` for anything else.
    """
    listed = [word for word in value.split(" ") if word] if isinstance(value, str) else value
    if not isinstance(listed, list) or not all(isinstance(item, str) for item in listed):
        raise InvalidAccessToken
    return frozenset(listed)


def _key_id(token: str) -> str:
    """The key id that the header names: a hint where to look, nothing more."""
    try:
        header = json_object(decoded_parts(token)[0])
    except ValueError as error:
        raise InvalidAccessToken from error
    key_id = header.get("kid")
    fits = header.get("alg") == "RS256" and header.get("typ", "JWT") in ("JWT", "at+jwt")
    if not fits or not _OTHER_FORMS.isdisjoint(header) or not isinstance(key_id, str):
        raise InvalidAccessToken
    return key_id


def _signed_claims(token: str, key: SigningKey, audiences: Collection[str]) -> dict[str, Any] | None:
    """The claims if this key signed the token; `None` if it did not and another key of the same id may have."""
    try:
        jwt.decode(
            token,
            key=key.key,
            algorithms=["RS256"],
            audience=list(audiences),
            leeway=LEEWAY_SECONDS,
            options={"require": ["exp", "iat", "iss", "aud"]},
        )
        claims = json_object(decoded_parts(token)[1])
    except jwt.InvalidSignatureError:
        return None
    except jwt.InvalidAudienceError as error:
        raise WrongAudience from error
    except (jwt.PyJWTError, ValueError, OverflowError, RecursionError) as error:
        raise InvalidAccessToken from error
    if not all(_is_time(claims.get(name, 0)) for name in ("exp", "iat", "nbf")):
        raise InvalidAccessToken
    return claims


def _is_time(value: Any) -> bool:
    """Whether this is a time within the calendar (RFC 7519, section 2, NumericDate). PyJWT reads text, too."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= _LATEST
