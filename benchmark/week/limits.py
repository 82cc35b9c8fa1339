"""What the upstreams take, for a whole deployment and for a small part of one."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Self

from local_azure.limits import WindowLimit

LEAST_CALLS = 10.0
LEAST_UNITS = 20.0


@dataclass(frozen=True, slots=True)
class Rate:
    """`amount` in each window of `seconds`."""

    amount: float
    seconds: float

    def part(self, share: float, least: float) -> "Rate":
        """For `share` of all users. Where less than `least` would be left, windows become longer instead."""
        amount = self.amount * share
        stretch = max(1.0, least / amount)
        return Rate(amount * stretch, self.seconds * stretch)

    def limit(self, clock: Callable[[], float]) -> WindowLimit:
        """What keeps it."""
        return WindowLimit(self.amount, self.seconds, clock)


@dataclass(frozen=True, slots=True)
class Limits:
    """Of ACS by operation: https://learn.microsoft.com/azure/communication-services/concepts/service-limits

    `store` is Cosmos DB's throughput in request units, or Graph's number of extension requests for each application
    and tenant: https://learn.microsoft.com/graph/throttling-limits
    """

    acs: Mapping[str, Rate] = field(
        default_factory=lambda: MappingProxyType(
            {
                "create_identity": Rate(1000, 30),
                "issue_access_token": Rate(1000, 30),
                "revoke_access_tokens": Rate(500, 30),
            }
        )
    )
    store: Rate = Rate(2000, 1)
    store_is_cosmos: bool = True

    def part(self, share: float) -> Self:
        """For `share` of all users."""
        least = LEAST_UNITS if self.store_is_cosmos else LEAST_CALLS
        acs = {operation: rate.part(share, LEAST_CALLS) for operation, rate in self.acs.items()}
        return replace(self, acs=MappingProxyType(acs), store=self.store.part(share, least))

    def lifted(self) -> Self:
        """Without any: what would be asked for."""
        endless = Rate(math.inf, 1)
        return replace(self, acs=MappingProxyType(dict.fromkeys(self.acs, endless)), store=endless)


GRAPH = Limits(store=Rate(455, 10), store_is_cosmos=False)
