"""The claims that RFC 7519 registers, `exp nbf iat aud`, as PyJWT judges them; and a check that times are numbers."""

from collections.abc import Collection, Mapping
from typing import Any, TypeGuard

import jwt
from jwt.types import Options

from quart_app.auth.key_sets import SigningKey
from quart_app.auth.refusals import InvalidAccessToken, Reason

LEEWAY_SECONDS = 60
_LATEST = 253_402_300_799  # 9999-12-31T23:59:59Z
# `sub` and `jti` may be anything: each issuer's rules say which claim names the user.
_OPTIONS: Options = {"require": ["exp", "iat", "iss", "aud"], "verify_sub": False, "verify_jti": False}
_REASONS_OF_ABSENCE = {"iss": Reason.ISSUER, "aud": Reason.AUDIENCE}


def signed_by(token: str, key: SigningKey, audiences: Collection[str]) -> bool:
    """Whether `key` signed `token`, in RS256. Raises `InvalidAccessToken` if it did, for claims that don't hold.

    `exp`, `iat`, `iss` and `aud` are required; `aud` must name one of `audiences`; the times have `LEEWAY_SECONDS`.
    """
    try:
        jwt.decode(
            token,
            key=key.key,
            algorithms=["RS256"],
            audience=list(audiences),
            leeway=LEEWAY_SECONDS,
            options=_OPTIONS,
        )
    except jwt.InvalidSignatureError:
        return False
    except (jwt.PyJWTError, ValueError, OverflowError, RecursionError) as error:
        raise InvalidAccessToken(_reason(error)) from error
    return True


def signature_holds(token: str, key: SigningKey) -> bool:
    """Whether `key` signed `token`, in RS256, whatever the claims say: for explaining a token."""
    try:
        jwt.api_jws.decode(token, key.key, algorithms=["RS256"])
    except (jwt.PyJWTError, ValueError):
        return False
    return True


def require_times(claims: Mapping[str, Any]) -> None:
    """Raise `InvalidAccessToken` unless each time is one (RFC 7519, section 2, NumericDate). PyJWT also reads text."""
    if not all(is_time(claims.get(name, 0)) for name in ("exp", "iat", "nbf")):
        raise InvalidAccessToken(Reason.MALFORMED)


def fault_of(token: str, claim: str, audiences: Collection[str]) -> Reason | None:
    """What is wrong with one claim, judged without the others and without the signature: for explaining a token."""
    options: Options = {"verify_signature": False, "require": [claim] if claim in ("exp", "iat", "aud") else []}
    options[f"verify_{claim}"] = True  # type: ignore[literal-required]
    try:
        claims = jwt.decode(token, audience=list(audiences), leeway=LEEWAY_SECONDS, options=options)
    except (jwt.PyJWTError, ValueError, OverflowError, RecursionError) as error:
        return _reason(error)
    return Reason.MALFORMED if claim != "aud" and not is_time(claims.get(claim, 0)) else None


def _reason(error: Exception) -> Reason:
    if isinstance(error, jwt.MissingRequiredClaimError):
        return _REASONS_OF_ABSENCE.get(error.claim, Reason.MALFORMED)
    for kind, reason in (
        (jwt.ExpiredSignatureError, Reason.EXPIRED),
        (jwt.ImmatureSignatureError, Reason.NOT_YET_VALID),
        (jwt.InvalidAudienceError, Reason.AUDIENCE),
    ):
        if isinstance(error, kind):
            return reason
    return Reason.MALFORMED


def is_time(value: Any) -> TypeGuard[int | float]:
    """Whether this is a time within the calendar, in seconds since the epoch."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= _LATEST
