"""What the statuses and sub-statuses of Azure Cosmos DB mean for a store of small items.

What belongs to an operation (404 of an item, 409, 412) is decided by it (`storage.cosmos`). A status that is in no
table is an unexpected answer; one without a header of Cosmos DB's own is passing trouble.
"""

from collections.abc import Mapping

from upstream.refusals import Blame, Refusal

_STATUSES = "https://learn.microsoft.com/rest/api/cosmos-db/http-status-codes-for-cosmosdb"
_FORBIDDEN = "https://learn.microsoft.com/azure/cosmos-db/troubleshoot-forbidden"
_UNAUTHORIZED = "https://learn.microsoft.com/azure/cosmos-db/troubleshoot-unauthorized"
_ROLES = "https://learn.microsoft.com/azure/cosmos-db/how-to-connect-role-based-access-control"
_SDK = "https://github.com/Azure/azure-sdk-for-python/tree/main/sdk/cosmos/azure-cosmos"
_SPREADING = "https://github.com/Azure/azure-cosmos-dotnet-v3/issues/3110"

_PASSES = "Cosmos DB is busy or in trouble, which usually passes."
_MOVES = "The account is failing over to another region, which will pass."
_REFUSED = (
    "With Entra ID: give this identity the role 'Cosmos DB Built-in Data Contributor' on the container (a data-plane "
    "role: az cosmosdb sql role assignment create). With a key: check that COSMOS_KEY belongs to this account and that "
    "local authentication is not disabled. Check the account's network rules, too."
)
_REQUEST = (
    "Check COSMOS_DATABASE, COSMOS_CONTAINER and the container's partition key /id; if they are right, report it."
)

REFUSALS: Mapping[str, Refusal] = {
    row.code: row
    for row in (
        Refusal("403/3", Blame.PASSING, _MOVES, _STATUSES),
        Refusal("403/1008", Blame.PASSING, _MOVES, _SDK),
        Refusal("404/1002", Blame.PASSING, "A replica lags behind, which will pass.", _SDK),
        Refusal("404/1013", Blame.PASSING, "The container is being created, which will pass.", _SDK),
        Refusal("408", Blame.PASSING, _PASSES, _STATUSES),
        Refusal("410", Blame.PASSING, "A partition is moving, which will pass.", _STATUSES),
        Refusal("423", Blame.PASSING, "The throughput is being changed, which will pass.", _STATUSES),
        Refusal("424", Blame.PASSING, _PASSES, _STATUSES),
        Refusal("429", Blame.PASSING, "The throughput is too low: raise the container's.", _STATUSES),
        Refusal("449", Blame.PASSING, "Two writes collided, which will pass.", _STATUSES),
        Refusal("5xx", Blame.PASSING, _PASSES, _STATUSES),
        Refusal("400", Blame.SET_UP, _REQUEST, _STATUSES),
        Refusal("400/1001", Blame.SET_UP, _REQUEST, _SDK),
        Refusal("401", Blame.SET_UP, _REFUSED, _UNAUTHORIZED),
        Refusal("403", Blame.SET_UP, _REFUSED, _FORBIDDEN),
        Refusal(
            "403/1014",
            Blame.SET_UP,
            "A logical partition is full, which mappings can't cause: give them a container of their own.",
            _FORBIDDEN,
        ),
        Refusal("403/5300", Blame.SET_UP, _REFUSED, _FORBIDDEN),
        Refusal(
            "403/5301",
            Blame.SET_UP,
            f"{_REFUSED} A role that was assigned in the last ten minutes may still be spreading: wait for it.",
            _SPREADING,
        ),
        Refusal("404/1003", Blame.SET_UP, "Create the container, or check COSMOS_DATABASE and COSMOS_CONTAINER.", _SDK),
        Refusal("405", Blame.SET_UP, _REQUEST, _STATUSES),
        Refusal("413", Blame.SET_UP, _REQUEST, _STATUSES),
    )
}
"""By status and sub-status, or by status for all the sub-statuses that come with it."""

NOT_ITS_OWN = Refusal(
    "no x-ms- header",
    Blame.PASSING,
    "Something other than Cosmos DB answered: check COSMOS_ENDPOINT, network and proxy.",
    _STATUSES,
)

MOVED = frozenset({(403, 3), (403, 1008)})
"""Statuses with sub-statuses that prove that another region takes the writes now."""

NOTHING_DONE = frozenset({429, 449})
"""Passing trouble with these statuses proves that nothing was written."""


def code_of(status: int, sub_status: int) -> str:
    """How the log tells an answer."""
    return f"{status}/{sub_status}"


def row_for(status: int, sub_status: int, *, its_own: bool) -> Refusal | None:
    """What an answer means, by the most exact row; `None` if that is not known. `its_own`: with a header `x-ms-…`."""
    by_status = REFUSALS.get(str(status)) or REFUSALS.get(f"{status // 100}xx")
    if not its_own:
        return by_status if by_status is not None and by_status.blame is Blame.PASSING else NOT_ITS_OWN
    return REFUSALS.get(code_of(status, sub_status), by_status)
