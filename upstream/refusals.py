"""Whom a refusal blames: the form of the tables, one for each upstream, that say what its codes mean.

The tables are data (`storage.cosmos_refusals`, `storage.graph_refusals`, `quart_app.acs.refusals`,
`quart_app.auth.on_behalf_of.refusals`). A code that is in none of them is `Blame.NOBODY`.
"""

from dataclasses import dataclass
from enum import StrEnum


class Blame(StrEnum):
    """Whose business it is. Only what a new token cures is the token's.

    PASSING    the upstream's: it passes without anybody acting, so the call is repeated, then answered 503
    TOKEN      the caller's token: a new one cures it
    SIGN_IN    the caller's sign-in: the user must prove more, interactively
    RIGHTS     the caller's rights or licence
    NO_USER    a caller who no longer exists there, or does not exist yet
    CONSENT    the user or administrator who has to consent
    SET_UP     the operator's: something must be set up differently
    NOBODY     not known: reported as an unexpected answer
    """

    PASSING = "passing trouble"
    TOKEN = "the caller's token"  # noqa: S105
    SIGN_IN = "the caller's sign-in"
    RIGHTS = "the caller's rights or licence"
    NO_USER = "a caller who is not there"
    CONSENT = "consent"
    SET_UP = "the operator's set-up"
    NOBODY = "not known"


@dataclass(frozen=True, slots=True)
class Refusal:
    """One row: what a code means. `code` is as in the log line; `advice` is for the operator; `source` is a page."""

    code: str
    blame: Blame
    advice: str
    source: str


UNKNOWN_ADVICE = "This service doesn't know the code. Look it up, and report it."
"""The advice for a code that is in no table."""
