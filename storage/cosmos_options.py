"""What the Cosmos DB store needs to know; apart from the store, so that choosing another one doesn't import its SDK."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from azure.core.credentials_async import AsyncTokenCredential


@dataclass(frozen=True, slots=True)
class CosmosOptions:
    """Where the mappings are and how long a call may take; all times in seconds.

    endpoint            `https://<account>.documents.azure.com/`, another cloud's or an emulator's
    key, credential     exactly one: an account key in base64, or what gets Entra ID tokens. The maker of a
                        credential closes it.
    preferred_regions   where to read, nearest first, by Azure's short names such as `northeurope`; the account's others
                        come after them. Empty: from the write region, as everything else
    create_if_missing   make the database and the container; for development, and with a key only
    connection_timeout  for a connection to be made
    read_timeout        for an answer to begin or to continue
    call_timeout        for a whole call, waiting for a free connection or a token included
    opening_timeout     for opening the store
    page_size           the most mappings that one request of a listing asks for
    """

    endpoint: str
    database: str
    container: str
    key: str | None = None
    credential: "AsyncTokenCredential | None" = None
    preferred_regions: tuple[str, ...] = ()
    create_if_missing: bool = False
    connection_timeout: float = 2.0
    read_timeout: float = 3.0
    call_timeout: float = 4.0
    opening_timeout: float = 20.0
    page_size: int = 500

    def __repr__(self) -> str:
        return f"CosmosOptions({self.endpoint}, {self.database}/{self.container}, …)"
