"""Judges an access token by the service's own rules, one by one, and says what is wrong with it and how to mend it."""

import json
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import aiohttp

from quart_app.auth.access_tokens import AccessTokenValidator
from quart_app.auth.caller import Caller
from quart_app.auth.compact_jws import MAXIMUM_DEPTH
from quart_app.auth.doors import Door, OpenDoor, chosen_door, doors
from quart_app.auth.entra_tokens import EntraTokens
from quart_app.auth.key_sets import SigningKey
from quart_app.auth.oidc_tokens import found_at
from quart_app.auth.refusals import InvalidAccessToken, Reason, TokenRefused
from quart_app.auth.registered_claims import LEEWAY_SECONDS, fault_of, is_time, signature_holds
from quart_app.auth.rules import Content, Rule
from quart_app.auth.signed_tokens import MAXIMUM_TOKEN_BYTES, claims_of, header_of, named_issuer
from quart_app.auth.signing_keys import SigningKeys, SigningKeysUnavailable
from quart_app.auth.token_kinds import HEADER_RULES, KIND_RULES
from quart_app.settings import Settings

NOT_THERE = "(not there)"


class ClaimVerdict(StrEnum):
    """What came of one rule. `unknown` could not be judged; the remedy says why."""

    OK = "ok"
    REFUSED = "refused"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Judged:
    """One rule and this token: what the member is, what it must be, and what to do if it isn't.

    `found` never says who the user is, and never holds the token.
    """

    member: str
    found: str
    expected: str
    verdict: ClaimVerdict
    reason: Reason | None = None
    remedy: str | None = None


@dataclass(frozen=True, slots=True)
class Explanation:
    """The service's verdict on a token, and each rule's.

    `accepted` and `reason` are the service's own verdict; without either there is none, because keys can't be fetched.
    `caller` is the bearer of an accepted token.
    """

    accepted: bool
    reason: Reason | None
    judged: tuple[Judged, ...]
    caller: Caller | None = field(default=None, repr=False)


async def explain(settings: Settings, token: str, session: aiohttp.ClientSession) -> Explanation:
    """Judge `token`, with or without the word `Bearer` before it. Only the issuers' keys are fetched."""
    opened = [OpenDoor(door, SigningKeys(session, door.discovery_urls, issuer=door.issuer)) for door in doors(settings)]
    try:
        return await explained_by(opened, token)
    finally:
        for each in opened:
            await each.keys.aclose()


async def explained_by(opened: Sequence[OpenDoor], token: str) -> Explanation:
    """Judge `token`, with or without the word `Bearer` before it, by the door that the service judges it by."""
    bare = re.sub(r"^Bearer +", "", token.strip(), flags=re.IGNORECASE)
    chosen = chosen_door(bare, opened)
    judged = [] if len(opened) == 1 else [_choice(bare, chosen, opened)]
    try:
        judged += await _judged(bare, chosen.door, chosen.keys)
        caller = await AccessTokenValidator(opened).validate(bare)
    except TokenRefused as error:
        return Explanation(accepted=False, reason=error.reason, judged=tuple(judged))
    except SigningKeysUnavailable:
        return Explanation(accepted=False, reason=None, judged=tuple(judged))
    return Explanation(accepted=True, reason=None, judged=tuple(judged), caller=caller)


def _choice(token: str, chosen: OpenDoor, opened: Sequence[OpenDoor]) -> Judged:
    """Which of several doors the token came by, and why: no door is wrong in itself."""
    issuer = named_issuer(token)
    by_issuer = [f"{each.door.name} where iss is {each.door.issuer}" for each in opened if each.door.issuer]
    return Judged(
        "door",
        f"{chosen.door.name}, because iss is {NOT_THERE if issuer is None else _quoted(issuer)}",
        f"{', '.join(by_issuer)}; else {opened[0].door.name}",
        ClaimVerdict.OK,
    )


async def _judged(token: str, door: Door, keys: SigningKeys) -> list[Judged]:
    """Every rule and this token, in the order in which the service checks."""
    try:
        header = header_of(token)
    except InvalidAccessToken as error:
        return [_form(token, error.reason)]
    found = [_form(token, None), *_by_rules(HEADER_RULES, Content(header, {}))]
    key_id = header.get("kid")
    candidates: Sequence[SigningKey] | None
    try:
        candidates = await keys.find(key_id if isinstance(key_id, str) else None)
    except SigningKeysUnavailable:
        candidates = None
    signers = [key for key in candidates or () if signature_holds(token, key)]
    found.append(_signature(header, keys.issuers(), candidates, signers))
    try:
        content = Content(header, claims_of(token))
    except InvalidAccessToken as error:
        return [*found, replace(_form(token, error.reason), member="claims", found="they can't be read")]
    found += [_registered(token, content, claim, door.audiences) for claim in ("exp", "nbf", "iat", "aud")]
    rules = door.rules
    issuer = _by_rules(rules.issuer_rules, content)
    if isinstance(rules, EntraTokens) and all(each.verdict is ClaimVerdict.OK for each in issuer):
        issuer.append(_issuer(content, rules, signers or candidates))
    return [*found, *_by_rules(KIND_RULES, content), *issuer, *_by_rules((*rules.rules, *door.admission), content)]


def _form(token: str, reason: Reason | None) -> Judged:
    return Judged(
        "form",
        f"{len(token)} characters, {token.count('.')} dots",
        f"a signed token (RFC 7515): header, claims and signature in base64url, JSON objects without a member given "
        f"twice, at most {MAXIMUM_TOKEN_BYTES} characters and {MAXIMUM_DEPTH} levels of nesting",
        ClaimVerdict.OK if reason is None else ClaimVerdict.REFUSED,
        reason,
        None if reason is None else _FORM_REMEDY,
    )


def _by_rules(rules: Iterable[Rule], content: Content) -> list[Judged]:
    """Each rule, except those about the same members as a rule already broken: they would only repeat it."""
    found: list[Judged] = []
    broken = set()
    for rule in rules:
        if rule.members not in broken:
            found.append(_by_rule(rule, content))
            if found[-1].verdict is not ClaimVerdict.OK:
                broken.add(rule.members)
    return found


def _by_rule(rule: Rule, content: Content) -> Judged:
    holds = rule.holds(content)
    return Judged(
        ", ".join(rule.members),
        _found(content, rule.members, quoted=rule.quoted),
        rule.expected,
        ClaimVerdict.OK if holds else ClaimVerdict.REFUSED,
        None if holds else rule.reason,
        None if holds else rule.remedy,
    )


def _signature(
    header: Mapping[str, Any],
    issuers: Sequence[str],
    candidates: Sequence[SigningKey] | None,
    signers: Sequence[SigningKey],
) -> Judged:
    found = f"key {_quoted(header['kid'])}" if "kid" in header else "no key named"
    if candidates is None:
        remedy = "Nothing can be said while the issuer's keys can't be fetched: acs-auth doctor says why."
        return Judged("signature", found, "a key of the issuer's", ClaimVerdict.UNKNOWN, None, remedy)
    expected = f"made in RS256 by a key of {', '.join(issuers)}"
    if signers:
        return Judged("signature", found, expected, ClaimVerdict.OK)
    if candidates:
        remedy = "It was changed on its way, signed in another algorithm, or forged: get a new one."
        return Judged("signature", found, expected, ClaimVerdict.REFUSED, Reason.SIGNATURE, remedy)
    remedy = "Sign in at one of these issuers; see iss for who issued it."
    if "kid" not in header:
        remedy = "Let the issuer name the key that signed (kid): it publishes several."
    return Judged("signature", found, expected, ClaimVerdict.REFUSED, Reason.KEY_UNKNOWN, remedy)


def _registered(token: str, content: Content, claim: str, audiences: Iterable[str]) -> Judged:
    reason = fault_of(token, claim, list(audiences))
    now, clocks = _time(time.time()), "Check this machine's and the issuer's clock."
    expected, remedy = {
        "exp": (f"a time after {now}, {LEEWAY_SECONDS} s leeway", "Get a new token; if it is new, check the clocks."),
        "nbf": (f"a time up to {now}, {LEEWAY_SECONDS} s leeway, or left out", clocks),
        "iat": (f"a time up to {now}, {LEEWAY_SECONDS} s leeway", clocks),
        "aud": (
            f"one of {', '.join(audiences)}",
            "Let the client ask for a scope of this API, or let the operator add this audience to the settings.",
        ),
    }[claim]
    value = content.claims.get(claim)
    shown = _found(content, (claim,))
    if claim != "aud" and is_time(value):
        shown = f"{shown} ({_time(value)})"
    if reason is None:
        return Judged(claim, shown, expected, ClaimVerdict.OK)
    return Judged(claim, shown, expected, ClaimVerdict.REFUSED, reason, remedy)


def _issuer(content: Content, rules: EntraTokens, keys: Sequence[SigningKey] | None) -> Judged:
    """The issuer, if the key decides it: Entra ID's, v1 or v2, of the token's tenant."""
    claims, shown = content.claims, _found(content, ("iss",))
    if not keys:
        remedy = "It is the issuer of the key that signed, which is not known: see signature."
        return Judged("iss", shown, "the issuer that publishes the key", ClaimVerdict.UNKNOWN, None, remedy)
    expected = " or ".join(sorted({rules.issuer_of(claims, key) for key in keys}))
    if "iss" in claims and any(rules.issuer_matches_key(claims, key) for key in keys):
        return Judged("iss", shown, expected, ClaimVerdict.OK)
    remedy = "Sign in at the Entra ID of ENTRA_AUTHORITY_HOST, in a tenant that may call."
    return Judged("iss", shown, expected, ClaimVerdict.REFUSED, Reason.ISSUER, remedy)


def _found(content: Content, members: Iterable[str], *, quoted: bool = True) -> str:
    """The members as the token has them; those of the header as `header.NAME`, nested claims by dots."""
    there = {name: value for name in members if (value := _member(content, name)) is not _ABSENT}
    if not there:
        return NOT_THERE
    if not quoted:
        return ", ".join(_described(value) for value in there.values())
    if len(tuple(members)) == 1:
        return _quoted(next(iter(there.values())))
    return ", ".join(f"{name} {_quoted(value)}" for name, value in there.items())


def _member(content: Content, name: str) -> Any:
    if name.startswith("header."):
        return content.header.get(name.removeprefix("header."), _ABSENT)
    if name in content.claims:
        return content.claims[name]
    nested = found_at(content.claims, name)
    return _ABSENT if nested is None else nested


def _quoted(value: Any) -> str:
    """As JSON writes it, in ASCII and short; a token inside a claim is left out."""
    text = re.sub(r"eyJ[\w-]{5,}[\w.-]*", "(a token)", json.dumps(value))
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _described(value: Any) -> str:
    return (
        f"text of {len(value)} characters, not shown" if isinstance(value, str) else f"{type(value).__name__}, no text"
    )


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


_FORM_REMEDY = "Give the access token whole and unchanged. If the issuer's are opaque, let it issue JWTs for this API."
_ABSENT = object()
_LONGEST = 160
