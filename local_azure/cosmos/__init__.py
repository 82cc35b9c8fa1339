"""Azure Cosmos DB for NoSQL on loopback: one account in gateway mode, as far as identity mappings need it."""

from local_azure.cosmos.account import Cosmos, throttled

__all__ = ["Cosmos", "throttled"]
