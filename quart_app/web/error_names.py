"""The stable names of errors: what client programs branch on. Each has one HTTP status, for good."""

from enum import StrEnum
from typing import Self


class ErrorName(StrEnum):
    """The member `error` of an error answer. A name is never reused, renamed or given another status."""

    status: int

    def __new__(cls, name: str, status: int) -> Self:
        member = str.__new__(cls, name)
        member._value_ = name
        member.status = status
        return member

    BAD_REQUEST = "bad_request", 400
    INVALID_REQUEST = "invalid_request", 400
    INVALID_BODY = "invalid_body", 400
    SCOPE_NOT_ALLOWED = "scope_not_allowed", 400
    LIFETIME_NOT_ALLOWED = "lifetime_not_allowed", 400
    TEAMS_TOKEN_MISSING = "teams_token_missing", 400
    TEAMS_TOKEN_CLIENT = "teams_token_client", 400
    INVALID_TOKEN = "invalid_token", 401
    INSUFFICIENT_CLAIMS = "insufficient_claims", 401
    TEAMS_TOKEN_TOKEN = "teams_token_token", 401
    TEAMS_TOKEN_AUDIENCE = "teams_token_audience", 401
    INSUFFICIENT_SCOPE = "insufficient_scope", 403
    INSUFFICIENT_ROLE = "insufficient_role", 403
    CONSENT_REQUIRED = "consent_required", 403
    STEP_UP_REQUIRED = "step_up_required", 403
    USER_NOT_FOUND = "user_not_found", 403
    USER_NOT_ALLOWED = "user_not_allowed", 403
    TEAMS_USER_NOT_ALLOWED = "teams_user_not_allowed", 403
    TEAMS_TOKEN_USER = "teams_token_user", 403
    TEAMS_TOKEN_SCOPE = "teams_token_scope", 403
    NOT_FOUND = "not_found", 404
    IDENTITY_NOT_FOUND = "identity_not_found", 404
    METHOD_NOT_ALLOWED = "method_not_allowed", 405
    REQUEST_TIMEOUT = "request_timeout", 408
    IDENTITY_RESOURCE_MISMATCH = "identity_resource_mismatch", 409
    IDENTITY_GONE = "identity_gone", 409
    MAPPING_UNREADABLE = "mapping_unreadable", 409
    EXTENSION_LIMIT_REACHED = "extension_limit_reached", 409
    REQUEST_ENTITY_TOO_LARGE = "request_entity_too_large", 413
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type", 415
    TOO_MANY_REQUESTS = "too_many_requests", 429
    REQUEST_HEADER_FIELDS_TOO_LARGE = "request_header_fields_too_large", 431
    INTERNAL_ERROR = "internal_error", 500
    TEAMS_EXCHANGE_NOT_CONFIGURED = "teams_exchange_not_configured", 501
    TEAMS_EXCHANGE_NOT_OFFERED = "teams_exchange_not_offered", 501
    NOT_IMPLEMENTED = "not_implemented", 501
    UPSTREAM_CREDENTIALS_REJECTED = "upstream_credentials_rejected", 502
    UNEXPECTED_UPSTREAM_ANSWER = "unexpected_upstream_answer", 502
    STORAGE_FULL = "storage_full", 503
    SERVICE_UNAVAILABLE = "service_unavailable", 503


def names_of(status: int) -> tuple[ErrorName, ...]:
    """The names that an answer with this status may carry."""
    return tuple(name for name in ErrorName if name.status == status)
