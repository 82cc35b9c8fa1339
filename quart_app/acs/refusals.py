"""What the answers of Azure Communication Services mean, other than those about one identity (`acs.client`).

Its specification names no codes beyond the form `{"error": {"code", "message", "target"}}`; the codes here come
from recordings. A code that is in no table is an unexpected answer.
"""

from quart_app.acs.interface import (
    AcsCredentialsRejected,
    AcsError,
    AcsMisconfigured,
    AcsThrottled,
    AcsUnavailable,
    TeamsTokenRefused,
    TeamsUserNotAllowed,
    UnexpectedAnswer,
)
from upstream.refusals import Blame, Refusal

_SPECIFICATION = (
    "https://github.com/Azure/azure-rest-api-specs/tree/main/specification/communication/data-plane/Identity"
)
_RECORDINGS = (
    "https://github.com/Azure/azure-sdk-for-python/tree/main/sdk/communication/azure-communication-identity/tests"
)
_AUTHENTICATION = "https://learn.microsoft.com/rest/api/communication/authentication"
_LIMITS = "https://learn.microsoft.com/azure/communication-services/concepts/service-limits"
_TEAMS = "https://learn.microsoft.com/azure/communication-services/concepts/teams-endpoint"

KEY_ADVICE = (
    "Copy the connection string from the ACS resource's Keys page into ACS_CONNECTION_STRING: keys may have been "
    "regenerated. Where they are switched off, set ACS_ENDPOINT and a managed identity instead. If it is right, check "
    "this machine's clock."
)
IDENTITY_ADVICE = (
    "Give the managed identity (or whoever is signed in, for a command that runs elsewhere) the role 'Communication "
    "and Email Service Owner' on the ACS resource; a role that was assigned in the last ten minutes may still be "
    "spreading."
)
CREDENTIAL_REFUSED = "Denied"
"""The code of ACS's data planes for a credential that they do not accept: it says nothing about what was asked for."""

_CREDENTIAL = f"With a key: {KEY_ADVICE} Without: {IDENTITY_ADVICE}"

REFUSALS: tuple[Refusal, ...] = (
    Refusal("429", Blame.PASSING, "ACS is throttling; ask for a higher limit if it lasts.", _LIMITS),
    Refusal("408", Blame.PASSING, "ACS is in trouble, which usually passes.", _SPECIFICATION),
    Refusal("5xx", Blame.PASSING, "ACS is in trouble, which usually passes.", _SPECIFICATION),
    Refusal("401", Blame.SET_UP, _CREDENTIAL, _AUTHENTICATION),
    Refusal("403", Blame.SET_UP, _CREDENTIAL, _AUTHENTICATION),
    Refusal(
        "400 ValidationError",
        Blame.SET_UP,
        "Check ACS_TOKEN_SCOPES and ACS_TOKEN_LIFETIME_MINUTES.",
        _RECORDINGS,
    ),
)
"""For every operation: by status and code, or by status for all the codes that come with it."""

TEAMS_REFUSALS: tuple[Refusal, ...] = (
    Refusal("401 InvalidAccessToken", Blame.TOKEN, "The Teams token is no longer valid.", _RECORDINGS),
    Refusal(
        "403",
        Blame.RIGHTS,
        "The user may not use Teams: guests may not, nor may users without a Teams licence.",
        _TEAMS,
    ),
    Refusal("400 ValidationError appId", Blame.TOKEN, "The Teams token belongs to another application.", _RECORDINGS),
    Refusal("400 ValidationError userId", Blame.RIGHTS, "The Teams token belongs to another user.", _RECORDINGS),
    Refusal("400 ValidationError token", Blame.TOKEN, "The Teams token is missing.", _RECORDINGS),
)
"""For the Teams exchange only; they come before those for every operation."""

_TEAMS_PARTS = {"appid": "client", "userid": "user", "token": "token"}


def row_for(status: int, code: str | None, target: str, *, teams: bool = False) -> Refusal | None:
    """What an answer means, by the most exact row; `None` if that is not known.

    Without a code it is not in ACS's own form (a gateway's page, for example), so it is passing trouble.
    """
    if code is None and status not in (408, 429) and status < 500:
        return NOT_ITS_OWN
    family = f"{status // 100}xx"
    names = (f"{status} {code} {target}".lower(), f"{status} {code}".lower(), str(status), family)
    rows = {row.code.lower(): row for row in (*REFUSALS, *(TEAMS_REFUSALS if teams else ()))}
    if teams and code == "ValidationError" and names[0] not in rows:
        return None  # a part that isn't known: the scopes and the lifetime are not sent in this operation
    return next((rows[name] for name in names if name in rows), None)


NOT_ITS_OWN = Refusal(
    "no error code",
    Blame.PASSING,
    "Check that the endpoint in ACS_CONNECTION_STRING or ACS_ENDPOINT is an ACS resource: something else answered.",
    _SPECIFICATION,
)


def error_for(row: Refusal | None, status: int, target: str, seconds: float | None) -> AcsError:
    """The error that an answer means; `seconds` is how long to wait, if it says so."""
    match row.blame if row else Blame.NOBODY:
        case Blame.PASSING if status == 429:
            return AcsThrottled(seconds)
        case Blame.PASSING:
            return AcsUnavailable(seconds)
        case Blame.SET_UP if status == 400:
            return AcsMisconfigured()
        case Blame.SET_UP:
            return AcsCredentialsRejected("ACS refused the service's own credential.")
        case Blame.RIGHTS if status == 403:
            return TeamsUserNotAllowed()
        case Blame.TOKEN | Blame.RIGHTS:
            return TeamsTokenRefused(_TEAMS_PARTS.get(target.lower(), "token"))
    return UnexpectedAnswer(status)
