"""The ACS client for an operator's commands, which have time and need no tokens for anybody."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from quart_app.acs_communication import AcsCommunication, AcsOptions
from quart_app.credentials import managed_identity
from quart_app.operations.reconciliation import PROBE_LIFETIME_MINUTES, PROBE_SCOPES
from quart_app.operations.stores import PATIENT
from quart_app.settings import Settings
from storage.retrying import RetryPolicy


@asynccontextmanager
async def open_operator_communication(
    settings: Settings, retry: RetryPolicy = PATIENT
) -> AsyncIterator[AcsCommunication]:
    """The client of the configured ACS resource; tokens that it issues have the least scope and the shortest life."""
    async with AsyncExitStack() as stack:
        key = settings.acs.connection_string
        identity = None if key else await stack.enter_async_context(managed_identity(settings.entra))
        communication = AcsCommunication(
            AcsOptions(
                token_scopes=PROBE_SCOPES,
                token_lifetime_minutes=PROBE_LIFETIME_MINUTES,
                connection_string=key.get_secret_value() if key else None,
                endpoint=None if key else settings.acs.endpoint,
                credential=identity,
            ),
            retry,
        )
        stack.push_async_callback(communication.aclose)
        yield communication


def acs_endpoint(settings: Settings) -> tuple[str, str]:
    """Where the ACS resource is, after the name of the setting that says so."""
    key = settings.acs.connection_string
    if key is None:
        return "ACS_ENDPOINT", str(settings.acs.endpoint)
    parts = dict(part.partition("=")[::2] for part in key.get_secret_value().split(";"))
    named = {name.strip().lower(): value for name, value in parts.items()}
    return "the endpoint in ACS_CONNECTION_STRING", named["endpoint"]
