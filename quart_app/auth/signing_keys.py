"""The issuers' public signing keys: discovered, cached, refreshed in the background; no token says where from."""

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar
from urllib.parse import urlsplit

import aiohttp
import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from quart_app.clouds import ENTRA
from upstream.errors import Unavailable
from upstream.measuring import Measure, unmeasured
from upstream.single_flight import SingleFlight

logger = logging.getLogger(__name__)

MAXIMUM_DOCUMENT_BYTES = 512 * 1024
MINIMUM_RSA_BITS = 2048  # RFC 7518, section 3.3


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A public key that an issuer publishes.

    `issuer` is the issuer that the discovery document names. `key_issuer` is the key's own `issuer` member, which
    Entra ID adds in its v2 key sets. Both may hold the template `{tenantid}`.
    """

    key_id: str
    key: RSAPublicKey
    issuer: str
    key_issuer: str | None


class SigningKeysUnavailable(Unavailable):
    """The keys could not be fetched, so no statement about a token is possible. `retry_after` is in seconds."""

    upstream: ClassVar[str] = ENTRA

    def __init__(self, retry_after: float) -> None:
        super().__init__("The issuer's signing keys could not be fetched.", retry_after)


class UnusableDocument(Exception):
    """An issuer answered a discovery or key request with something that can't be used; the message says with what."""


@dataclass(frozen=True, slots=True)
class SignInEndpoints:
    """Where a client signs a user in, as the discovery document tells: two https URLs."""

    authorization: str
    token: str


@dataclass(frozen=True, slots=True)
class RefreshSchedule:
    """When keys are fetched again, in seconds.

    Entra ID's guidance is a refresh every hour, and one for an unknown key id at most every five minutes
    (https://learn.microsoft.com/entra/identity-platform/signing-key-rollover). After a failed fetch the next one waits
    `after_failure`.
    """

    interval: float = 3600
    unknown_key_cooldown: float = 300
    after_failure: float = 10
    fetch_timeout: float = 5


class SigningKeys:
    """Keys of a fixed list of issuers, by key id. Close it after use.

    `discovery_urls` come from settings alone. A document is used only if it names `issuer` exactly, where one is given
    (OpenID Connect Discovery 1.0, section 4.3). `clock` is monotonic, in seconds. What fails with one issuer leaves the
    keys of the others as they are.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        discovery_urls: Iterable[str],
        schedule: RefreshSchedule | None = None,
        clock: Callable[[], float] = time.monotonic,
        *,
        issuer: str | None = None,
        measure: Measure = unmeasured,
    ) -> None:
        self._session = session
        self._measure = measure
        self._issuer = issuer
        self._sign_in: SignInEndpoints | None = None
        self._keys: dict[str, tuple[SigningKey, ...] | None] = dict.fromkeys(discovery_urls)
        self._schedule = schedule or RefreshSchedule()
        self._clock = clock
        self._by_id: Mapping[str, tuple[SigningKey, ...]] = {}
        self._refreshing: SingleFlight[None, None] = SingleFlight()
        self._fetched_at: float | None = None
        self._looked_at: float | None = None  # when an unknown key id last caused a fetch
        self._failed = False
        self._background: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Fetch the keys now and again every `interval`, in the background."""
        self._background = asyncio.create_task(self._refresh_regularly(), name="refresh signing keys")

    async def aclose(self) -> None:
        """Stop refreshing."""
        if self._background is not None:
            self._background.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._background
        await self._refreshing.aclose()

    @property
    def loaded(self) -> bool:
        """Whether some issuer's keys have been fetched at least once: its users can be served."""
        return any(keys is not None for keys in self._keys.values())

    @property
    def sign_in(self) -> SignInEndpoints | None:
        """Where the issuer's users sign in, once its discovery document was fetched and if it says so."""
        return self._sign_in

    async def check(self) -> None:
        """Make sure that some issuer's keys have been fetched at least once. Raises `SigningKeysUnavailable`.

        One issuer that is down must not take the service away from the users of the others.
        """
        if not self.loaded and self._may_fetch():
            await self.refresh()
        if not self.loaded:
            raise SigningKeysUnavailable(self._schedule.after_failure)

    def holds(self, key: SigningKey) -> bool:
        """Whether an issuer still publishes this key."""
        return key in self._by_id.get(key.key_id, ())

    async def find(self, key_id: str, beyond: Collection[SigningKey] = ()) -> tuple[SigningKey, ...]:
        """The keys with this id, without those of `beyond`; several when several issuers publish the same id.

        If there are none that causes one shared refresh, then none for `unknown_key_cooldown`. Raises
        `SigningKeysUnavailable` when there are still none and the newest fetch failed with some issuer: it may be the
        one whose key is looked for.
        """
        found = self._known(key_id, beyond)
        if not found and self._may_fetch():
            await self.refresh()
            found = self._known(key_id, beyond)
        if not found and self._failed:
            raise SigningKeysUnavailable(self._schedule.after_failure)
        return found

    async def refresh(self) -> None:
        """Fetch every issuer's keys; simultaneous calls share one fetch. Keys that can't be fetched stay."""
        await self._refreshing.do(None, self._fetch_all)

    def _known(self, key_id: str, beyond: Collection[SigningKey]) -> tuple[SigningKey, ...]:
        return tuple(key for key in self._by_id.get(key_id, ()) if key not in beyond)

    def _may_fetch(self) -> bool:
        """Whether an unknown key id may cause a fetch now, or join the one that is going on."""
        now = self._clock()
        if self._fetched_at is None or len(self._refreshing):
            return True
        if self._failed:
            return now - self._fetched_at >= self._schedule.after_failure
        if self._looked_at is not None and now - self._looked_at < self._schedule.unknown_key_cooldown:
            return False
        self._looked_at = now
        return True

    async def _refresh_regularly(self) -> None:
        while True:
            await self.refresh()
            await asyncio.sleep(self._schedule.after_failure if self._failed else self._schedule.interval)

    async def _fetch_all(self) -> None:
        urls = list(self._keys)
        results = await asyncio.gather(*(self._measured_fetch(url) for url in urls), return_exceptions=True)
        failed = False
        for url, result in zip(urls, results, strict=True):
            if isinstance(result, aiohttp.ClientError | TimeoutError | UnusableDocument):
                failed = True
                reason = str(result) if isinstance(result, UnusableDocument) else type(result).__name__
                logger.warning("signing keys could not be fetched: %s: %s", url, reason)
            elif isinstance(result, BaseException):
                raise result
            else:
                self._keys[url] = result
        by_id: dict[str, tuple[SigningKey, ...]] = {}
        for keys in self._keys.values():
            for key in keys or ():
                by_id[key.key_id] = (*by_id.get(key.key_id, ()), key)
        self._by_id = by_id
        self._failed = failed
        self._fetched_at = self._clock()

    async def _measured_fetch(self, discovery_url: str) -> tuple[SigningKey, ...]:
        with self._measure("fetch_signing_keys"):
            return await self._fetch(discovery_url)

    async def _fetch(self, discovery_url: str) -> tuple[SigningKey, ...]:
        async with asyncio.timeout(self._schedule.fetch_timeout):
            discovery = await self._get_json(discovery_url)
            issuer, keys_url = discovery.get("issuer"), discovery.get("jwks_uri")
            if not isinstance(issuer, str) or not isinstance(keys_url, str) or not _is_https(keys_url):
                raise UnusableDocument("The discovery document lacks issuer or an https jwks_uri.")
            if self._issuer is not None and issuer != self._issuer:
                raise UnusableDocument(
                    f"The discovery document names the issuer {issuer!r:.300}, not the configured one."
                )
            key_set = await self._get_json(keys_url)
        entries = key_set.get("keys")
        keys = tuple(_usable_keys(entries if isinstance(entries, list) else [], issuer))
        if not keys:
            raise UnusableDocument("The key set holds no RSA signing key.")
        self._sign_in = _sign_in_endpoints(discovery)
        return keys

    async def _get_json(self, url: str) -> dict[str, Any]:
        async with self._session.get(url, allow_redirects=False) as answer:
            if answer.status != 200:
                raise UnusableDocument(f"Status {answer.status}.")
            document = bytearray()
            async for chunk in answer.content.iter_chunked(16 * 1024):
                document += chunk
                if len(document) > MAXIMUM_DOCUMENT_BYTES:
                    raise UnusableDocument("The document is too large.")
        try:
            parsed = json.loads(document)
        except (ValueError, RecursionError) as error:
            raise UnusableDocument("The document is not JSON.") from error
        if not isinstance(parsed, dict):
            raise UnusableDocument("The document is not a JSON object.")
        return parsed


def _sign_in_endpoints(discovery: Mapping[str, Any]) -> SignInEndpoints | None:
    urls = [discovery.get(f"{name}_endpoint") for name in ("authorization", "token")]
    if not all(isinstance(url, str) and _is_https(url) for url in urls):
        return None
    return SignInEndpoints(*map(str, urls))


def _is_https(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme == "https" and bool(parts.hostname)


def _usable_keys(entries: list[Any], issuer: str) -> Iterable[SigningKey]:
    for entry in entries:
        if not isinstance(entry, dict) or entry.get("kty") != "RSA" or entry.get("use", "sig") != "sig":
            continue
        key_id, key_issuer = entry.get("kid"), entry.get("issuer")
        if not isinstance(key_id, str) or not isinstance(key_issuer, str | None):
            continue
        try:
            key = jwt.PyJWK(entry, algorithm="RS256").key
        except (jwt.PyJWTError, ValueError, TypeError):
            continue
        if isinstance(key, RSAPublicKey) and key.key_size >= MINIMUM_RSA_BITS:
            yield SigningKey(key_id, key, issuer, key_issuer)
