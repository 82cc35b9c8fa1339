"""Azure Cosmos DB for NoSQL on loopback: one account in gateway mode, as far as identity mappings need it."""

from local_azure.cosmos.account import Cosmos
from local_azure.cosmos.faults import forbidden, throttled

__all__ = ["Cosmos", "forbidden", "throttled"]
