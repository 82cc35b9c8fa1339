"""Texts that appear where a user's id should be and are the same for everybody: such a user is nobody."""

import re

MAXIMUM_SUBJECT_CHARACTERS = 255
"""OpenID Connect Core 1.0, section 2: `sub` has at most 255 characters."""

_STAND_INS = {"null", "(null)", "none", "nil", "nan", "undefined", "unknown", "anonymous", "n/a", "[object object]"}

_SENTENCES = ("not supported", "use oid claim")
"""Azure AD B2C writes `Not supported currently. Use oid claim.` for every user, in a policy's compatibility mode
(https://learn.microsoft.com/azure/active-directory-b2c/jwt-issuer-technical-profile)."""

_NOBODYS_GUID = re.compile(r"\{?(0[0-]*|f{8}(-f{4}){3}-f{12})\}?")
_TEMPLATE = re.compile(r'[$#%@]?\{+[^{}"]*\}+|<[^<>]*>|%[a-z_]*%?')  # that nobody has filled in
_BRACED_GUID = re.compile(r"\{[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\}")


def is_nobody(subject: str) -> bool:
    """Whether `subject` does not say who the user is: blank, a stand-in for no value, a template, a constant."""
    text = " ".join(subject.lower().split())
    return (
        not text
        or text in _STAND_INS
        or any(sentence in text for sentence in _SENTENCES)
        or _NOBODYS_GUID.fullmatch(text) is not None
        or (_TEMPLATE.fullmatch(text) is not None and _BRACED_GUID.fullmatch(text) is None)
    )
