"""What Cosmos DB answers instead of doing what was asked."""

import math
from collections.abc import Mapping

from aiohttp import web


class CosmosError(Exception):
    """An error answer: HTTP status, `code` and `message` of the body, and the sub-status header if there is one."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        sub_status: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.headers = dict(headers or {})
        self.status = status
        self.code = code
        self.message = message
        self.sub_status = sub_status


def bad_request(message: str, sub_status: int | None = None) -> CosmosError:
    """400."""
    return CosmosError(400, "BadRequest", message, sub_status)


def out_of_request_units(seconds: float) -> CosmosError:
    """429: the throughput of this moment is used up; `seconds` until there is more."""
    message = "Request rate is large. More Request Units may be needed, so no changes were made."
    headers = {"x-ms-retry-after-ms": str(math.ceil(seconds * 1000)), "x-ms-request-charge": "0.38"}
    return CosmosError(429, "429", message, 3200, headers)


def item_not_found() -> CosmosError:
    """404 for the resource that was asked for: no sub-status."""
    return CosmosError(404, "NotFound", "Entity with the specified id does not exist in the system.")


def owner_not_found() -> CosmosError:
    """404 because the database or container around the resource is missing: sub-status 1003."""
    return CosmosError(404, "NotFound", "Owner resource does not exist", 1003)


def conflict() -> CosmosError:
    """409."""
    return CosmosError(409, "Conflict", "Entity with the specified id already exists in the system.")


def precondition_failed() -> CosmosError:
    """412: `If-Match` names another version than the stored one."""
    return CosmosError(
        412,
        "PreconditionFailed",
        "One of the specified pre-condition is not met. "
        "Learn more: https://aka.ms/CosmosDB/sql/errors/precondition-failed",
    )


def write_forbidden() -> CosmosError:
    """403 of a region that takes no writes: sub-status 3. The text is inferred."""
    return CosmosError(403, "Forbidden", "The requested operation cannot be performed at this region", 3)


def no_operation(refused: web.HTTPException) -> CosmosError:
    """404 or 405: there is nothing at this path, or not for this method. The texts are inferred."""
    if refused.status == 405:
        return CosmosError(405, "MethodNotAllowed", "The requested verb is not supported on this resource.")
    return CosmosError(404, "NotFound", "Resource Not Found.")
