"""What Entra ID's error codes mean for this service, and how its error answers are read.

A code that the tables don't list is judged by the OAuth 2.0 error that comes with it, and by nothing else: an
`invalid_grant` with an unknown code may have any cause, so it is reported as an unexpected answer.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from quart_app.auth.on_behalf_of.errors import (
    AssertionRefused,
    CallerNotAllowed,
    CallerNotFound,
    ClaimsChallengeRequired,
    ConsentRequired,
    InteractionRequired,
    OnBehalfOfCredentialsRejected,
    OnBehalfOfError,
    OnBehalfOfMisconfigured,
    OnBehalfOfThrottled,
    OnBehalfOfUnavailable,
    OnBehalfOfUnexpectedAnswer,
)
from upstream.claims import usable_challenge
from upstream.errors import Cause, plain
from upstream.refusals import UNKNOWN_ADVICE, Blame, Refusal
from upstream.retry_after import retry_after

_CODES = "https://learn.microsoft.com/entra/identity-platform/reference-error-codes"
_OBO = "https://learn.microsoft.com/entra/identity-platform/v2-oauth2-on-behalf-of-flow"
_FEDERATION = (
    "https://learn.microsoft.com/entra/workload-id/workload-identity-federation-config-app-trust-managed-identity"
)
_OAUTH = "https://www.rfc-editor.org/rfc/rfc6749#section-5.2"
_OIDC = "https://openid.net/specs/openid-connect-core-1_0.html#AuthError"

SPREADING_SECONDS = 600.0
"""For this long after the start, a federated credential may still be spreading through Entra ID."""


def _rows(blame: Blame, source: str, advice: str, *codes: int) -> Iterator[tuple[int, Refusal]]:
    for code in codes:
        yield code, Refusal(f"AADSTS{code}", blame, advice, source)


def _table(*groups: Iterable[tuple[int, Refusal]]) -> Mapping[int, Refusal]:
    return dict(row for group in groups for row in group)


CODES: Mapping[int, Refusal] = _table(
    _rows(
        Blame.PASSING,
        _CODES,
        "Entra ID is busy or in trouble, which passes. See https://status.azure.com if it lasts.",
        *(50000, 50033, 50087, 50088, 50166, 70012, 90006, 90012, 90024, 90033, 90055, 90090, 90091, 501621),
    ),
    _rows(
        Blame.PASSING,
        _CODES,
        "The user's own identity provider or domain does not answer; its administrator can tell why.",
        *(40010, 80001, 80002, 80005, 80014),
    ),
    _rows(
        Blame.PASSING,
        _CODES,
        "Entra ID saw the same request too often. Tokens are kept here, so report it if it lasts.",
        50196,
    ),
    _rows(
        Blame.TOKEN,
        _CODES,
        "The caller's token is expired, revoked or not accepted. Nothing is to be done here, unless it lasts for all: "
        "then check ENTRA_TENANT_ID and ENTRA_AUTHORITY_HOST.",
        *(50013, 50027, 50089, 50132, 50133, 50139, 50173, 70008, 70043, 90016, 240002, 500133),
        *(700082, 700084, 900384),
    ),
    _rows(
        Blame.SIGN_IN,
        _CODES,
        "The user must sign in interactively: multi-factor authentication, registration for it, or a new password.",
        *(50055, 50058, 50072, 50074, 50076, 50078, 50079, 50097, 50125, 50135, 50144, 50158, 53004, 700020),
    ),
    _rows(
        Blame.RIGHTS,
        _CODES,
        "Assign the user to the API's enterprise application, or turn 'Assignment required' off there.",
        50105,
    ),
    _rows(
        Blame.RIGHTS,
        _CODES,
        "The user's account is disabled, locked or at risk. An administrator of the tenant decides.",
        *(50015, 50053, 50057, 53011, 54000, 530034),
    ),
    _rows(
        Blame.RIGHTS,
        _CODES,
        "A Conditional Access policy or security default refuses this user, device or place; the tenant's sign-in log "
        "names it.",
        *(50005, 50131, 50155, 50177, 50178, 50187, 53000, 53001, 53002, 53003, 53010, 135011, 530032, 530035),
    ),
    _rows(
        Blame.RIGHTS,
        _CODES,
        "Tenant restrictions or cross-tenant access settings refuse users of this tenant.",
        *(50002, 90084, 90123, 500021, 500022, 500212, 500213),
    ),
    _rows(
        Blame.NO_USER,
        _CODES,
        "The user no longer exists in the tenant, or never did. `acs-auth delete --user` removes what is mapped.",
        *(16000, 16003, 50014, 50020, 50034, 50197, 51004, 90072),
    ),
    _rows(
        Blame.CONSENT,
        _CODES,
        "Grant the API's app registration the delegated Microsoft Graph permission User.ReadWrite, and consent to it "
        "as an administrator of the user's tenant.",
        *(65001, 65004, 90008, 90093, 90094, 90095, 90099),
    ),
    _rows(
        Blame.CONSENT,
        _OBO,
        "A personal account has not consented: the user must sign in and grant what the client asks for.",
        70000,
    ),
    _rows(
        Blame.SET_UP,
        _CODES,
        "ENTRA_CLIENT_SECRET is wrong: set the secret's value (not its id), or make a new one under "
        "'Certificates & secrets' of the API's app registration.",
        *(70002, 7000215),
    ),
    _rows(
        Blame.SET_UP,
        _CODES,
        "ENTRA_CLIENT_SECRET has expired: make a new one under 'Certificates & secrets' of the API's app registration.",
        7000222,
    ),
    _rows(
        Blame.SET_UP,
        _CODES,
        "The app registration does not know the certificate in ENTRA_CLIENT_CERTIFICATE_PATH: upload its public part "
        "under 'Certificates & secrets', or name the certificate that is there.",
        *(50012, 50048, 700027, 700030),
    ),
    _rows(
        Blame.SET_UP,
        _CODES,
        "The app registration is a public client: turn 'Allow public client flows' off, and give it a credential.",
        *(700025, 7000218),
    ),
    _rows(
        Blame.SET_UP,
        _CODES,
        "ENTRA_CLIENT_ID is not an application of this tenant: copy 'Application (client) ID' of the API's app "
        "registration, and consent to it in each tenant of ENTRA_ALLOWED_TENANTS.",
        *(50194, 700011, 700016),
    ),
    _rows(
        Blame.SET_UP,
        _CODES,
        "The application is disabled in this tenant, or may not act on behalf of users: look at its enterprise "
        "application.",
        *(51000, 70001, 1000031, 7000112, 7000114),
    ),
    _rows(
        Blame.SET_UP,
        _FEDERATION,
        "This machine's clock is off: synchronise it.",
        700024,
    ),
    _rows(
        Blame.SET_UP,
        _FEDERATION,
        "The app registration's federated credential names another issuer: it must be the tenant's v2.0 issuer.",
        700211,
    ),
    _rows(
        Blame.SET_UP,
        _FEDERATION,
        "The app registration's federated credential names another audience.",
        700212,
    ),
    _rows(
        Blame.SET_UP,
        _FEDERATION,
        "The app registration's federated credential names another subject: it must be the managed identity's object "
        "(principal) id.",
        *(700213, 700229),
    ),
    _rows(
        Blame.SET_UP,
        _CODES,
        "ENTRA_TENANT_ID is not a tenant of this cloud: copy 'Directory (tenant) ID', and check ENTRA_AUTHORITY_HOST.",
        *(50049, 50059, 90002, 90038, 90051, 900382, 900432),
    ),
    _rows(
        Blame.SET_UP,
        _OBO,
        "The caller's token is for another application than ENTRA_CLIENT_ID: set the App ID URI of this API's app "
        "registration, and let the client ask for its scope.",
        500131,
    ),
    _rows(
        Blame.SET_UP,
        _CODES,
        "The app registration does not ask for Microsoft Graph, or the tenant lacks it: check its API permissions, and "
        "GRAPH_BASE_URL.",
        *(28002, 28003, 50001, 65002, 65005, 70011, 500011, 650052, 650054, 650056, 650057, 700022, 700023),
    ),
    _rows(
        Blame.SET_UP,
        _CODES,
        "Claims mapping of the application is not set up to the end: it lacks a signing key of its own.",
        *(50003, 50124, 50146, 501461),
    ),
    _rows(
        Blame.SET_UP,
        _CODES,
        "Entra ID does not take the request as it is. Check ENTRA_AUTHORITY_HOST; if it is right, report it.",
        *(50010, 70003, 90004, 90009, 90013, 90014, 90019, 90023, 90027, 90100),
        *(900144, 900561, 9001023, 9002313, 9002332),
    ),
)
"""By AADSTS number."""

_CREDENTIAL = (
    "Check ENTRA_CLIENT_ID and the credential. A code is explained at https://login.microsoftonline.com/error."
)

ERRORS: Mapping[str, Refusal] = {
    row.code: row
    for row in (
        Refusal("consent_required", Blame.CONSENT, "Consent to the API's permissions in Microsoft Graph.", _OIDC),
        Refusal("interaction_required", Blame.SIGN_IN, "The user must sign in interactively.", _OIDC),
        Refusal("login_required", Blame.SIGN_IN, "The user must sign in interactively.", _OIDC),
        Refusal("temporarily_unavailable", Blame.PASSING, "Entra ID is busy, which passes.", _CODES),
        Refusal("server_error", Blame.PASSING, "Entra ID is in trouble, which passes.", _CODES),
        Refusal("invalid_client", Blame.SET_UP, _CREDENTIAL, _OAUTH),
        Refusal("unauthorized_client", Blame.SET_UP, _CREDENTIAL, _OAUTH),
        Refusal("invalid_tenant", Blame.SET_UP, "Check ENTRA_TENANT_ID and ENTRA_AUTHORITY_HOST.", _CODES),
        Refusal("invalid_request", Blame.SET_UP, "Check the app registration and ENTRA_AUTHORITY_HOST.", _OAUTH),
        Refusal("invalid_scope", Blame.SET_UP, "Check the app registration's permissions and GRAPH_BASE_URL.", _OAUTH),
        Refusal("invalid_resource", Blame.SET_UP, "Check GRAPH_BASE_URL.", _CODES),
        Refusal(
            "unsupported_grant_type",
            Blame.SET_UP,
            "Check that ENTRA_AUTHORITY_HOST is the address of Entra ID.",
            _OAUTH,
        ),
    )
}
"""By the OAuth 2.0 error, for codes that are not listed."""

_SPREADING = "A federated credential that was made in the last minutes may not count everywhere yet: wait ten minutes."
_MAY_BE_SPREADING = frozenset({700211, 700212, 700213})
_CREDENTIAL_ERRORS = frozenset({"invalid_client", "unauthorized_client"})


def refused(status: int, headers: Mapping[str, str], body: bytes, *, just_started: bool = False) -> OnBehalfOfError:
    """The error that an answer other than success means. `just_started`: within `SPREADING_SECONDS` of the start.

    An answer not in Entra ID's own form (a gateway's page, say) is passing trouble: it proves nothing.
    """
    answer = _TokenAnswer.of(body)
    row = answer.row if answer is not None else None
    advice = row.advice if row else UNKNOWN_ADVICE if answer else None
    if just_started and answer is not None and answer.number in _MAY_BE_SPREADING:
        advice = f"{advice} {_SPREADING}"
    cause = Cause(
        status,
        answer.code if answer else None,
        (answer and answer.correlation_id) or plain(headers.get("x-ms-request-id")),
        advice,
    )
    return _error(status, headers, answer, row).because(cause)


def _error(
    status: int, headers: Mapping[str, str], answer: "_TokenAnswer | None", row: Refusal | None
) -> OnBehalfOfError:
    if status == 429:
        return OnBehalfOfThrottled(retry_after(headers))
    if answer is None or status == 408 or status >= 500:
        return OnBehalfOfUnavailable(retry_after(headers))
    if answer.claims is not None:
        return ClaimsChallengeRequired(answer.claims)
    match row.blame if row else Blame.NOBODY:
        case Blame.PASSING:
            return OnBehalfOfUnavailable(retry_after(headers))
        case Blame.TOKEN:
            return AssertionRefused(answer.code)
        case Blame.SIGN_IN:
            return InteractionRequired()
        case Blame.RIGHTS:
            return CallerNotAllowed(answer.code)
        case Blame.NO_USER:
            return CallerNotFound(answer.code)
        case Blame.CONSENT:
            return ConsentRequired()
        case Blame.SET_UP if answer.error in _CREDENTIAL_ERRORS:
            return OnBehalfOfCredentialsRejected(answer.code)
        case Blame.SET_UP:
            return OnBehalfOfMisconfigured(f"Entra ID refused the request ({answer.code}).")
    return OnBehalfOfUnexpectedAnswer(answer.code)


@dataclass(frozen=True, slots=True)
class _TokenAnswer:
    """An error answer in Entra ID's form: https://learn.microsoft.com/entra/identity-platform/reference-error-codes."""

    error: str
    suberror: str | None
    numbers: tuple[int, ...]
    claims: str | None
    correlation_id: str | None

    @classmethod
    def of(cls, body: bytes) -> "_TokenAnswer | None":
        content = json_object(body)
        error = content.get("error") if content is not None else None
        if content is None or not isinstance(error, str) or not _WORD.fullmatch(error):
            return None
        numbers = content.get("error_codes")
        suberror = content.get("suberror")
        return cls(
            error=error,
            suberror=suberror if isinstance(suberror, str) else None,
            numbers=tuple(filter(_is_code, numbers))[:10] if isinstance(numbers, list) else (),
            claims=usable_challenge(content.get("claims")),
            correlation_id=plain(content.get("correlation_id")),
        )

    @property
    def number(self) -> int | None:
        """The code that decides: the first one that is known."""
        return next((number for number in self.numbers if number in CODES), next(iter(self.numbers), None))

    @property
    def code(self) -> str:
        """What is reported of it."""
        return self.error if self.number is None else f"AADSTS{self.number}"

    @property
    def row(self) -> Refusal | None:
        """What it means, if that is known."""
        if self.number is not None and self.number in CODES:
            return CODES[self.number]
        if self.suberror == "consent_required":
            return ERRORS["consent_required"]
        return ERRORS.get(self.error)


def json_object(body: bytes) -> dict[str, Any] | None:
    """The JSON object that `body` is; `None` for anything else."""
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return content if isinstance(content, dict) else None


def _is_code(value: object) -> bool:
    return type(value) is int and 0 < value < 100_000_000


_WORD = re.compile(r"[A-Za-z0-9_.-]{1,100}")
