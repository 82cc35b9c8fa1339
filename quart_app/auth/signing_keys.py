"""The issuers' public signing keys: discovered, cached, refreshed in the background; no token says from where."""

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar
from urllib.parse import urlsplit

import aiohttp

from quart_app.auth.key_sets import DroppedKey, KeySet, SigningKey, read_key_set
from quart_app.auth.published_keys import PublishedKeys
from quart_app.clouds import ENTRA
from upstream.errors import Unavailable
from upstream.measuring import Measure, unmeasured
from upstream.single_flight import SingleFlight

logger = logging.getLogger(__name__)

MAXIMUM_DOCUMENT_BYTES = 512 * 1024
_MOST_NAMED = 1000  # if a set changes all the time, not every key is worth a line


class SigningKeysUnavailable(Unavailable):
    """The keys could not be fetched, so no statement about a token is possible. `retry_after` is in seconds."""

    upstream: ClassVar[str] = ENTRA

    def __init__(self, retry_after: float) -> None:
        super().__init__("The issuer's signing keys could not be fetched.", retry_after)


class UnusableDocument(Exception):
    """An issuer answered a discovery or key request with something that can't be used; the message says what."""


@dataclass(frozen=True, slots=True)
class SignInEndpoints:
    """Where a client signs a user in, as the discovery document says: two https URLs."""

    authorization: str
    token: str


@dataclass(frozen=True, slots=True)
class RefreshSchedule:
    """When keys are fetched again, in seconds.

    Entra ID's guidance is a refresh every hour, and one for an unknown key id at most every five minutes
    (https://learn.microsoft.com/entra/identity-platform/signing-key-rollover). After a fetch that returned no
    keys, the next one waits `after_failure`.
    """

    interval: float = 3600
    unknown_key_cooldown: float = 300
    after_failure: float = 10
    fetch_timeout: float = 5


class SigningKeys:
    """Keys of a fixed list of issuers, by key id. Close it after use. `PublishedKeys` decides which count.

    `discovery_urls` come only from settings. A document is used only if it names `issuer` exactly, if one is given
    (OpenID Connect Discovery 1.0, section 4.3). `clock` is monotonic, in seconds. A failure with one issuer leaves the
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
        self._schedule = schedule or RefreshSchedule()
        self._clock = clock
        begun = clock()
        self._sets = {url: PublishedKeys(begun) for url in discovery_urls}
        self._by_id: Mapping[str | None, tuple[SigningKey, ...]] = {}
        self._by_id_ends_at = begun
        self._named: set[tuple[str, DroppedKey]] = set()
        self._faults: dict[str, str] = {}
        self._refreshing: SingleFlight[None, None] = SingleFlight()
        self._fetched_at: float | None = None
        self._looked_at: float | None = None  # when an unknown key id last caused a fetch
        self._doubted = asyncio.Event()
        self._background: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Fetch the keys now and again every `interval`, in the background; after `after_failure` while in doubt."""
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
        """Whether some issuer's keys are known: its users can be served."""
        return bool(self._index())

    @property
    def age(self) -> float:
        """Seconds since usable keys were last fetched, for the issuer whose last such fetch is longest ago."""
        return max((known.age(self._clock()) for known in self._sets.values()), default=0.0)

    @property
    def sign_in(self) -> SignInEndpoints | None:
        """Where the issuer's users sign in, once its discovery document was fetched, if it says so."""
        return self._sign_in

    async def check(self) -> None:
        """Make sure that some issuer's keys are known. Raises `SigningKeysUnavailable`.

        One issuer that is down must not take the service away from the users of the others.
        """
        if not self.loaded and self._may_fetch():
            await self.refresh()
        if not self.loaded:
            raise SigningKeysUnavailable(self._schedule.after_failure)

    def holds(self, key: SigningKey) -> bool:
        """Whether an issuer still publishes this key."""
        return key in self._index().get(key.key_id, ())

    def faults(self) -> Mapping[str, str]:
        """What was wrong with the newest fetch, by discovery URL; those that returned keys are left out."""
        return dict(self._faults)

    def issuers(self) -> Sequence[str]:
        """The issuers whose keys are known, as their discovery documents name them."""
        return sorted({key.issuer for keys in self._index().values() for key in keys})

    async def find(self, key_id: str | None, beyond: Collection[SigningKey] = ()) -> tuple[SigningKey, ...]:
        """The keys with this id, without those of `beyond`; several when several issuers publish the same id.

        Without an id, the keys of issuers that publish only one (OpenID Connect Core 1.0, section 10.1). If there are
        none, that causes one shared refresh, then none for `unknown_key_cooldown`. Raises `SigningKeysUnavailable` if
        there are still none and the newest fetch returned no keys for some issuer: the key may be that issuer's.
        """
        found = self._known(key_id, beyond)
        # A token that names no key can't name a new one.
        if not found and (key_id is not None or not self.loaded) and self._may_fetch():
            await self.refresh()
            found = self._known(key_id, beyond)
        if not found and self._in_doubt:
            raise SigningKeysUnavailable(self._schedule.after_failure)
        return found

    async def refresh(self) -> None:
        """Fetch every issuer's keys; simultaneous calls share one fetch. Keys that can't be fetched stay."""
        await self._refreshing.do(None, self._fetch_all)

    @property
    def _in_doubt(self) -> bool:
        return any(known.in_doubt for known in self._sets.values())

    def _known(self, key_id: str | None, beyond: Collection[SigningKey]) -> tuple[SigningKey, ...]:
        return tuple(key for key in self._index().get(key_id, ()) if key not in beyond)

    def _index(self) -> Mapping[str | None, tuple[SigningKey, ...]]:
        """All keys that count now, by their ids; under `None`, the keys of issuers that publish only one."""
        if self._clock() >= self._by_id_ends_at:
            self._make_index()
        return self._by_id

    def _make_index(self) -> None:
        now = self._clock()
        by_id: dict[str | None, tuple[SigningKey, ...]] = {}
        ends = [now + self._schedule.interval]
        for known in self._sets.values():
            keys = known.keys(now)
            ends += [known.ends_at] if keys else []
            named = [(key.key_id, key) for key in keys if key.key_id is not None]
            for key_id, key in [*named, *((None, key) for key in keys if len(keys) == 1)]:
                by_id[key_id] = (*by_id.get(key_id, ()), key)
        self._by_id, self._by_id_ends_at = by_id, min(ends)

    def _may_fetch(self) -> bool:
        """Whether an unknown key id may cause a fetch now, or join the one under way.

        If the last fetch returned no keys, nobody joins the next one: the users of an issuer that does not answer would
        take up everybody else's places.
        """
        now = self._clock()
        if self._fetched_at is None:
            return True
        if len(self._refreshing):
            return not self._in_doubt
        if self._in_doubt:
            return now - self._fetched_at >= self._schedule.after_failure
        if self._looked_at is not None and now - self._looked_at < self._schedule.unknown_key_cooldown:
            return False
        self._looked_at = now
        return True

    async def _refresh_regularly(self) -> None:
        while True:
            await self.refresh()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._schedule.interval):
                    await self._doubted.wait()
                await asyncio.sleep(self._schedule.after_failure)

    async def _fetch_all(self) -> None:
        urls = list(self._sets)
        results = await asyncio.gather(*(self._measured_fetch(url) for url in urls), return_exceptions=True)
        now = self._clock()
        for url, result in zip(urls, results, strict=True):
            if isinstance(result, BaseException):  # aiohttp raises not only its own: UnicodeError for a host's name
                reason = str(result) if isinstance(result, UnusableDocument) else type(result).__name__
                self._faults[url] = reason
                logger.warning("signing keys could not be fetched: %s: %s", url, reason)
                self._sets[url].failed()
            else:
                self._sets[url].fetched(result.keys, now)
                self._faults.pop(url, None)
                if not result.keys:
                    self._faults[url] = _no_keys(result)
                    logger.warning("no signing keys: %s: %s", url, self._faults[url])
        self._fetched_at = now
        self._make_index()
        if self._in_doubt:
            self._doubted.set()
        else:
            self._doubted.clear()

    async def _measured_fetch(self, discovery_url: str) -> KeySet:
        with self._measure("fetch_signing_keys"):
            return await self._fetch(discovery_url)

    async def _fetch(self, discovery_url: str) -> KeySet:
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
        if not isinstance(entries, list):
            raise UnusableDocument("The key set lacks its list of keys.")
        found = read_key_set(entries, issuer)
        for dropped in found.dropped:
            self._name_once(keys_url, dropped)
        self._sign_in = _sign_in_endpoints(discovery)
        return found

    def _name_once(self, keys_url: str, dropped: DroppedKey) -> None:
        if (keys_url, dropped) not in self._named and len(self._named) < _MOST_NAMED:
            self._named.add((keys_url, dropped))
            logger.info("a key is not used: %.100r of %s: %s", dropped.key_id, keys_url, dropped.why)

    async def _get_json(self, url: str) -> dict[str, Any]:
        # What a cache on the way holds is not a statement by the issuer.
        async with self._session.get(url, headers={"Cache-Control": "no-cache"}, allow_redirects=False) as answer:
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


def _no_keys(key_set: KeySet) -> str:
    causes = sorted({dropped.why for dropped in key_set.dropped})
    if not causes:
        return "The key set is empty."
    return f"The key set holds no key that can be used: {'; '.join(causes)}."


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
