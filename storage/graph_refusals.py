"""What Microsoft Graph's error codes mean for a store that acts on open extensions.

A status with a code that is in no table is an unexpected answer; one without Graph's own form is passing trouble.
"""

from collections.abc import Mapping

from upstream.refusals import Blame, Refusal

_ERRORS = "https://learn.microsoft.com/graph/errors"
_THROTTLING = "https://learn.microsoft.com/graph/throttling"
_PERMISSIONS = "https://learn.microsoft.com/graph/api/opentypeextension-post-opentypeextension#permissions"
_NEW_USER = "https://github.com/microsoftgraph/microsoft-graph-docs/issues/15839"
_RESOURCE_ACCESS = "https://learn.microsoft.com/graph/resolve-auth-errors"

_PASSES = "Microsoft Graph is busy or in trouble, which usually passes."
_TOKEN = "The user's token for Microsoft Graph was refused; the next call gets a new one."  # noqa: S105
_REQUEST = "Check GRAPH_EXTENSION_NAME and GRAPH_BASE_URL."
_PERMISSION = (
    "Grant the API registration the Microsoft Graph permission User.ReadWrite (delegated), for operators' commands "
    "also User.ReadWrite.All (application), and consent to it. No application may change users with a directory role."
)

REFUSALS: Mapping[str, Refusal] = {
    row.code: row
    for row in (
        Refusal("408", Blame.PASSING, _PASSES, _ERRORS),
        Refusal("409 Directory_ConcurrencyViolation", Blame.PASSING, _PASSES, _ERRORS),
        Refusal("423", Blame.PASSING, _PASSES, _ERRORS),
        Refusal("429", Blame.PASSING, "Microsoft Graph is throttling: 455 requests in 10 s.", _THROTTLING),
        Refusal("5xx", Blame.PASSING, _PASSES, _ERRORS),
        Refusal("401", Blame.TOKEN, _TOKEN, _ERRORS),
        Refusal(
            "401 Authorization_IdentityNotFound",
            Blame.SET_UP,
            "The application has no enterprise application in the user's tenant: consent to it there.",
            _RESOURCE_ACCESS,
        ),
        Refusal("403", Blame.SET_UP, _PERMISSION, _PERMISSIONS),
        Refusal("403 Authorization_RequestDenied", Blame.SET_UP, _PERMISSION, _PERMISSIONS),
        Refusal(
            "403 Directory_QuotaExceeded",
            Blame.SET_UP,
            "The tenant's directory is full: an administrator must raise its quota.",
            _ERRORS,
        ),
        Refusal(
            "404 Request_ResourceNotFound",
            Blame.NO_USER,
            "The user was made a moment ago, or is gone. `acs-auth delete --user` removes what is mapped.",
            _NEW_USER,
        ),
        Refusal("400 Request_BadRequest", Blame.SET_UP, _REQUEST, _ERRORS),
        Refusal("400 BadRequest", Blame.SET_UP, _REQUEST, _ERRORS),
        Refusal("400 Request_UnsupportedQuery", Blame.SET_UP, _REQUEST, _ERRORS),
        Refusal("405", Blame.SET_UP, _REQUEST, _ERRORS),
    )
}
"""By status and code, or by status for all the codes that come with it."""

NOT_ITS_OWN = Refusal(
    "no error code",
    Blame.PASSING,
    "Something other than Microsoft Graph answered: check GRAPH_BASE_URL, network and proxy.",
    _ERRORS,
)

NOTHING_DONE = frozenset({409, 423, 429})
"""Passing trouble with these statuses proves that nothing was written."""


def row_for(status: int, code: str | None) -> Refusal | None:
    """What an answer means, by the most exact row; `None` if that is not known.

    `code` is `None` for an answer that is not in Graph's form.
    """
    by_status = REFUSALS.get(str(status)) or REFUSALS.get(f"{status // 100}xx")
    if code is None:
        return by_status if by_status is not None and by_status.blame is Blame.PASSING else NOT_ITS_OWN
    return REFUSALS.get(f"{status} {code}", by_status)
