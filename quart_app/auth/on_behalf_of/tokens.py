"""Access tokens for other APIs on behalf of the caller: OAuth 2.0 on-behalf-of with MSAL.

https://learn.microsoft.com/entra/identity-platform/v2-oauth2-on-behalf-of-flow

MSAL for Python is synchronous, and on this path it neither reads its token cache nor keeps users apart: its HTTP cache
answers every user with one user's 429 or 5xx, for as long as `Retry-After` says, and repeats a 400 for 60 seconds, even
after the missing consent is given. Its token cache, in turn, grows with every user and is never read. Hence:

- It runs on a bounded pool of threads, behind a bounded cache of our own and a single flight per token.
- Its two caches remember nothing. Discovery is still asked for once per tenant: each application object keeps the
  result itself.
- Its HTTP client is ours (`msal_http`): MSAL sees no error answer, and nothing unchecked of a good one.
- Whatever it raises becomes a typed error here, and the application object that raised it is replaced.

https://learn.microsoft.com/entra/msal/python
"""

import asyncio
import hashlib
import time
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, field
from typing import Any, TypeVar

import msal
from cachetools import LRUCache, TLRUCache

from quart_app.auth.caller import Caller
from quart_app.auth.on_behalf_of.credentials import ClientCredential, FederatedCredential, msal_credential
from quart_app.auth.on_behalf_of.errors import OnBehalfOfError, OnBehalfOfMisconfigured, OnBehalfOfUnavailable
from quart_app.auth.on_behalf_of.msal_http import HttpClient, KeepsNoTokens, RemembersNothing
from quart_app.clouds import ENTRA
from storage.mapping import UserKey
from upstream.calls import UpstreamCalls
from upstream.errors import Cause
from upstream.measuring import Measure, unmeasured
from upstream.retrying import RetryPolicy
from upstream.single_flight import SingleFlight

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class OnBehalfOfOptions:
    """How tokens are asked for.

    authority_host   the root of Entra ID, which differs in national clouds
    client_id        this service's app registration: the audience of the callers' tokens
    timeout          seconds for connecting, and for each silence after that; twice as long for the whole answer
    threads          how many requests run at the same time
    pending          how many may run or wait; more are refused at once with `OnBehalfOfUnavailable`
    cached_tokens    how many tokens are kept
    expiry_margin    seconds before its expiry at which a token is no longer used
    """

    authority_host: str
    client_id: str
    credential: ClientCredential
    timeout: float = 5.0
    threads: int = 16
    pending: int = 512
    cached_tokens: int = 10_000
    expiry_margin: float = 300.0


class OnBehalfOf:
    """Gets tokens and remembers them. One per process; close it with `aclose`.

    `clock` returns seconds since the epoch. Getting a token that is not remembered is one upstream call, made with
    `retry` and `measure`; `on_lookup` is called with whether it was remembered.
    """

    def __init__(
        self,
        settings: OnBehalfOfOptions,
        retry: RetryPolicy | None = None,
        *,
        clock: Callable[[], float] = time.time,
        measure: Measure = unmeasured,
        on_lookup: Callable[[bool], None] = lambda hit: None,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._calls = UpstreamCalls(ENTRA, lambda begun: OnBehalfOfUnavailable(), retry or RetryPolicy(), measure)
        self._on_lookup = on_lookup
        self._assertion = ""
        self._credential = msal_credential(settings.credential, lambda: self._assertion)
        self._http = HttpClient(settings.timeout, settings.threads, clock)
        self._threads = ThreadPoolExecutor(settings.threads, thread_name_prefix="on-behalf-of")
        self._applications: LRUCache[str, Any] = LRUCache(_TENANTS)
        self._building: SingleFlight[str, Any] = SingleFlight()
        self._tokens: TLRUCache[Hashable, _Token] = TLRUCache(
            settings.cached_tokens, ttu=lambda _key, token, _now: token.useful_until, timer=clock
        )
        self._asking: SingleFlight[Hashable, str] = SingleFlight()

    async def access_token(self, caller: Caller, scopes: tuple[str, ...]) -> str:
        """A token for `scopes` (all of one API) that acts for the caller.

        The API may revoke it at once by a claims challenge (continuous access evaluation) only if the caller's client
        understands one: nobody else could answer it.
        https://learn.microsoft.com/entra/identity-platform/claims-challenge#client-capabilities

        Kept until `expiry_margin` before its own expiry or until the caller's token expires, whichever is first.
        Raises `OnBehalfOfError`, and `ManagedIdentityError` where the managed identity is the credential.
        """

        def ask(application: Any) -> Any:
            capabilities = _CLAIMS_CHALLENGES if caller.understands_claims_challenges else None
            return application.acquire_token_on_behalf_of(caller.access_token, list(scopes), capabilities)

        key = (_digest(caller), scopes)
        return await self._token(key, caller.user.issuer, ask, useful_until=float(caller.expires_at))

    async def application_token(self, tenant_id: str, scope: str) -> str:
        """A token of this service itself, by client credentials, for operators. `scope` ends with `/.default`.

        Raises what `access_token` raises.
        """

        def ask(application: Any) -> Any:
            return application.acquire_token_for_client([scope])

        return await self._token((tenant_id, scope), tenant_id, ask)

    def forget(self, caller: Caller, scopes: tuple[str, ...]) -> None:
        """Drop the caller's token: the API refused it."""
        self._tokens.pop((_digest(caller), scopes), None)

    async def aclose(self) -> None:
        """Cancel what waits, let running requests finish (their time limit bounds them), close connections."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._asking.cancel()
        self._building.cancel()
        await asyncio.to_thread(self._threads.shutdown)
        await self._http.aclose()

    async def _token(
        self, key: Hashable, tenant_id: str, ask: Callable[[Any], Any], useful_until: float = float("inf")
    ) -> str:
        kept = self._tokens.get(key)
        self._on_lookup(kept is not None)
        if kept is not None:
            return kept.value
        if key not in self._asking and len(self._asking) >= self._settings.pending:
            raise OnBehalfOfUnavailable(_CROWDED_PAUSE)

        async def acquire() -> _Token:
            if isinstance(self._settings.credential, FederatedCredential):
                self._assertion = await self._settings.credential.assertion()
            application = await self._application(tenant_id)
            try:
                answer = await self._in_thread(lambda: ask(application))
                return _Token.of(answer, self._clock(), self._settings.expiry_margin, useful_until)
            except OnBehalfOfError:
                raise
            except Exception as error:  # whatever MSAL raises ends here; what it left behind is unknown
                self._applications.pop(tenant_id, None)
                raise OnBehalfOfUnavailable().because(Cause(code=type(error).__name__)) from None

        async def get() -> str:
            token = await self._calls.call("token", acquire)
            self._tokens[key] = token
            return token.value

        return await self._asking.do(key, get)

    async def _application(self, tenant_id: str) -> Any:
        """MSAL's application object for a tenant; making it asks for the tenant's metadata."""
        known = self._applications.get(tenant_id)
        if known is not None:
            return known

        async def build() -> Any:
            try:
                built = await self._in_thread(
                    lambda: msal.ConfidentialClientApplication(
                        self._settings.client_id,
                        client_credential=self._credential,
                        authority=f"{self._settings.authority_host.rstrip('/')}/{tenant_id}",
                        instance_discovery=False,
                        http_client=self._http,
                        http_cache=RemembersNothing(),
                        token_cache=KeepsNoTokens(),
                        exclude_scopes=["offline_access"],
                    )
                )
            except OnBehalfOfError:
                raise
            except Exception as error:
                # The answer was checked (`msal_http`), so what MSAL does not accept is what it was given.
                raise OnBehalfOfMisconfigured(
                    "MSAL does not take the authority, the tenant's issuer or the credential."
                ).because(Cause(code=type(error).__name__, advice=_MSAL_ADVICE)) from None
            self._applications[tenant_id] = built
            return built

        return await self._building.do(tenant_id, build)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, copy_context().run, work)


class CallerTokens:
    """Tokens of the caller being served, for stores that act as their user (`GraphAccessTokens`).

    `current_caller` returns the caller whose request is being served, `None` outside a request. Raises what
    `OnBehalfOf.access_token` raises, and `LookupError` for anybody but that caller.
    """

    def __init__(
        self,
        on_behalf_of: OnBehalfOf,
        scopes: tuple[str, ...],
        current_caller: Callable[[], Caller | None],
    ) -> None:
        self._on_behalf_of = on_behalf_of
        self._scopes = scopes
        self._current_caller = current_caller

    async def access_token(self, user: UserKey) -> str:
        """The token of the caller, who must be `user`."""
        return await self._on_behalf_of.access_token(self._caller(user), self._scopes)

    def refused(self, user: UserKey) -> None:
        """Forget the token of the caller, who must be `user`: the API refused it."""
        self._on_behalf_of.forget(self._caller(user), self._scopes)

    def _caller(self, user: UserKey) -> Caller:
        caller = self._current_caller()
        if caller is None or caller.user != user:
            raise LookupError("There is no token for a user other than the caller.")
        return caller


@dataclass(frozen=True, slots=True)
class ApplicationTokens:
    """App-only tokens for Microsoft Graph (`GraphApplicationTokens`). Raises what `OnBehalfOf` raises."""

    on_behalf_of: OnBehalfOf
    tenants: tuple[str, ...]
    scope: str

    async def access_token(self, tenant_id: str) -> str:
        """See `GraphApplicationTokens.access_token`."""
        return await self.on_behalf_of.application_token(tenant_id, self.scope)


_MSAL_ADVICE = "Check ENTRA_AUTHORITY_HOST, ENTRA_TENANT_ID and the client certificate."
_CLAIMS_CHALLENGES = '{"access_token":{"xms_cc":{"values":["cp1"]}}}'
_TENANTS = 100
_CROWDED_PAUSE = 1.0  # seconds


@dataclass(frozen=True, slots=True)
class _Token:
    value: str = field(repr=False)
    useful_until: float

    @classmethod
    def of(cls, answer: Any, now: float, margin: float, at_most: float) -> "_Token":
        """The token in MSAL's answer, which `msal_http` checked."""
        return cls(answer["access_token"], min(now + float(answer["expires_in"]) - margin, at_most))


def _digest(caller: Caller) -> bytes:
    return hashlib.sha256(caller.access_token.encode()).digest()
