"""Access tokens for other APIs on behalf of the caller: OAuth 2.0 on-behalf-of with MSAL.

https://learn.microsoft.com/entra/identity-platform/v2-oauth2-on-behalf-of-flow

MSAL for Python is synchronous, and on this path it neither reads its token cache nor keeps users apart: its HTTP cache
answers every user with one user's 429 or 5xx, for as long as `Retry-After` says, and repeats a 400 for 60 seconds, also
after the consent that was missing is given. Its token cache, in turn, grows with every user and is never read. Hence:

- It runs on a bounded pool of threads, behind a bounded cache of our own and a single flight per token.
- Its two caches remember nothing. Discovery is still asked for once per tenant: each application object keeps the
  result itself.
- Its HTTP client is ours: no redirects, which would carry the credential along, no retries, a time limit, no cookies;
  and 429, 5xx and lost connections are typed errors before MSAL sees them.

Nothing is retried here; that is `storage.retrying`'s. https://learn.microsoft.com/entra/msal/python
"""

import asyncio
import hashlib
import re
import time
from collections.abc import Awaitable, Callable, Hashable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.cookiejar import DefaultCookiePolicy
from pathlib import Path
from typing import Any, Generic, TypeVar

import msal
import requests
from cachetools import LRUCache, TLRUCache

from quart_app.auth.caller import Caller
from quart_app.auth.on_behalf_of_errors import (
    AssertionRefused,
    ClaimsChallengeRequired,
    ConsentRequired,
    OnBehalfOfCredentialsRejected,
    OnBehalfOfError,
    OnBehalfOfMisconfigured,
    OnBehalfOfThrottled,
    OnBehalfOfUnavailable,
    named,
)
from storage.mapping import UserKey
from storage.measured import Measure, unmeasured
from storage.retrying import RetryPolicy

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ClientSecret:
    """The app registration's secret."""

    value: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """A PEM file with the private key and the certificate that the app registration holds."""

    path: Path


@dataclass(frozen=True, slots=True)
class FederatedCredential:
    """No secret at all: `assertion` returns a token that the app registration trusts (`managed_identity_assertion`).

    It is called in a worker thread, once per token request.
    """

    assertion: Callable[[], str]


@dataclass(frozen=True, slots=True)
class OnBehalfOfSettings:
    """How tokens are asked for.

    authority_host   the root of Entra ID, which differs in national clouds
    client_id        this service's app registration: the audience of the callers' tokens
    timeout          seconds for connecting, and for each silence after that
    threads          how many requests run at the same time
    pending          how many may run or wait; more are refused at once with `OnBehalfOfUnavailable`
    cached_tokens    how many tokens are kept
    expiry_margin    seconds before its expiry at which a token is no longer used
    """

    authority_host: str
    client_id: str
    credential: ClientSecret | ClientCertificate | FederatedCredential
    timeout: float = 5.0
    threads: int = 16
    pending: int = 512
    cached_tokens: int = 10_000
    expiry_margin: float = 300.0


class OnBehalfOf:
    """Gets tokens and remembers them. One per process; close it with `aclose`.

    `clock` returns seconds since the epoch. Each request to Entra ID is made inside `measure`; `looked_up` is told each
    time whether a token was there already. Raises `OnBehalfOfMisconfigured` for a certificate that can't be used.
    """

    def __init__(
        self,
        settings: OnBehalfOfSettings,
        *,
        clock: Callable[[], float] = time.time,
        measure: Measure = unmeasured,
        looked_up: Callable[[bool], None] = lambda hit: None,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._measure = measure
        self._looked_up = looked_up
        self._credential = _msal_credential(settings.credential)
        self._http = _HttpClient(settings.timeout, settings.threads)
        self._threads = ThreadPoolExecutor(settings.threads, thread_name_prefix="on-behalf-of")
        self._applications: LRUCache[str, Any] = LRUCache(_TENANTS)
        self._building: _SingleFlight[Any] = _SingleFlight()
        self._tokens: TLRUCache[Hashable, _Token] = TLRUCache(
            settings.cached_tokens, ttu=lambda _key, token, _now: token.useful_until, timer=clock
        )
        self._asking: _SingleFlight[str] = _SingleFlight()

    async def access_token(self, caller: Caller, scopes: tuple[str, ...]) -> str:
        """A token for `scopes` (all of one API) that acts for the caller.

        The API may revoke it at once by a claims challenge (continuous access evaluation) only if the caller's client
        understands one: nobody else could answer it.
        https://learn.microsoft.com/entra/identity-platform/claims-challenge#client-capabilities

        Kept until `expiry_margin` before its own expiry or until the caller's token expires, whichever is first.
        Raises `ClaimsChallengeRequired`, `ConsentRequired`, `AssertionRefused`, `OnBehalfOfCredentialsRejected`,
        `OnBehalfOfMisconfigured`, `OnBehalfOfThrottled`, `OnBehalfOfUnavailable`.
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
        """End what waits, let running requests finish (they are bounded by their time limit), close connections."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._asking.cancel()
        self._building.cancel()
        await asyncio.to_thread(self._threads.shutdown)
        self._http.close()

    async def _token(
        self, key: Hashable, tenant_id: str, ask: Callable[[Any], Any], useful_until: float = float("inf")
    ) -> str:
        kept = self._tokens.get(key)
        self._looked_up(kept is not None)
        if kept is not None:
            return kept.value
        if key not in self._asking and len(self._asking) >= self._settings.pending:
            raise OnBehalfOfUnavailable(_CROWDED_PAUSE)

        async def acquire() -> str:
            with self._measure("token"):
                application = await self._application(tenant_id)
                answer = await self._in_thread(lambda: ask(application))
                now = self._clock()
                token = _Token.of(answer, now, self._settings.expiry_margin, useful_until)
            self._tokens[key] = token
            return token.value

        return await self._asking.do(key, acquire)

    async def _application(self, tenant_id: str) -> Any:
        """MSAL's application object for a tenant; making it asks for the tenant's metadata."""
        known = self._applications.get(tenant_id)
        if known is not None:
            return known

        async def build() -> Any:
            built = await self._in_thread(
                lambda: msal.ConfidentialClientApplication(
                    self._settings.client_id,
                    client_credential=self._credential,
                    authority=f"{self._settings.authority_host.rstrip('/')}/{tenant_id}",
                    instance_discovery=False,
                    http_client=self._http,
                    http_cache=_RemembersNothing(),
                    token_cache=_KeepsNoTokens(),
                    exclude_scopes=["offline_access"],
                )
            )
            self._applications[tenant_id] = built
            return built

        return await self._building.do(tenant_id, build)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except ValueError as error:
            # MSAL's way to say that an answer of Entra ID, or the authority's address, makes no sense to it.
            raise OnBehalfOfMisconfigured(
                "Entra ID's answer could not be understood. Check the authority host and the tenant."
            ) from error


class CallerTokens:
    """Tokens of whoever is being served, for stores that act as their user (`GraphAccessTokens`).

    `current_caller` returns the caller whose request is being served, `None` outside of one. `retry` repeats what Entra
    ID throttled or failed to answer. Raises what `OnBehalfOf.access_token` raises, and `LookupError` for anybody but
    that caller.
    """

    def __init__(
        self,
        on_behalf_of: OnBehalfOf,
        scopes: tuple[str, ...],
        current_caller: Callable[[], Caller | None],
        retry: RetryPolicy,
    ) -> None:
        self._on_behalf_of = on_behalf_of
        self._scopes = scopes
        self._current_caller = current_caller
        self._retry = retry

    async def access_token(self, user: UserKey) -> str:
        """The token of the caller, who must be `user`."""
        caller = self._caller(user)
        return await self._retry.call(
            lambda: self._on_behalf_of.access_token(caller, self._scopes),
            lambda error: isinstance(error, OnBehalfOfThrottled | OnBehalfOfUnavailable),
        )

    def refused(self, user: UserKey) -> None:
        """Forget the token of the caller, who must be `user`: the API refused it."""
        self._on_behalf_of.forget(self._caller(user), self._scopes)

    def _caller(self, user: UserKey) -> Caller:
        caller = self._current_caller()
        if caller is None or caller.user != user:
            raise LookupError("There is no token for a user other than the caller.")
        return caller


def managed_identity_assertion(
    client_id: str, *, audience: str = "api://AzureADTokenExchange", timeout: float = 5.0
) -> Callable[[], str]:
    """Assertions from the user-assigned managed identity `client_id`, for `FederatedCredential`.

    The app registration must trust it as a federated credential; `audience` differs in national clouds
    (https://learn.microsoft.com/entra/workload-id/workload-identity-federation-config-app-trust-managed-identity).
    MSAL keeps the identity's token until shortly before it expires. `timeout` is in seconds. What is returned raises
    `OnBehalfOfCredentialsRejected`, `OnBehalfOfThrottled`, `OnBehalfOfUnavailable`.
    """
    client = msal.ManagedIdentityClient(
        msal.UserAssignedManagedIdentity(client_id=client_id),
        http_client=_HttpClient(timeout, connections=1, keep_alive=False),  # nobody closes it, and it is rarely used
        http_cache=_RemembersNothing(),
    )

    def assertion() -> str:
        answer = client.acquire_token_for_client(resource=audience)
        if "access_token" not in answer:
            raise OnBehalfOfCredentialsRejected
        return str(answer["access_token"])

    return assertion


_CLAIMS_CHALLENGES = '{"access_token":{"xms_cc":{"values":["cp1"]}}}'
_TENANTS = 100
_CROWDED_PAUSE = 1.0  # seconds


@dataclass(frozen=True, slots=True)
class _Token:
    value: str = field(repr=False)
    useful_until: float

    @classmethod
    def of(cls, answer: Any, now: float, margin: float, at_most: float) -> "_Token":
        """The token of MSAL's answer; raises what else the answer means."""
        if not isinstance(answer, dict):
            raise OnBehalfOfUnavailable
        if "access_token" not in answer:
            raise _refusal(answer)
        return cls(str(answer["access_token"]), min(now + float(answer.get("expires_in", 0)) - margin, at_most))


def _refusal(answer: Mapping[str, Any]) -> OnBehalfOfError:
    # https://learn.microsoft.com/entra/identity-platform/reference-error-codes
    codes = tuple(code for code in answer.get("error_codes") or () if isinstance(code, int))
    error, claims = answer.get("error"), answer.get("claims")
    if isinstance(claims, str) and claims:
        return ClaimsChallengeRequired(claims)
    if 65001 in codes or "consent_required" in (error, answer.get("suberror")):
        return ConsentRequired()
    if error in ("invalid_client", "unauthorized_client"):
        return OnBehalfOfCredentialsRejected(codes)
    if error in ("invalid_grant", "interaction_required", "login_required"):
        return AssertionRefused(codes)
    if error in ("temporarily_unavailable", "server_error"):
        return OnBehalfOfUnavailable()
    return OnBehalfOfMisconfigured(
        f"Entra ID refused the request{named(codes)}. Check the app registration and the permissions it asks for."
    )


def _digest(caller: Caller) -> bytes:
    return hashlib.sha256(caller.access_token.encode()).digest()


def _msal_credential(credential: ClientSecret | ClientCertificate | FederatedCredential) -> Any:
    match credential:
        case ClientSecret(value):
            return value
        case FederatedCredential(assertion):
            return {"client_assertion": assertion}
        case ClientCertificate(path):
            try:
                text = path.read_text(encoding="ascii")
            except (OSError, UnicodeDecodeError) as error:
                raise OnBehalfOfMisconfigured("The client certificate's PEM file can't be read.") from error
            key = re.search(r"-----BEGIN ([A-Z ]*PRIVATE KEY)-----.+?-----END \1-----", text, re.DOTALL)
            certificates = re.findall(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", text, re.DOTALL)
            if key is None or not certificates:
                raise OnBehalfOfMisconfigured(
                    "The client certificate's file must hold an unencrypted private key and a certificate, as PEM."
                )
            return {"private_key": key[0], "public_certificate": "\n".join(certificates)}


class _HttpClient:
    """What MSAL sends its requests with."""

    def __init__(self, timeout: float, connections: int, *, keep_alive: bool = True) -> None:
        self._timeout = timeout
        self._session = requests.Session()
        if not keep_alive:
            self._session.headers["Connection"] = "close"
        self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        self._adapter = requests.adapters.HTTPAdapter(pool_maxsize=connections, max_retries=0)
        self._session.mount("https://", self._adapter)
        self._session.mount("http://", self._adapter)  # a managed identity's endpoint is local and plain

    def get(self, url: str, **parameters: Any) -> requests.Response:
        return self._request("GET", url, **parameters)

    def post(self, url: str, **parameters: Any) -> requests.Response:
        return self._request("POST", url, **parameters)

    def close(self) -> None:
        # requests leaves closing to the garbage collector, and a kept exception can hold that up.
        for manager in (self._adapter.poolmanager, *self._adapter.proxy_manager.values()):
            for key in manager.pools.keys():  # noqa: SIM118  # it can't be iterated itself
                manager.pools[key].close()
        self._session.close()

    def _request(
        self, method: str, url: str, params: Any = None, data: Any = None, headers: Any = None, **_: Any
    ) -> requests.Response:
        try:
            response = self._session.request(
                method,
                url,
                params=params,
                data=data,
                headers=headers,
                timeout=self._timeout,
                allow_redirects=False,
            )
        except requests.RequestException as error:
            raise OnBehalfOfUnavailable from error
        if response.status_code == 429:
            raise OnBehalfOfThrottled(_seconds(response))
        if response.status_code == 408 or response.status_code >= 500:
            raise OnBehalfOfUnavailable(_seconds(response))
        return response


def _seconds(response: requests.Response) -> float | None:
    text = response.headers.get("Retry-After", "")
    return float(text) if re.fullmatch(r"[0-9]{1,9}", text) else None


class _RemembersNothing(dict[str, Any]):
    """MSAL's `http_cache`, whose keys don't tell users apart."""

    def __setitem__(self, key: str, value: Any) -> None:
        pass


class _KeepsNoTokens(msal.TokenCache):  # type: ignore[misc]
    """MSAL's `token_cache`, which on-behalf-of fills and never reads."""

    def add(self, event: Any, now: Any = None) -> None:
        pass


class _SingleFlight(Generic[T]):
    """One piece of work per key at a time; whoever asks meanwhile gets the same result or error.

    The work goes on when those who asked are cancelled.
    """

    def __init__(self) -> None:
        self._tasks: dict[Hashable, asyncio.Task[T]] = {}

    def __len__(self) -> int:
        return len(self._tasks)

    def __contains__(self, key: Hashable) -> bool:
        return key in self._tasks

    async def do(self, key: Hashable, work: Callable[[], Awaitable[T]]) -> T:
        task = self._tasks.get(key)
        if task is None:

            async def run() -> T:
                return await work()

            task = self._tasks[key] = asyncio.create_task(run())
            task.add_done_callback(lambda done: self._land(key, done))
        return await asyncio.shield(task)

    def cancel(self) -> None:
        for task in self._tasks.values():
            task.cancel()

    def _land(self, key: Hashable, done: asyncio.Task[T]) -> None:
        del self._tasks[key]
        if not done.cancelled():
            done.exception()  # Seen, also when nobody waits any more.
