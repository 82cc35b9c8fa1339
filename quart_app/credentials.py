"""The service's own credentials towards Azure: which ones are in use, and the managed identity that needs no secret."""

import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from quart_app.settings import EntraSettings, Settings, StorageBackend
from upstream.calls import UpstreamCalls
from upstream.errors import Cause, Throttled, Unavailable, UpstreamError, plain
from upstream.http_session import new_http_session
from upstream.measuring import Measure, unmeasured
from upstream.refusals import Blame, Refusal
from upstream.retry_after import retry_after
from upstream.retrying import RetryPolicy

if TYPE_CHECKING:
    from azure.core.credentials import AccessToken, AccessTokenInfo, TokenRequestOptions
    from azure.core.pipeline import PipelineResponse

MANAGED_IDENTITY = "managed_identity"
"""The name of the platform's managed identity endpoint in metrics and logs."""


class ManagedIdentityError(UpstreamError):
    """The platform gave no token for the managed identity. Messages hold no token and no upstream text."""

    upstream: ClassVar[str] = MANAGED_IDENTITY


class ManagedIdentityRefused(ManagedIdentityError):
    """The endpoint refuses to give a token: the identity is not there, or not this workload's."""

    def __init__(self, status: int) -> None:
        super().__init__(f"The managed identity endpoint refused to issue a token ({status}).")


class ManagedIdentityThrottled(Throttled, ManagedIdentityError):
    """429: nothing was done. `retry_after` is in seconds."""

    def __init__(self, retry_after: float | None = None) -> None:
        super().__init__("The managed identity endpoint is throttling requests.", retry_after)


class ManagedIdentityUnavailable(Unavailable, ManagedIdentityError):
    """The endpoint could not be reached or failed. `retry_after` is in seconds."""

    def __init__(self, retry_after: float | None = None) -> None:
        super().__init__("The managed identity endpoint is unavailable.", retry_after)


class GivesTokens(Protocol):
    """What an `AzureCredential` asks; whoever opened it closes it."""

    async def get_token_info(self, *scopes: str, options: "TokenRequestOptions | None" = None) -> "AccessTokenInfo":
        """See azure-core's `AsyncSupportsTokenInfo`."""
        ...


class AzureCredential:
    """Whom the Azure SDKs and on-behalf-of ask for tokens (`AsyncTokenCredential`): the managed identity.

    An operator's command may ask its operator's own sign-in instead (`operations.sign_in`). Either is an upstream of
    its own: its calls are measured and repeated here, and whatever its SDK raises becomes what `failed` makes of it.
    """

    def __init__(
        self,
        credential: GivesTokens,
        calls: UpstreamCalls,
        failed: Callable[[Exception], UpstreamError],
    ) -> None:
        self._credential = credential
        self._calls = calls
        self._failed = failed

    async def token(self, scope: str) -> str:
        """A token for `scope`, which ends with `/.default`; kept until shortly before it expires."""
        return (await self.get_token_info(scope)).token

    async def get_token_info(self, *scopes: str, options: "TokenRequestOptions | None" = None) -> "AccessTokenInfo":
        """See azure-core's `AsyncSupportsTokenInfo`."""

        async def ask() -> "AccessTokenInfo":
            try:
                return await self._credential.get_token_info(*scopes, options=options or {})
            except UpstreamError:
                raise
            except Exception as error:  # whatever the SDK raises ends here; its texts quote the answer
                raise self._failed(error) from None

        return await self._calls.call("token", ask)

    async def get_token(self, *scopes: str, **_: Any) -> "AccessToken":
        """See azure-core's `AsyncTokenCredential`."""
        from azure.core.credentials import AccessToken

        issued = await self.get_token_info(*scopes)
        return AccessToken(issued.token, issued.expires_on)

    async def close(self) -> None:
        """Nothing: whoever opened it closes it."""

    async def __aenter__(self) -> "AzureCredential":
        return self

    async def __aexit__(self, *_: object) -> None:
        """Nothing: whoever opened it closes it."""


@asynccontextmanager
async def managed_identity(
    entra: EntraSettings, retry: RetryPolicy | None = None, measure: Measure = unmeasured
) -> AsyncIterator[AzureCredential]:
    """The user-assigned managed identity `ENTRA_MANAGED_IDENTITY_CLIENT_ID`, closed at the end.

    It keeps a token for each API until shortly before it expires. Its SDK's retries are off: `retry` is the one that
    repeats. Every failure is a `ManagedIdentityError`.
    https://learn.microsoft.com/entra/identity/managed-identities-azure-resources
    """
    # Loading them takes a while, which other credentials need not wait for.
    from azure.core.pipeline.transport import AioHttpTransport
    from azure.identity.aio import ManagedIdentityCredential

    async with new_http_session(connections=4, local=True) as session:
        transport = AioHttpTransport(
            session=session, session_owner=False, connection_timeout=_CONNECT_SECONDS, read_timeout=_READ_SECONDS
        )
        async with ManagedIdentityCredential(
            client_id=entra.managed_identity_client_id,
            transport=transport,
            retry_total=0,
            raw_response_hook=_check,  # before the SDK reads the answer, which it does not expect without Content-Type
        ) as credential:
            calls = UpstreamCalls(
                MANAGED_IDENTITY, lambda begun: ManagedIdentityUnavailable(), retry or RetryPolicy(), measure
            )
            yield AzureCredential(credential, calls, _unavailable)


def _unavailable(error: Exception) -> ManagedIdentityError:
    return ManagedIdentityUnavailable().because(Cause(code=type(error).__name__, advice=_PASSING_ADVICE))


_DOCUMENTATION = (
    "https://learn.microsoft.com/entra/identity/managed-identities-azure-resources/how-to-use-vm-token#error-handling"
)
_PASSING_ADVICE = (
    "The platform's identity endpoint is not there yet, or in trouble, which usually passes. If it lasts, check that "
    "this workload has the managed identity ENTRA_MANAGED_IDENTITY_CLIENT_ID."
)
_REFUSED_ADVICE = (
    "Check that ENTRA_MANAGED_IDENTITY_CLIENT_ID is the client id of a user-assigned managed identity, and that this "
    "identity is assigned to this workload."
)

REFUSALS = (
    Refusal("400", Blame.SET_UP, _REFUSED_ADVICE, _DOCUMENTATION),
    Refusal("401", Blame.SET_UP, _REFUSED_ADVICE, _DOCUMENTATION),
    Refusal("403", Blame.SET_UP, _REFUSED_ADVICE, _DOCUMENTATION),
    Refusal("any other", Blame.PASSING, _PASSING_ADVICE, _DOCUMENTATION),
)
"""By HTTP status. Container Apps' 403 is empty, so no form is asked for."""


def _check(response: "PipelineResponse[Any, Any]") -> None:
    """Raise what an answer other than a token means."""
    answer = response.http_response
    status, content = answer.status_code, _json_object(answer.content)
    if status == 200 and content.get("access_token"):
        return
    error = refused(status, answer.headers)
    code = plain(content.get("error")) or ("no_token" if status == 200 else None)
    advice = _REFUSED_ADVICE if isinstance(error, ManagedIdentityRefused) else _PASSING_ADVICE
    correlation_id = plain(content.get("correlation_id")) or plain(answer.headers.get("x-ms-request-id"))
    raise error.because(Cause(status, code, correlation_id, advice))


def refused(status: int, headers: Any) -> ManagedIdentityError:
    """The error that an answer with this status, other than a token, means."""
    if status == 429:
        return ManagedIdentityThrottled(retry_after(headers))
    if any(row.code == str(status) for row in REFUSALS):
        return ManagedIdentityRefused(status)
    return ManagedIdentityUnavailable(retry_after(headers))


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def uses_managed_identity(settings: Settings) -> bool:
    """Whether ACS, Cosmos DB or, on behalf of users, Entra ID is reached with the managed identity."""
    return acs_asks_identity(settings) or store_asks_identity(settings, settings.storage.backend)


def credentials_in_use(settings: Settings) -> Iterator[tuple[str, str]]:
    """Each purpose and its credential, in plain words without a secret; only what the chosen store needs."""
    identity = f"managed identity {settings.entra.managed_identity_client_id}"
    yield "ACS", identity if acs_asks_identity(settings) else "access key of ACS_CONNECTION_STRING"
    match settings.storage.backend:
        case StorageBackend.COSMOS:
            yield "Cosmos DB", identity if settings.cosmos.key is None else "account key COSMOS_KEY"
        case StorageBackend.GRAPH:
            described = {
                "ENTRA_CLIENT_SECRET": "client secret ENTRA_CLIENT_SECRET",
                "ENTRA_CLIENT_CERTIFICATE_PATH": f"client certificate {settings.entra.client_certificate_path}",
                "ENTRA_MANAGED_IDENTITY_CLIENT_ID": f"{identity} as federated credential",
            }
            yield "on-behalf-of", described[settings.entra.client_credentials[0]]


def acs_asks_identity(settings: Settings) -> bool:
    """Whether ACS is called with tokens of the managed identity, and not with a key."""
    return settings.acs.connection_string is None


def store_asks_identity(settings: Settings, backend: StorageBackend) -> bool:
    """Whether `backend` is reached with tokens of the managed identity; with Graph it is the API's credential."""
    match backend:
        case StorageBackend.COSMOS:
            return settings.cosmos.key is None
        case StorageBackend.GRAPH:
            return not (settings.entra.client_secret or settings.entra.client_certificate_path)
    return False


_CONNECT_SECONDS = 3.0
_READ_SECONDS = 8.0
