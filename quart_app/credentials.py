"""The service's own credentials towards Azure: which ones are in use, and the managed identity that needs no secret."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from quart_app.settings import EntraSettings, Settings, StorageBackend
from upstream.http_session import new_http_session

if TYPE_CHECKING:
    from azure.core.credentials_async import AsyncTokenCredential


@asynccontextmanager
async def managed_identity(entra: EntraSettings) -> AsyncIterator["AsyncTokenCredential"]:
    """The user-assigned managed identity `ENTRA_MANAGED_IDENTITY_CLIENT_ID`, closed at the end.

    It keeps a token for each API until shortly before it expires. Its SDK's retries are off: whoever needs a token
    repeats the whole call by our own policy. https://learn.microsoft.com/entra/identity/managed-identities-azure-resources
    """
    # Loading them takes a while, which other credentials need not wait for.
    from azure.core.pipeline.transport import AioHttpTransport
    from azure.identity.aio import ManagedIdentityCredential

    async with new_http_session(connections=4) as session:
        transport = AioHttpTransport(
            session=session, session_owner=False, connection_timeout=_CONNECT_SECONDS, read_timeout=_READ_SECONDS
        )
        async with ManagedIdentityCredential(
            client_id=entra.managed_identity_client_id, transport=transport, retry_total=0
        ) as credential:
            yield credential


def uses_managed_identity(settings: Settings) -> bool:
    """Whether ACS or Cosmos DB is reached with the managed identity."""
    return _acs_by_identity(settings) or _cosmos_by_identity(settings)


def credentials_in_use(settings: Settings) -> Iterator[tuple[str, str]]:
    """What for, and which credential, in plain words without a secret; only what the chosen store needs."""
    identity = f"managed identity {settings.entra.managed_identity_client_id}"
    yield "ACS", identity if _acs_by_identity(settings) else "access key of ACS_CONNECTION_STRING"
    match settings.storage.backend:
        case StorageBackend.COSMOS:
            yield "Cosmos DB", identity if _cosmos_by_identity(settings) else "account key COSMOS_KEY"
        case StorageBackend.GRAPH:
            described = {
                "ENTRA_CLIENT_SECRET": "client secret ENTRA_CLIENT_SECRET",
                "ENTRA_CLIENT_CERTIFICATE_PATH": f"client certificate {settings.entra.client_certificate_path}",
                "ENTRA_MANAGED_IDENTITY_CLIENT_ID": f"{identity} as federated credential",
            }
            yield "on-behalf-of", described[settings.entra.client_credentials[0]]


def _acs_by_identity(settings: Settings) -> bool:
    return settings.acs.connection_string is None


def _cosmos_by_identity(settings: Settings) -> bool:
    return settings.storage.backend is StorageBackend.COSMOS and settings.cosmos.key is None


_CONNECT_SECONDS = 3.0
_READ_SECONDS = 8.0
