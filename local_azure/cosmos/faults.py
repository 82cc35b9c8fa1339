"""Refusals of an account as a whole, for `Cosmos.faults`."""

from local_azure.faults import Fault

WRITE_FORBIDDEN = 3
"""Sub-status of 403: this region takes no writes (any more)."""

DATABASE_ACCOUNT_NOT_FOUND = 1008
"""Sub-status of 403: this region does not know the account, as after a failover."""

RBAC_NOT_PERMITTED = 5301
"""Sub-status of 403: the principal has no role for this, or not everywhere yet."""

# azure-cosmos, http_constants.py, SubStatusCodes, names the first two; the texts are inferred.
_FORBIDDEN = {
    WRITE_FORBIDDEN: "The requested operation cannot be performed at this region",
    DATABASE_ACCOUNT_NOT_FOUND: "Database Account does not exist",
    RBAC_NOT_PERMITTED: "Request is blocked because principal does not have required RBAC permissions.",
}


def throttled(retry_after_ms: int | None = 100, *, times: int | None = 1) -> Fault:
    """The 429 of an account that is out of request units; `None` leaves `x-ms-retry-after-ms` out."""
    headers = {"x-ms-substatus": "3200", "x-ms-request-charge": "0.38"}
    if retry_after_ms is not None:
        headers["x-ms-retry-after-ms"] = str(retry_after_ms)
    message = "Request rate is large. More Request Units may be needed, so no changes were made."
    return Fault(status=429, headers=headers, body={"code": "429", "message": message}, times=times)


def forbidden(sub_status: int, *, times: int | None = 1) -> Fault:
    """A 403 with this sub-status, such as `WRITE_FORBIDDEN`, which says what was forbidden."""
    message = _FORBIDDEN.get(sub_status, "The operation is forbidden.")
    headers = {"x-ms-substatus": str(sub_status), "x-ms-request-charge": "0.00"}
    return Fault(status=403, headers=headers, body={"code": "Forbidden", "message": message}, times=times)
