"""Asks every upstream as the service would, and says what is wrong and what to do about it."""

import asyncio
import os
import ssl
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
from tenacity.wait import wait_random_exponential

from quart_app.acs.absence import FOREIGN_IDENTITY
from quart_app.acs.interface import AcsCredentialsRejected, AcsThrottled, IdentityNotOwned, UnexpectedAnswer
from quart_app.acs.opening import acs_endpoint
from quart_app.acs.retirement import CHAT_RETIRES, WHAT_TO_DO, concerns_chat
from quart_app.auth.caller import acting_for
from quart_app.auth.doors import Door, doors
from quart_app.auth.on_behalf_of.errors import AssertionRefused, ConsentRequired, OnBehalfOfError
from quart_app.auth.on_behalf_of.refusals import CODES
from quart_app.auth.signing_keys import RefreshSchedule, SigningKeys, SigningKeysUnavailable
from quart_app.auth.token_explanation import ClaimVerdict, explain
from quart_app.clouds import token_exchange_audience
from quart_app.credentials import (
    AzureCredential,
    ManagedIdentityError,
    acs_asks_identity,
    store_asks_identity,
    uses_managed_identity,
)
from quart_app.operations.sign_in import (
    OperatorSignIn,
    SignInError,
    SignInRefused,
    chosen,
    graph_refusal,
    open_sign_in,
)
from quart_app.operations.upstreams import (
    open_operator_acs,
    open_operator_store,
    open_operator_store_with_warnings,
)
from quart_app.settings import ClientCertificate, DoorName, Settings, StorageBackend
from quart_app.stores import open_mapping_store
from storage.mapping import STORE, MappingStore, StoreMisconfigured, UserKey
from upstream.errors import Throttled, UpstreamError
from upstream.http_session import new_http_session
from upstream.retrying import RetryPolicy

REFUSED_SKEW = 300.0
"""ACS refuses requests that are signed with a clock so many seconds off."""

NOTICED_SKEW = 60.0
"""The leeway, in seconds, with which the service looks at the times in tokens."""


class FindingState(StrEnum):
    """How a check ended. `skipped` was not done, and the message says why."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found; neither text holds a secret or a user's id. `remedy` is for what is not in order."""

    check: str
    state: FindingState
    message: str
    remedy: str | None = None


@dataclass(frozen=True, slots=True)
class DiagnosisOptions:
    """What to do.

    write       also create and delete a temporary identity and mapping
    user_token  a user's access token for this API, to be judged; with the Graph store it is tried there as well
    clock       seconds since the epoch
    patience    seconds after which a check ends unfinished
    """

    write: bool = False
    user_token: str | None = None
    clock: Callable[[], float] = time.time
    patience: float = 20.0


async def diagnose(settings: Settings, options: DiagnosisOptions) -> list[Finding]:
    """All findings, in the order of the checks; they run at the same time. Raises nothing for what is not in order."""
    async with new_http_session(connections=16, unpack=True) as session:
        diagnosis = _Diagnosis(settings, options, session)
        groups = await asyncio.gather(*(diagnosis.run(name, check) for name, check in diagnosis.checks()))
    return [finding for group in groups for finding in group]


_RETRY = RetryPolicy(attempts=2, back_off=wait_random_exponential(multiplier=0.1, max=0.5))
_Check = Callable[[], Awaitable[list[Finding]]]


class _Diagnosis:
    def __init__(self, settings: Settings, options: DiagnosisOptions, session: aiohttp.ClientSession) -> None:
        self._settings = settings
        self._options = options
        self._session = session
        self._sign_in: OperatorSignIn | None = None
        self._no_sign_in: SignInError | None = None
        try:
            self._sign_in = chosen(os.environ)
        except SignInRefused as error:
            self._no_sign_in = error

    def checks(self) -> Iterable[tuple[str, _Check]]:
        for setting, url in self._upstreams():
            yield f"connection to {urlsplit(url).netloc}", partial(self._connection, setting, url)
        for door in doors(self._settings):
            for issuer, urls in _by_issuer(door, self._settings.entra.tenants).items():
                yield f"signing keys of {issuer}", partial(self._signing_keys, urls, door)
        if DoorName.ENTRA in self._settings.doors:
            yield "Entra ID credential", self._credential
        if uses_managed_identity(self._settings):
            yield f"managed identity {self._settings.entra.managed_identity_client_id}", self._identity
            if self._sign_in not in (None, OperatorSignIn.MANAGED_IDENTITY) and any(self._scopes_of_identity()):
                yield "your own sign-in", self._own_sign_in
        if self._options.user_token is not None:
            yield "access token", partial(self._access_token, self._options.user_token)
        yield "ACS", self._acs
        if concerns_chat(self._settings.issued_scopes):
            yield "ACS retirement", self._retirement
        yield f"mapping store ({self._settings.storage.backend})", self._store
        if self._settings.storage.backend is StorageBackend.GRAPH:
            yield "Microsoft Graph as the application", self._graph_application
            yield "Microsoft Graph on behalf of a user", self._graph_user

    async def run(self, name: str, check: _Check) -> list[Finding]:
        try:
            async with asyncio.timeout(self._options.patience):
                found = await check()
        except TimeoutError:
            found = [_failed(f"No answer within {self._options.patience:g} s.", "Check network and firewall.")]
        return [Finding(name, finding.state, finding.message, finding.remedy) for finding in found]

    def _upstreams(self) -> Iterable[tuple[str, str]]:
        settings = self._settings
        if DoorName.ENTRA in settings.doors:
            yield "ENTRA_AUTHORITY_HOST", settings.entra.authority_host
        if settings.oidc.issuer is not None:
            yield "OIDC_ISSUER", settings.oidc.issuer
        yield acs_endpoint(settings.acs)
        if settings.storage.backend is StorageBackend.COSMOS:
            yield "COSMOS_ENDPOINT", str(settings.cosmos.endpoint)
        if settings.storage.backend is StorageBackend.GRAPH:
            yield "GRAPH_BASE_URL", settings.graph.base_url

    async def _connection(self, setting: str, url: str) -> list[Finding]:
        """Name, port, certificate, and the difference between the clocks."""
        clock = self._options.clock
        before = clock()
        try:
            async with self._session.get(url, allow_redirects=False) as answer:
                date = answer.headers.get("Date", "")
        except (aiohttp.ClientConnectorCertificateError, aiohttp.ClientConnectorSSLError) as error:
            return [_failed(f"Its certificate is not trusted: {_certificate_fault(error)}.", _CERTIFICATE_REMEDY)]
        except aiohttp.ClientConnectorDNSError:
            return [_failed("Its name can't be resolved.", f"Check {setting}, and this machine's name resolution.")]
        except (aiohttp.ClientError, OSError) as error:
            reason = type(getattr(error, "os_error", error)).__name__
            return [_failed(f"It can't be reached ({reason}).", f"Check {setting}, network, firewall and proxy.")]
        try:
            theirs = parsedate_to_datetime(date).timestamp()
        except ValueError:
            return [Finding("", FindingState.OK, "Reachable, certificate trusted; its answer has no date.")]
        skew = (before + clock()) / 2 - theirs
        if abs(skew) <= NOTICED_SKEW:
            return [Finding("", FindingState.OK, "Reachable, certificate trusted, clocks agree.")]
        word = "ahead" if skew > 0 else "behind"
        message = f"This machine's clock is {abs(skew):.0f} s {word} of it."
        state = FindingState.FAILED if abs(skew) > REFUSED_SKEW else FindingState.WARNING
        remedy = "Synchronise this machine's clock (NTP): tokens and signatures depend on it."
        return [Finding("", state, message, remedy)]

    async def _signing_keys(self, urls: tuple[str, ...], door: Door) -> list[Finding]:
        found = []
        for url in urls:
            keys = SigningKeys(self._session, [url], RefreshSchedule(), issuer=door.issuer)
            try:
                await keys.check()
            except SigningKeysUnavailable:
                fault = keys.faults().get(url, "")
                found.append(await self._why_no_keys(url, fault, is_entra=door.name is DoorName.ENTRA))
            finally:
                await keys.aclose()
        return _once(found) or [Finding("", FindingState.OK, "Fetched.")]

    async def _why_no_keys(self, url: str, fault: str, *, is_entra: bool) -> Finding:
        setting = "ENTRA_AUTHORITY_HOST" if is_entra else "OIDC_ISSUER and OIDC_DISCOVERY_URL"
        try:
            async with self._session.get(url, allow_redirects=False) as answer:
                status = answer.status
        except (aiohttp.ClientError, OSError) as error:
            return _failed(
                f"The issuer can't be reached ({type(error).__name__}).", f"Check {setting} and the network."
            )
        if status == 429 or status >= 500:
            return _failed(f"The issuer answers {status}: it is busy or in trouble, which usually passes.", _AGAIN)
        if is_entra and status == 400:
            return _failed("Entra ID does not know this tenant.", CODES[90002].advice)
        return _failed(
            f"The issuer's metadata or keys can't be used (status {status}). {fault}",
            f"Check {setting}: the document must name the issuer exactly, and keys of RS256.",
        )

    async def _access_token(self, token: str) -> list[Finding]:
        """The token, judged by the service's own rules: whatever it breaks, with the remedy."""
        explanation = await explain(self._settings, token, self._session)
        if explanation.accepted:
            return [Finding("", FindingState.OK, "The service accepts it.")]
        return [
            Finding(
                "",
                FindingState.FAILED if judged.verdict is ClaimVerdict.REFUSED else FindingState.WARNING,
                f"{judged.member}: found {judged.found}; expected {judged.expected}.",
                judged.remedy,
            )
            for judged in explanation.judged
            if judged.verdict is not ClaimVerdict.OK
        ]

    async def _credential(self) -> list[Finding]:
        """Ask for a token of the application itself: it needs no permission, so only the credential is judged."""
        entra, graph = self._settings.entra, self._settings.graph
        # A managed identity may be there only for ACS or Cosmos DB; it is a credential here only with the Graph store.
        by_identity = self._settings.storage.backend is StorageBackend.GRAPH
        if not (entra.client_secret or entra.client_certificate_path or by_identity):
            return [_skipped("None is set, and this store does not need one.")]
        certificate = _certificate(entra.client_certificate, self._options.clock)
        from quart_app.auth.on_behalf_of.credentials import client_credential
        from quart_app.auth.on_behalf_of.tokens import OnBehalfOf, OnBehalfOfOptions

        found = []
        async with AsyncExitStack() as stack:
            identity: AzureCredential | None = None
            if not (entra.client_secret or entra.client_certificate_path):
                if self._sign_in is None or (refusal := graph_refusal(self._sign_in)) is not None:
                    return [_skipped(_NO_IDENTITY if self._sign_in is None else f"{refusal} {RUN_THERE}")]
                identity = await stack.enter_async_context(open_sign_in(self._settings, _RETRY))
            options = OnBehalfOfOptions(entra.authority_host, entra.client_id, client_credential(entra, identity))
            on_behalf_of = OnBehalfOf(options, _RETRY)
            stack.push_async_callback(on_behalf_of.aclose)
            for tenant in entra.tenants:
                try:
                    await on_behalf_of.application_token(tenant, f"{graph.base_url}/.default")
                except (ManagedIdentityError, SignInError):
                    found.append(_skipped(_NO_IDENTITY))
                except OnBehalfOfError as error:
                    found.append(_entra_fault(error))
        return _once(found) or [certificate or Finding("", FindingState.OK, "Entra ID accepts it.")]

    async def _identity(self) -> list[Finding]:
        """The service's identity; outside its container, the operator's own sign-in takes its place."""
        if self._no_sign_in is not None:
            return [_told(self._no_sign_in)]
        if self._sign_in is OperatorSignIn.MANAGED_IDENTITY:
            return await self._tokens("The platform issues its tokens.")
        return [
            Finding(
                "",
                FindingState.SKIPPED,
                f"It was not asked: this run uses {self._who()}. Only a run in its container "
                "shows whether the service's own roles suffice.",
                RUN_THERE,
            )
        ]

    async def _own_sign_in(self) -> list[Finding]:
        return await self._tokens(f"Tokens come from {self._who()}.")

    async def _tokens(self, message: str) -> list[Finding]:
        """Ask for a token for each service that the identity is used for, as their clients would."""
        try:
            async with open_sign_in(self._settings, _RETRY) as credential:
                for scope in self._scopes_of_identity():
                    await credential.token(scope)
        except (ManagedIdentityError, SignInError) as error:
            return [_told(error)]
        return [Finding("", FindingState.OK, message)]

    def _who(self) -> str:
        """Whose roles count in this run."""
        if self._sign_in in (None, OperatorSignIn.MANAGED_IDENTITY):
            return f"the managed identity {self._settings.entra.managed_identity_client_id}"
        return self._sign_in.described

    def _scopes_of_identity(self) -> Iterable[str]:
        settings = self._settings
        if acs_asks_identity(settings):
            yield "https://communication.azure.com//.default"  # as its SDK writes it
        if not store_asks_identity(settings, settings.storage.backend):
            return
        if settings.storage.backend is StorageBackend.COSMOS:
            yield f"https://{urlsplit(str(settings.cosmos.endpoint)).hostname}/.default"
        elif self._sign_in is OperatorSignIn.MANAGED_IDENTITY:
            yield f"{token_exchange_audience(settings.entra.authority_host)}/.default"

    async def _acs(self) -> list[Finding]:
        if self._no_sign_in is not None and acs_asks_identity(self._settings):
            return [_skipped(_NO_IDENTITY)]
        try:
            async with open_operator_acs(self._settings, _RETRY, canaries=self._options.write) as acs:
                try:
                    # No other read-only call proves the credential: ACS Identity has no operation that reads.
                    await acs.issue_token(FOREIGN_IDENTITY)
                except IdentityNotOwned:
                    pass
                else:
                    return [_failed("It issued a token for an identity of no resource.", "Is this really ACS?")]
                if not self._options.write:
                    message = "Reachable, credential accepted. With --write, an identity is created as well."
                    return [Finding("", FindingState.OK, message)]
                await acs.prove()
        except UpstreamError as error:
            return [self._acs_fault(error)]
        return [Finding("", FindingState.OK, "Reachable, credential accepted; an identity was created and deleted.")]

    async def _retirement(self) -> list[Finding]:
        return [Finding("", FindingState.WARNING, CHAT_RETIRES, WHAT_TO_DO)]

    async def _store(self) -> list[Finding]:
        backend = self._settings.storage.backend
        if backend is StorageBackend.SQLITE and not self._options.write:
            missing = await asyncio.to_thread(_missing_file, self._settings.sqlite.path)
            if missing is not None:
                return [missing]
        try:
            async with open_operator_store_with_warnings(self._settings, backend, _RETRY) as (store, warnings):
                await store.ping()
                found = [Finding("", FindingState.WARNING, *_split(text)) for text in warnings]
                return [await self._written(store, backend), *found]
        except UpstreamError as error:
            return [self._store_fault(error)]

    async def _written(self, store: MappingStore, backend: StorageBackend) -> Finding:
        if backend is StorageBackend.GRAPH:
            return Finding("", FindingState.OK, "Reachable.")
        if not self._options.write:
            return Finding("", FindingState.OK, "It answers reads. With --write, a mapping is created as well.")
        user = UserKey("acs-auth-doctor", str(uuid.uuid4()))
        mapping = await store.create(user, FOREIGN_IDENTITY)
        await store.remove(await store.change(mapping, deleting=True))
        return Finding("", FindingState.OK, "It answers reads; a mapping was created, changed and deleted.")

    async def _graph_application(self) -> list[Finding]:
        """List one page of users: what `migrate`, `export`, `delete` and `reconcile` need and the service does not."""
        try:
            async with open_operator_store(self._settings, StorageBackend.GRAPH, _RETRY) as store:
                await anext(store.mappings(), None)
        except StoreMisconfigured as error:
            return [Finding("", FindingState.WARNING, *_split(str(error)))]
        except UpstreamError:
            return [_skipped("No answer to judge; see the other findings.")]
        return [Finding("", FindingState.OK, "The application may read users; the operator's commands work.")]

    async def _graph_user(self) -> list[Finding]:
        token = self._options.user_token
        if token is None:
            advice = "Only a user's token shows consent: acs-auth token | acs-auth doctor --user-token -"
            return [_skipped(advice)]
        caller = (await explain(self._settings, token, self._session)).caller
        if caller is None:
            return [_skipped("The service does not accept the token: see the finding about it.")]
        try:
            with acting_for(caller):
                async with open_mapping_store(self._settings, _RETRY) as store:
                    await store.get(caller.user)
        except ConsentRequired:
            return [_failed("Nobody has consented to the service acting for this user.", _CONSENT_REMEDY)]
        except AssertionRefused as error:
            return [_failed(str(error), _TOKEN_REMEDY)]
        except UpstreamError as error:
            return [self._store_fault(error)]
        return [Finding("", FindingState.OK, "The service may act for the user.")]

    def _store_fault(self, error: UpstreamError) -> Finding:
        refused = error.cause is not None and error.cause.status in (401, 403)
        if isinstance(error, StoreMisconfigured) and error.upstream == STORE and refused:
            cosmos = self._settings.cosmos
            if self._settings.storage.backend is StorageBackend.COSMOS and cosmos.key is None:
                place = f"the container {cosmos.database}/{cosmos.container} of {cosmos.endpoint}"
                return _failed(
                    f"Cosmos DB refused {self._who()} ({error.cause.code if error.cause else None}).",
                    f"Give it the role 'Cosmos DB Built-in Data Contributor' on {place}: az cosmosdb sql role "
                    f"assignment create. {_SPREADING} Check the account's network rules, too.",
                )
        return _store_fault(error)

    def _acs_fault(self, error: UpstreamError) -> Finding:
        if isinstance(error, AcsCredentialsRejected) and acs_asks_identity(self._settings):
            _, endpoint = acs_endpoint(self._settings.acs)
            return _failed(
                f"ACS refused {self._who()}.",
                f"Give it the role 'Communication and Email Service Owner' on the ACS resource {endpoint}: az role "
                f"assignment create. {_SPREADING}",
            )
        return _acs_fault(error)


_NOT_ACS = "Check that the endpoint in ACS_CONNECTION_STRING or ACS_ENDPOINT is an ACS resource."
_NO_IDENTITY = "There is no token to ask it with: see the finding about the managed identity or your own sign-in."
RUN_THERE = "Run acs-auth doctor in the service's container, too (docs/run-a-command.md)."
_SPREADING = "A role that was assigned in the last ten minutes may still be spreading."
_AGAIN = "Wait a minute and run this again."
_THROTTLED = f"{_AGAIN} If it lasts, ask Azure's support for a higher limit."
_CERTIFICATE_REMEDY = (
    "Check the address. Behind a proxy that inspects TLS, or with a private certificate authority, let SSL_CERT_FILE "
    "and REQUESTS_CA_BUNDLE name a file with its certificate."
)
_CONSENT_REMEDY = (
    "Grant the API's app registration the delegated Microsoft Graph permission User.ReadWrite and consent to it as an "
    "administrator, and list the client application in its knownClientApplications."
)
_TOKEN_REMEDY = "Get a fresh one for this API: acs-auth token"  # noqa: S105


def _by_issuer(door: Door, tenants: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """The discovery documents of each tenant, or of the one issuer that is not Entra ID."""
    if door.issuer is not None:
        return {door.issuer: door.discovery_urls}
    return {tenant: tuple(url for url in door.discovery_urls if f"/{tenant}/" in url) for tenant in tenants}


def _failed(message: str, remedy: str) -> Finding:
    return Finding("", FindingState.FAILED, message, remedy)


def _skipped(message: str) -> Finding:
    return Finding("", FindingState.SKIPPED, message)


def _once(found: list[Finding]) -> list[Finding]:
    return list(dict.fromkeys(found))


def _split(text: str) -> tuple[str, str | None]:
    """What is wrong and the remedy: the errors of the stores say both, in this order."""
    fault, stop, remedy = text.partition(". ")
    return (f"{fault}.", remedy) if stop else (text, None)


def _from_text(text: str) -> Finding:
    return Finding("", FindingState.FAILED, *_split(text))


def _told(error: UpstreamError) -> Finding:
    if isinstance(error, Throttled):
        return _failed(str(error), _AGAIN)
    return _failed(str(error), (error.cause and error.cause.advice) or _AGAIN)


def _store_fault(error: UpstreamError) -> Finding:
    if isinstance(error, ManagedIdentityError | SignInError):
        return _skipped(_NO_IDENTITY)
    if isinstance(error, OnBehalfOfError):
        return _entra_fault(error)
    if isinstance(error, StoreMisconfigured):
        return _from_text(str(error))
    details = " ".join(getattr(error, "__notes__", ()))
    advice = error.cause.advice if error.cause else None
    return _failed(f"{error} {details}".strip(), advice or "Check its address, the network and the store's own health.")


def _entra_fault(error: OnBehalfOfError) -> Finding:
    advice = error.cause.advice if error.cause else None
    if advice:
        return _failed(str(error), advice)
    if isinstance(error, Throttled):
        return _failed(str(error), _AGAIN)
    fault, remedy = _split(str(error))
    return _failed(fault, remedy or "Check ENTRA_AUTHORITY_HOST and the network.")


def _acs_fault(error: UpstreamError) -> Finding:
    if isinstance(error, ManagedIdentityError | SignInError):
        return _skipped(_NO_IDENTITY)
    if isinstance(error, AcsThrottled):
        return _failed("ACS answers, and is throttling requests (429).", _THROTTLED)
    advice = error.cause.advice if error.cause else None
    if isinstance(error, UnexpectedAnswer):
        message, advice = f"It gave an unexpected answer (status {error.status}).", _NOT_ACS
    else:
        message = str(error)
    return _failed(message, advice or "Check the ACS endpoint, the network and the resource's health.")


def _missing_file(path: Path) -> Finding | None:
    """Whether the SQLite file could be made, if it is not there."""
    if path.exists():
        return None
    directory = path.absolute().parent
    if directory.is_dir() and os.access(directory, os.W_OK | os.X_OK):
        return Finding("", FindingState.OK, "The file does not exist yet; the service creates it.")
    return _failed(
        f"The SQLite file {path} can't be made.",
        "Create its directory and let this process write there, or set SQLITE_PATH.",
    )


def _certificate(certificate: ClientCertificate | None, clock: Callable[[], float]) -> Finding | None:
    """That the client certificate expires soon, if so; one that has expired is refused with the settings."""
    if certificate is None or not certificate.expires_soon(datetime.fromtimestamp(clock(), UTC)):
        return None
    return Finding(
        "",
        FindingState.WARNING,
        f"Accepted, but the client certificate expires on {certificate.ends:%Y-%m-%d}.",
        "Create a new certificate, upload its public part under 'Certificates & secrets' of the API's app "
        "registration, and name it in ENTRA_CLIENT_CERTIFICATE_PATH.",
    )


def _certificate_fault(error: aiohttp.ClientConnectorError | aiohttp.ClientConnectorCertificateError) -> str:
    cause = getattr(error, "certificate_error", None) or getattr(error, "os_error", None)
    return str(getattr(cause, "verify_message", "") or type(cause or ssl.SSLError()).__name__)
