"""What the Graph store needs to know; apart from the store, so that choosing another one doesn't import its client."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Protocol

from storage.mapping import UserKey
from storage.seal import SealKey


@dataclass(frozen=True, slots=True)
class GraphOptions:
    """Where Graph is and what the extension is called.

    `seal_keys` are the keys of the mappings' seals: the first seals, all verify; there is at least one. Mappings
    without a seal are accepted up to and including the day `accept_unsealed_until` (UTC), by default never.

    `base_url` is the host root, which differs in national clouds
    (https://learn.microsoft.com/graph/deployments). `timeout` bounds one request as a whole, `connection_timeout` the
    making of its connection, both in seconds. `page_size` is how many users `mappings` reads at once; `None` leaves it
    to Graph.
    """

    seal_keys: tuple[SealKey, ...]
    base_url: str = "https://graph.microsoft.com"
    extension_name: str = "com.contoso.identityMapping"
    timeout: float = 5.0
    connection_timeout: float = 2.0
    page_size: int | None = None
    accept_unsealed_until: date | None = None


class GraphAccessTokens(Protocol):
    """The callers' own delegated tokens for Graph, with the permission User.ReadWrite."""

    async def access_token(self, user: UserKey) -> str:
        """A token of this very user. What it raises passes through the store unchanged."""
        ...

    def refused(self, user: UserKey) -> None:
        """Graph refused this user's token (401): don't give it out again."""
        ...


class GraphApplicationTokens(Protocol):
    """The service's app-only tokens for Graph: User.Read.All to list, User.ReadWrite.All also to change."""

    @property
    def tenants(self) -> Sequence[str]:
        """The ids of the tenants whose users `mappings` lists."""
        ...

    async def access_token(self, tenant_id: str) -> str:
        """A token for this tenant. What it raises passes through the store unchanged."""
        ...
