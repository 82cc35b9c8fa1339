"""The error answers of ACS Identity: `{"error": {"code", "message", "target"?}}`.

Codes and messages are those in the recorded sessions of the Azure SDKs (azure-sdk-for-python and azure-sdk-for-js,
communication-identity, `tests/recordings` and `recordings`), unless a comment says that they are inferred.
"""

import math
from collections.abc import Mapping
from typing import Any

from aiohttp import web


class ServiceError(Exception):
    """An answer other than success.

    `reports_versions` is false for the few answers that the real service sends without `api-supported-versions`.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        target: str | None = None,
        *,
        reports_versions: bool = True,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.headers = dict(headers or {})
        self.status = status
        self.code = code
        self.target = target
        self.reports_versions = reports_versions

    def response(self) -> web.Response:
        """The error as the service writes it."""
        error: dict[str, Any] = {"code": self.code, "message": str(self)}
        if self.target is not None:
            error["target"] = self.target
        return web.json_response({"error": error}, status=self.status, headers=self.headers)


def denied(reason: str = "Denied by the resource provider.") -> ServiceError:
    """The request's credential was not accepted."""
    return ServiceError(401, "Denied", reason)


def clock_skew() -> ServiceError:
    """`x-ms-date` is too far from the service's own time. Text as seen on the e-mail data plane of ACS."""
    return denied(
        "The given request could not be resolved.\nThe time difference between the originating client and the server "
        "is greater than the allowed margin of 5 minutes."
    )


def not_owned() -> ServiceError:
    """The identity belongs to another resource: 401, although nothing is wrong with the credential."""
    return ServiceError(401, "IdentityNotOwned", "Provided identity doesn't belong to the resource.")


def forbidden() -> ServiceError:
    """The Teams user is a guest, or has no licence for Teams.

    Inferred: that such users are answered 403 was reported, with which code was not (microsoft-graph-docs#9181).
    """
    return ServiceError(403, "Forbidden", "The user is not allowed to use Teams.")


def throttled(seconds: float) -> ServiceError:
    """The resource was asked too often; `seconds` until it may be asked again.

    Inferred: neither the body nor whether ACS sends `Retry-After` is on record.
    """
    headers = {"Retry-After": str(math.ceil(seconds))}
    return ServiceError(429, "TooManyRequests", "Rate limit exceeded.", headers=headers)


def invalid(message: str, target: str) -> ServiceError:
    """A field holds a value that is not allowed."""
    return ServiceError(400, "ValidationError", message, target)


def required(field: str) -> ServiceError:
    """A field is missing, null or empty."""
    message = f"{field}: The {field} field is required."
    return ServiceError(400, "ValidationError", message, field, reports_versions=False)


def invalid_teams_token() -> ServiceError:
    """The Teams user's Entra access token is empty, garbage, expired or not meant for ACS."""
    return ServiceError(401, "InvalidAccessToken", "Provided access token is not valid.", reports_versions=False)


def version_missing() -> ServiceError:
    """No `api-version` in the query. Inferred from ASP.NET API versioning, whose text the next error is."""
    return ServiceError(400, "ApiVersionUnspecified", "An API version is required, but was not specified.")


def version_unsupported(uri: str, version: str) -> ServiceError:
    """An `api-version` that the service does not know. The message is from Azure/Communication issue 159."""
    message = f"The HTTP resource that matches the request URI '{uri}' does not support the API version '{version}'."
    return ServiceError(400, "UnsupportedApiVersion", message)


def no_operation(refused: web.HTTPException) -> ServiceError:
    """There is nothing at this path, or not for this method. Inferred."""
    if refused.status == 405:
        return ServiceError(405, "MethodNotAllowed", "The method is not allowed for this resource.")
    return ServiceError(404, "ResourceNotFound", "There is no resource at this address.")
