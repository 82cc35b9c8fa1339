"""From settings to the ACS client, for the service, the operators' commands and `doctor`."""

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager

from quart_app.acs.absence import ProvingAcsClient
from quart_app.acs.client import AcsOptions, SdkAcsClient
from quart_app.acs.guarded import GuardedAcsClient
from quart_app.credentials import AzureCredential
from quart_app.settings import AcsSettings
from upstream.measuring import Measure, unmeasured
from upstream.retrying import RetryPolicy

PROBE_SCOPES = ("chat.join.limited",)
PROBE_LIFETIME_MINUTES = 60


@asynccontextmanager
async def open_acs_client(
    acs: AcsSettings,
    retry: RetryPolicy,
    credential: AzureCredential | None,
    *,
    probing: bool = False,
    canaries: bool = True,
    measure: Measure = unmeasured,
    on_minted: Callable[[], None] = lambda: None,
    on_deleted: Callable[[], None] = lambda: None,
) -> AsyncIterator[ProvingAcsClient]:
    """The client of the configured ACS resource, closed at the end.

    `credential` is whom to ask for tokens where ACS is not called with a key (`credentials.acs_asks_identity`).
    With `probing`, tokens that it issues have the least scope and the shortest life: the caller only wants to know
    whether an identity exists. Without `canaries` no identity is minted to learn what a deleted one looks like.
    """
    client = SdkAcsClient(
        AcsOptions(
            token_scopes=PROBE_SCOPES if probing else acs.token_scopes,
            token_lifetime_minutes=PROBE_LIFETIME_MINUTES if probing else acs.token_lifetime_minutes,
            connection_string=acs.connection_string,
            endpoint=acs.endpoint,
            credential=credential if acs.endpoint else None,
        )
    )
    guarded = GuardedAcsClient(client, retry, measure, on_minted=on_minted, on_deleted=on_deleted)
    async with aclosing(ProvingAcsClient(guarded, canaries=canaries)) as proving:
        yield proving


def acs_endpoint(acs: AcsSettings) -> tuple[str, str]:
    """Where the ACS resource is, after the name of the setting that says so."""
    if acs.connection_string is None:
        return "ACS_ENDPOINT", str(acs.endpoint)
    return "the endpoint in ACS_CONNECTION_STRING", acs.connection_string.endpoint
