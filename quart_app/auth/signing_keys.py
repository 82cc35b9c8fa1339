"""The issuers' public signing keys: discovered, cached, refreshed in the background; no token says where from."""

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

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


class SigningKeysUnavailable(Exception):
    """The keys could not be fetched, so no statement about a token is possible. `retry_after` is in seconds."""

    def __init__(self, retry_after: float) -> None:
        super().__init__("The issuer's signing keys could not be fetched.")
        self.retry_after = retry_after


class UnusableDocument(Exception):
    """An issuer answered a discovery or key request with something that can't be used."""


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

    `discovery_urls` come from settings alone. `clock` is monotonic, in seconds.
    """

    def __init__(
        self,
        session: aiohttp.ClientSession,
        discovery_urls: Iterable[str],
        schedule: RefreshSchedule | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._session = session
        self._keys: dict[str, tuple[SigningKey, ...] | None] = dict.fromkeys(discovery_urls)
        self._schedule = schedule or RefreshSchedule()
        self._clock = clock
        self._by_id: Mapping[str, tuple[SigningKey, ...]] = {}
        self._refreshing: asyncio.Task[None] | None = None
        self._fetched_at: float | None = None
        self._looked_at: float | None = None  # when an unknown key id last caused a fetch
        self._failed = False
        self._background: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Fetch the keys now and again every `interval`, in the background."""
        self._background = asyncio.create_task(self._refresh_regularly(), name="refresh signing keys")

    async def aclose(self) -> None:
        """Stop refreshing."""
        for task in (self._background, self._refreshing):
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task

    @property
    def loaded(self) -> bool:
        """Whether every issuer's keys have been fetched at least once."""
        return None not in self._keys.values()

    async def check(self) -> None:
        """Make sure that every issuer's keys have been fetched at least once. Raises `SigningKeysUnavailable`."""
        if not self.loaded and self._may_fetch():
            await self.refresh()
        if not self.loaded:
            raise SigningKeysUnavailable(self._schedule.after_failure)

    def holds(self, key: SigningKey) -> bool:
        """Whether an issuer still publishes this key."""
        return key in self._by_id.get(key.key_id, ())

    async def find(self, key_id: str) -> tuple[SigningKey, ...]:
        """The keys with this id; more than one when several issuers publish the same id; none when nobody does.

        An unknown id causes one shared refresh, then none for `unknown_key_cooldown`. Raises
        `SigningKeysUnavailable` when the id is unknown and the newest fetch failed.
        """
        found = self._by_id.get(key_id)
        if found is None and self._may_fetch():
            await self.refresh()
            found = self._by_id.get(key_id)
        if found is None and (self._failed or not self.loaded):
            raise SigningKeysUnavailable(self._schedule.after_failure)
        return found or ()

    async def refresh(self) -> None:
        """Fetch every issuer's keys; simultaneous calls share one fetch. Keys that can't be fetched stay."""
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = asyncio.create_task(self._fetch_all(), name="fetch signing keys")
        await asyncio.shield(self._refreshing)

    def _may_fetch(self) -> bool:
        """Whether an unknown key id may cause a fetch now, or join the one that is going on."""
        now = self._clock()
        if self._fetched_at is None or (self._refreshing is not None and not self._refreshing.done()):
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
        results = await asyncio.gather(*(self._fetch(url) for url in urls), return_exceptions=True)
        failed = False
        for url, result in zip(urls, results, strict=True):
            if isinstance(result, aiohttp.ClientError | TimeoutError | UnusableDocument):
                failed = True
                logger.warning("signing keys could not be fetched: %s: %s", url, type(result).__name__)
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

    async def _fetch(self, discovery_url: str) -> tuple[SigningKey, ...]:
        async with asyncio.timeout(self._schedule.fetch_timeout):
            discovery = await self._get_json(discovery_url)
            issuer, keys_url = discovery.get("issuer"), discovery.get("jwks_uri")
            if not isinstance(issuer, str) or not isinstance(keys_url, str) or urlsplit(keys_url).scheme != "https":
                raise UnusableDocument("The discovery document lacks issuer or an https jwks_uri.")
            key_set = await self._get_json(keys_url)
        entries = key_set.get("keys")
        keys = tuple(_usable_keys(entries if isinstance(entries, list) else [], issuer))
        if not keys:
            raise UnusableDocument("The key set holds no RSA signing key.")
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
