"""As whom a command asks Azure for tokens: the managed identity, or the operator's own sign-in. Chosen only here.

The service itself has only the managed identity. A command that runs outside the service's container has no such
identity, so it may act for the person or pipeline that runs it, with their own roles. Nothing here ever asks a person:
if nobody is signed in, the error says how to sign in.
"""

import asyncio
import os
import re
import shutil
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, ClassVar

from quart_app.credentials import AzureCredential, GivesTokens, ManagedIdentityUnavailable, managed_identity
from quart_app.settings import Settings
from upstream.calls import UpstreamCalls
from upstream.errors import Cause, Unavailable, UpstreamError
from upstream.http_session import new_http_session
from upstream.retrying import RetryPolicy

if TYPE_CHECKING:
    from azure.core.credentials import AccessTokenInfo, TokenRequestOptions
    from azure.core.credentials_async import AsyncSupportsTokenInfo

SIGN_IN = "sign_in"
"""The name of an operator's own sign-in among the upstreams."""

CHOICE = "AZURE_TOKEN_CREDENTIALS"
"""The variable that tells Microsoft's libraries which credential to use; the commands obey it, too.

https://learn.microsoft.com/azure/developer/python/sdk/authentication/credential-chains
"""


class OperatorSignIn(StrEnum):
    """Who is asked for tokens, by the name that `AZURE_TOKEN_CREDENTIALS` has for it."""

    MANAGED_IDENTITY = "ManagedIdentityCredential"
    WORKLOAD_IDENTITY = "WorkloadIdentityCredential"
    ENVIRONMENT = "EnvironmentCredential"
    AZURE_CLI = "AzureCliCredential"

    @property
    def described(self) -> str:
        """In plain words, for a sentence about whose roles are missing."""
        return _DESCRIBED[self]


class SignInError(UpstreamError):
    """The operator's own sign-in gave no token. Messages hold no token, no account and no upstream text."""

    upstream: ClassVar[str] = SIGN_IN


class SignInRefused(SignInError):
    """Nobody is signed in, or the sign-in is refused: it can't work until the operator does what the advice says."""


class SignInUnavailable(Unavailable, SignInError):
    """What gives the tokens did not answer: Entra ID, or the Azure CLI in time."""


def chosen(environment: Mapping[str, str]) -> OperatorSignIn:
    """Who is asked for tokens, by what is there: the first of these, unless `AZURE_TOKEN_CREDENTIALS` names one.

    the managed identity   `IDENTITY_ENDPOINT`, which the platform sets in the service's container
    a workload identity    `AZURE_FEDERATED_TOKEN_FILE`, `AZURE_CLIENT_ID`, `AZURE_TENANT_ID`
    the environment        `AZURE_CLIENT_ID`, `AZURE_TENANT_ID`, and a secret or a certificate
    the Azure CLI          `az` is installed
    the managed identity   otherwise: that of a virtual machine

    The choice is final: whose roles count must not depend on what happens to fail.
    Raises `SignInRefused` for a value of `AZURE_TOKEN_CREDENTIALS` that names none of them.
    """
    named = environment.get(CHOICE, "").strip().lower()
    if named == "dev":
        return OperatorSignIn.AZURE_CLI
    if named not in ("", "prod"):
        by_name = {each.value.lower(): each for each in OperatorSignIn}
        if named not in by_name:
            raise SignInRefused(f"{CHOICE} names no sign-in that the commands know.").because(
                Cause(advice=f"Set it to one of {', '.join(OperatorSignIn)}, or leave it out.")
            )
        return by_name[named]
    if environment.get("IDENTITY_ENDPOINT"):
        return OperatorSignIn.MANAGED_IDENTITY
    if _all(environment, "AZURE_CLIENT_ID", "AZURE_TENANT_ID"):
        if environment.get("AZURE_FEDERATED_TOKEN_FILE"):
            return OperatorSignIn.WORKLOAD_IDENTITY
        if environment.get("AZURE_CLIENT_SECRET") or environment.get("AZURE_CLIENT_CERTIFICATE_PATH"):
            return OperatorSignIn.ENVIRONMENT
    if named != "prod" and shutil.which("az", path=environment.get("PATH")):
        return OperatorSignIn.AZURE_CLI
    return OperatorSignIn.MANAGED_IDENTITY


@asynccontextmanager
async def open_sign_in(settings: Settings, retry: RetryPolicy) -> AsyncIterator[AzureCredential]:
    """Who was `chosen`, as the SDKs ask for tokens; closed at the end.

    Its calls raise `ManagedIdentityError` or `SignInError`, each with the remedy as the cause's advice.
    """
    sign_in = chosen(os.environ)
    if sign_in is OperatorSignIn.MANAGED_IDENTITY:
        here = bool(os.environ.get("IDENTITY_ENDPOINT"))
        async with managed_identity(settings.entra, retry if here else _ONCE) as identity:
            yield identity if here else AzureCredential(_FarAway(identity, settings), _calls(_ONCE), _not_here)
        return
    async with _opened(sign_in, settings) as credential:
        yield AzureCredential(_Remembering(credential), _calls(retry), _FAILED[sign_in])


def graph_refusal(sign_in: OperatorSignIn) -> SignInRefused | None:
    """Why Microsoft Graph can't be used by this sign-in, if so: it is the API's registration that acts there."""
    if sign_in is OperatorSignIn.MANAGED_IDENTITY:
        return None
    return SignInRefused(
        "With Microsoft Graph the commands act as the API's registration, which trusts the managed identity only."
    ).because(Cause(advice=RUN_IN_THE_CONTAINER))


class _Remembering:
    """Keeps tokens until shortly before they expire, because the Azure CLI takes a second for each call."""

    def __init__(self, credential: GivesTokens, clock: Callable[[], float] = time.time) -> None:
        self._credential = credential
        self._clock = clock
        self._kept: dict[tuple[str, ...], AccessTokenInfo] = {}
        self._asking = asyncio.Lock()

    async def get_token_info(self, *scopes: str, options: "TokenRequestOptions | None" = None) -> "AccessTokenInfo":
        async with self._asking:
            kept = self._kept.get(scopes)
            if kept is None or kept.expires_on - self._clock() < _EXPIRY_MARGIN_SECONDS:
                kept = self._kept[scopes] = await self._credential.get_token_info(*scopes, options=options or {})
            return kept


class _FarAway:
    """The managed identity where no platform promises one, as on a laptop. Its silence is not an outage."""

    def __init__(self, identity: AzureCredential, settings: Settings) -> None:
        self._identity = identity
        self._name = settings.entra.managed_identity_client_id

    async def get_token_info(self, *scopes: str, options: "TokenRequestOptions | None" = None) -> "AccessTokenInfo":
        try:
            return await self._identity.get_token_info(*scopes, options=options)
        except ManagedIdentityUnavailable as error:
            raise _not_here(error, self._name) from None


@asynccontextmanager
async def _opened(sign_in: OperatorSignIn, settings: Settings) -> "AsyncIterator[AsyncSupportsTokenInfo]":
    from azure.core.pipeline.transport import AioHttpTransport
    from azure.identity.aio import AzureCliCredential, EnvironmentCredential, WorkloadIdentityCredential

    if sign_in is OperatorSignIn.AZURE_CLI:
        async with AzureCliCredential(process_timeout=_CLI_SECONDS) as cli:
            yield cli
        return
    async with new_http_session(connections=4) as session:
        options = {
            "transport": AioHttpTransport(session=session, session_owner=False),
            "authority": settings.entra.authority_host,
            "disable_instance_discovery": True,
            "retry_total": 0,
        }
        try:
            kind = WorkloadIdentityCredential if sign_in is OperatorSignIn.WORKLOAD_IDENTITY else EnvironmentCredential
            credential = kind(**options)
        except Exception as error:  # a certificate that can't be read, variables that are missing
            raise _FAILED[sign_in](error) from None
        async with credential:
            yield credential


def _all(environment: Mapping[str, str], *names: str) -> bool:
    return all(environment.get(name) for name in names)


def _calls(retry: RetryPolicy) -> UpstreamCalls:
    return UpstreamCalls(SIGN_IN, lambda begun: SignInUnavailable("Your own sign-in issued no token in time."), retry)


def _not_here(error: Exception, name: str | None = "") -> SignInError:
    return SignInRefused(f"The managed identity {name} issues no tokens here.").because(
        Cause(code=type(error).__name__, advice=SIGN_IN_REMEDY)
    )


def _of_cli(error: Exception) -> SignInError:
    text = str(error)  # read, never repeated: it quotes what the Azure CLI wrote
    if "Timed out" in text:
        return SignInUnavailable("The Azure CLI issued no token in time.").because(
            Cause(code=type(error).__name__, advice="Try az account get-access-token by hand.")
        )
    if "not found on path" in text:
        return SignInRefused("The Azure CLI is not installed here.").because(
            Cause(code=type(error).__name__, advice=SIGN_IN_REMEDY)
        )
    return SignInRefused("The Azure CLI issued no token.").because(
        Cause(code=_entra_code(text) or type(error).__name__, advice=_CLI_REMEDY)
    )


def _of_registration(error: Exception) -> SignInError:
    from azure.core.exceptions import ServiceRequestError, ServiceResponseError

    if isinstance(error, ServiceRequestError | ServiceResponseError | TimeoutError | OSError) and not isinstance(
        error, FileNotFoundError | PermissionError
    ):
        return SignInUnavailable("Entra ID can't be reached for a token of your own sign-in.").because(
            Cause(code=type(error).__name__, advice="Check ENTRA_AUTHORITY_HOST and the network.")
        )
    code = _entra_code(str(error))
    named = f" ({code})" if code else ""
    return SignInRefused(f"The registration that AZURE_CLIENT_ID names gets no token{named}.").because(
        Cause(code=code or type(error).__name__, advice=_REGISTRATION_REMEDY)
    )


def _entra_code(text: str) -> str | None:
    found = re.search(r"AADSTS\d{4,8}", text)
    return found.group() if found else None


RUN_IN_THE_CONTAINER = "Run this in the service's container: az containerapp exec, or the job (docs/run-a-command.md)."
SIGN_IN_REMEDY = (
    "Run this in the service's container (docs/run-a-command.md), or sign in yourself: az login, then this again."
)
_CLI_REMEDY = "Sign in with az login (with --tenant, the subscription's), then run this again."
_REGISTRATION_REMEDY = (
    "Check AZURE_TENANT_ID and AZURE_CLIENT_ID, and AZURE_CLIENT_SECRET, AZURE_CLIENT_CERTIFICATE_PATH or "
    "AZURE_FEDERATED_TOKEN_FILE, or leave them out to use the Azure CLI's sign-in."
)
_DESCRIBED = {
    OperatorSignIn.MANAGED_IDENTITY: "the managed identity",
    OperatorSignIn.WORKLOAD_IDENTITY: "your workload identity (AZURE_FEDERATED_TOKEN_FILE)",
    OperatorSignIn.ENVIRONMENT: "the registration AZURE_CLIENT_ID",
    OperatorSignIn.AZURE_CLI: "your sign-in with the Azure CLI",
}
_FAILED: Mapping[OperatorSignIn, Callable[[Exception], SignInError]] = {
    OperatorSignIn.WORKLOAD_IDENTITY: _of_registration,
    OperatorSignIn.ENVIRONMENT: _of_registration,
    OperatorSignIn.AZURE_CLI: _of_cli,
}
_CLI_SECONDS = 30
_EXPIRY_MARGIN_SECONDS = 300.0
_ONCE = RetryPolicy(attempts=1)
