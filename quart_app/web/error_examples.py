"""Answers to errors as examples for `/openapi.json`: what the service itself would say."""

from werkzeug.exceptions import NotFound, RequestEntityTooLarge, RequestTimeout, UnsupportedMediaType

from quart_app.acs.interface import AcsCredentialsRejected, AcsThrottled
from quart_app.auth.refusals import InsufficientScope, InvalidAccessToken, MalformedCredentials, Reason
from quart_app.auth.teams_tokens import TeamsClientsUnknown, TeamsTokenInvalid
from quart_app.identities import IdentityNotFound, MappedIdentityGone
from quart_app.identities.token_policy import ScopeNotAllowed
from quart_app.web.bodies import InvalidBody
from quart_app.web.error_names import ErrorName
from quart_app.web.errors import ErrorResponse, describe
from quart_app.web.limits import TooManyRequests
from storage.mapping import MappingUnreadable, Unreadable, UnreadableMapping

EXAMPLE_REQUEST_ID = "4708c9fff77fbf0b591aad6453eb35b5"

_RAISED = (
    MalformedCredentials(),
    InvalidBody('Send {"userIds": […]}: at most 100 object ids of users, each a GUID.'),
    ScopeNotAllowed("scope must be one or more of: chat voip."),
    TeamsTokenInvalid("missing", Reason.MISSING),
    InvalidAccessToken(Reason.SIGNATURE),
    InsufficientScope("api://5e1f0a2b-9c3d-4d7e-8b6a-1a2b3c4d5e01/access_as_user"),
    IdentityNotFound(),
    NotFound(),
    MappedIdentityGone(),
    MappingUnreadable(UnreadableMapping(None, "", Unreadable.SEAL_KEY_NOT_HELD)),
    RequestTimeout(),
    RequestEntityTooLarge(),
    UnsupportedMediaType(),
    TooManyRequests(12),
    TeamsClientsUnknown(),
    AcsCredentialsRejected(),
    AcsThrottled(10),
)


def example_of(status: int, name: ErrorName | None = None) -> ErrorResponse | None:
    """An answer with this status, and this name if one is given; `None` where no example was chosen."""
    for error in _RAISED:
        answer = describe(error, "")
        if answer.error.status == status and name in (None, answer.error):
            return answer
    return None
