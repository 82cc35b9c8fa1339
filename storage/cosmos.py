"""Mappings in Azure Cosmos DB for NoSQL: one small item per user, whose id is its partition key.

On the request path there are point reads and writes only, one wire request each (two after a conflict). What a call
costs and how the account has to be set up is in the guide to Cosmos DB.

Writes, and whatever decides about one, go to the write region. With preferred regions a second client reads elsewhere.
"""

import asyncio
import base64
import binascii
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar
from urllib.parse import urlsplit

import aiohttp
from azure.core import MatchConditions
from azure.core.credentials_async import AsyncTokenCredential
from azure.core.exceptions import ClientAuthenticationError
from azure.core.pipeline.transport import AioHttpTransport
from azure.cosmos import PartitionKey
from azure.cosmos.aio import ContainerProxy, CosmosClient
from azure.cosmos.exceptions import CosmosHttpResponseError, CosmosResourceExistsError

from storage import cosmos_refusals
from storage.cosmos_items import item_id, item_of, mapping_of
from storage.cosmos_options import CosmosOptions
from storage.mapping import (
    IdentityMapping,
    MappingChanged,
    MappingExists,
    MappingPage,
    MappingUnreadable,
    StoreError,
    StoreMisconfigured,
    StoreThrottled,
    StoreUnavailable,
    StoreUnexpectedAnswer,
    UnreadableMapping,
    UserKey,
    WritesRefused,
    changed_mapping,
)
from storage.paging import Paged
from upstream.errors import Cause, UpstreamError, plain
from upstream.http_session import drop_connections, new_http_session
from upstream.refusals import UNKNOWN_ADVICE, Blame, Refusal
from upstream.retry_after import retry_after

T = TypeVar("T")

PARTITION_KEY_PATH = "/id"

INDEXING_POLICY: dict[str, Any] = {
    "indexingMode": "consistent",
    "automatic": True,
    "includedPaths": [],
    "excludedPaths": [{"path": "/*"}],
}
"""Nothing is searched for by a property, so nothing is indexed: a write costs the least that it can."""


async def open_cosmos_store(
    options: CosmosOptions, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)
) -> "CosmosMappingStore":
    """Connect, and check that the container can hold mappings.

    `now` gives the creation time of a mapping, in UTC. Raises `StoreMisconfigured` with the remedy for a missing
    container, a container or account that can't keep mappings unique or be read in several regions, and a refused
    credential; `StoreUnavailable` and `StoreThrottled` when the account can't be asked.
    """
    credential = _checked(options)
    async with AsyncExitStack() as resources:
        session = await resources.enter_async_context(new_http_session())

        async def connected(**regions: Any) -> CosmosClient:
            client = CosmosClient(options.endpoint, credential, **_client_options(options, session), **regions)
            resources.push_async_callback(client.close)
            await client.__aenter__()
            return client

        async def connect() -> _Account:
            client = await connected(enable_endpoint_discovery=False)
            if options.create_if_missing:
                await _create_if_missing(client, options)
            # The SDK has no public way to the account's properties.
            account = await client._get_database_account()  # noqa: SLF001
            if account._EnableMultipleWritableLocations:  # noqa: SLF001
                raise StoreMisconfigured(_SEVERAL_WRITE_REGIONS)
            policy = account.ConsistencyPolicy or {}
            consistency = str(policy.get("defaultConsistencyLevel", "unknown"))
            # Reading the container also fills the SDK's cache: no later call needs it.
            container = _container(client, options)
            _check_container(options, dict(await container.read()))
            warnings: tuple[str, ...] = () if consistency in ("Strong", "BoundedStaleness") else (_weak(consistency),)
            reads = container
            if options.preferred_regions:
                if consistency != "Strong":
                    raise StoreMisconfigured(_lagging(consistency))
                readable = [str(location["name"]) for location in account.ReadableLocations]
                preferred, others, unknown = _in_order(options.preferred_regions, readable)
                warnings += tuple(_unknown_region(each, readable) for each in unknown)
                # The others come last: they are asked when the preferred ones don't answer.
                regions = [*preferred, *others]
                reads = _container(await connected(preferred_locations=regions), options)
                await reads.read()
            return _Account(container, reads, consistency, warnings)

        try:
            account = await _translated(options, session, connect, options.opening_timeout)
        except _NotFound:
            raise StoreMisconfigured(_missing(options)) from None
        except _CosmosAnswer as answer:
            raise _noted(StoreUnavailable(), answer.__notes__[0]) from None
        return CosmosMappingStore(options, account, session, resources.pop_all(), now)


@dataclass(frozen=True, slots=True)
class _Account:
    """What was found at opening: the container by way of the write region, and for reads perhaps of a nearer one."""

    container: ContainerProxy
    reads: ContainerProxy
    consistency: str
    warnings: tuple[str, ...]


class CosmosMappingStore:
    """Fulfils `MappingStore`; made by `open_cosmos_store`.

    `consistency` is the account's default consistency level, `warnings` are a fault and its remedy each.

    A create is refused by the account itself if the user has an item, whatever the consistency: the 1:1 rule never
    depends on a read. Reads do: only with Strong (or, in the write region, BoundedStaleness) does every replica of
    the service see at once what another wrote.
    https://learn.microsoft.com/azure/cosmos-db/consistency-levels
    """

    def __init__(
        self,
        options: CosmosOptions,
        account: _Account,
        session: aiohttp.ClientSession,
        resources: AsyncExitStack,
        now: Callable[[], datetime],
    ) -> None:
        self.consistency = account.consistency
        self.warnings = account.warnings
        self._options = options
        self._container = account.container
        self._reads = account.reads
        self._session = session
        self._resources = resources
        self._now = now
        self._closed = False

    async def get(self, user: UserKey) -> IdentityMapping | None:
        """See `MappingStore.get`. One point read."""
        return await self._get(user, self._reads)

    async def _get(self, user: UserKey, container: ContainerProxy) -> IdentityMapping | None:
        name = item_id(user)
        try:
            item = await self._call(lambda: container.read_item(name, partition_key=name), _NotFound)
        except _NotFound:
            return None
        return _readable(item, user)

    async def create(self, user: UserKey, acs_user_id: str, created_at: datetime | None = None) -> IdentityMapping:
        """See `MappingStore.create`. One write; after a conflict one point read."""
        body = item_of(IdentityMapping(user, acs_user_id, created_at or self._now(), deleting=False, version=""))
        for _ in range(_CREATE_ATTEMPTS):
            try:
                created = await self._write(lambda: self._container.create_item(body), _NotFound, _Conflict)
            except _NotFound:
                # What is missing when an item is created can only be the container around it.
                raise StoreMisconfigured(_missing(self._options)) from None
            except _Conflict:
                existing = await self._get(user, self._container)
                if existing is not None:
                    raise MappingExists(existing) from None
                # It was removed between the two calls, or the read lags behind the write: try again.
            else:
                return _readable(created, user)
        raise StoreUnavailable

    async def change(
        self, mapping: IdentityMapping, *, deleting: bool | None = None, signed_out_at: datetime | None = None
    ) -> IdentityMapping:
        """See `MappingStore.change`. One write bound to the etag, or one read where nothing changes."""
        changed = changed_mapping(mapping, deleting, signed_out_at)
        if changed == mapping:
            current = await self._get(mapping.user, self._container)
            if current is None or current.version != mapping.version:
                raise MappingChanged
            return current
        body = item_of(changed)
        try:
            item = await self._write(
                lambda: self._container.replace_item(
                    body["id"], body, etag=mapping.version, match_condition=MatchConditions.IfNotModified
                ),
                _NotFound,
                _PreconditionFailed,
            )
        except (_NotFound, _PreconditionFailed):
            raise MappingChanged from None
        return _readable(item, mapping.user)

    async def remove(self, stored: IdentityMapping | UnreadableMapping) -> None:
        """See `MappingStore.remove`. One delete bound to the etag."""
        name = stored.key if isinstance(stored, UnreadableMapping) else item_id(stored.user)
        try:
            await self._write(
                lambda: self._container.delete_item(
                    name, partition_key=name, etag=stored.version, match_condition=MatchConditions.IfNotModified
                ),
                _NotFound,
                _PreconditionFailed,
            )
        except _NotFound:
            return
        except _PreconditionFailed:
            raise MappingChanged from None

    def mappings(self) -> AsyncIterator[IdentityMapping | UnreadableMapping]:
        """See `MappingStore.mappings`. One query per page over all partitions; nothing is held open between pages."""

        return Paged(self._read_page)

    async def page(self, name: str | None) -> MappingPage:
        """See `MappingStore.page`. A name is a continuation token, which Cosmos DB lets no time end."""
        stored, following = await self._read_page(name)
        return MappingPage(tuple(stored), following)

    async def _read_page(
        self, continuation: str | None
    ) -> tuple[list[IdentityMapping | UnreadableMapping], str | None]:
        # Not `read_all_items`: after a 500 the SDK (4.17) fails with a TypeError there.
        query = self._container.query_items("SELECT * FROM c", max_item_count=self._options.page_size)
        pages: Any = query.by_page(continuation)

        async def read() -> list[Any]:
            page = await anext(pages, None)
            return [] if page is None else [item async for item in page]

        try:
            items = await self._call(read, _NotFound)
        except _NotFound:
            raise StoreMisconfigured(_missing(self._options)) from None
        return [mapping_of(_item(item)) for item in items], pages.continuation_token

    async def ping(self) -> None:
        """See `MappingStore.ping`. A point read, of an id that no user has."""
        try:
            await self._call(lambda: self._reads.read_item(_PING_ID, partition_key=_PING_ID), _NotFound)
        except _NotFound:
            return

    async def aclose(self) -> None:
        """See `MappingStore.aclose`."""
        self._closed = True
        await self._resources.aclose()

    async def _write(self, operation: Callable[[], Awaitable[T]], *expected: type["_CosmosAnswer"]) -> T:
        """As `_call`, for a change: an identity that may only read can map nobody, so minting must stop."""
        try:
            return await self._call(operation, *expected)
        except StoreMisconfigured as error:
            refused = WritesRefused(*error.args)
            refused.cause = error.cause
            for note in error.__notes__:
                refused.add_note(note)
            raise refused from None

    async def _call(self, operation: Callable[[], Awaitable[T]], *expected: type["_CosmosAnswer"]) -> T:
        if self._closed:
            raise StoreUnavailable
        try:
            return await _translated(self._options, self._session, operation, self._options.call_timeout)
        except _CosmosAnswer as answer:
            if isinstance(answer, expected):
                raise
            # A conflict in answer to a read, say: something other than Cosmos DB answered.
            raise _noted(StoreUnavailable(), answer.__notes__[0]) from None


_PING_ID = "ping"
_CREATE_ATTEMPTS = 3
_OWNER_NOT_FOUND = 1003
_PARTITION_KEY_MISMATCH = 1001

_SEVERAL_WRITE_REGIONS = (
    "The Cosmos DB account accepts writes in several regions, where two of them may each create a mapping for the same "
    "user. Turn multi-region writes off."
)


class _CosmosAnswer(Exception):
    """An answer that only the operation can interpret; it never leaves this module."""


class _NotFound(_CosmosAnswer):
    """The item is missing; of a call for a container, the container."""


class _Conflict(_CosmosAnswer):
    """The item is there already."""


class _PreconditionFailed(_CosmosAnswer):
    """The item has another etag."""


def _checked(options: CosmosOptions) -> str | AsyncTokenCredential:
    parts = urlsplit(options.endpoint)
    if parts.scheme not in ("https", "http") or not parts.hostname:
        raise StoreMisconfigured("COSMOS_ENDPOINT must be a URL such as https://<account>.documents.azure.com/.")
    if options.key is not None and options.credential is None:
        try:
            base64.b64decode(options.key, validate=True)
        except (binascii.Error, ValueError):
            raise StoreMisconfigured("COSMOS_KEY is not an account key: it must be base64.") from None
        return options.key
    if options.credential is not None and options.key is None:
        if options.create_if_missing:
            raise StoreMisconfigured(
                "COSMOS_CREATE_IF_MISSING needs COSMOS_KEY: Entra ID identities can't create databases or containers "
                "through the data plane."
            )
        return options.credential
    raise StoreMisconfigured("Cosmos DB needs either COSMOS_KEY or a managed identity, not both.")


def _client_options(options: CosmosOptions, session: aiohttp.ClientSession) -> dict[str, Any]:
    """What makes one call one wire request, within a bound; measured by tests/storage/test_cosmos_requests.py.

    retry_throttle_total   -1, because 0 is falsy and means the default of 9
    retry_total            0: the connection policy would send even a write again after a lost answer
    endpoint discovery     off, but for reads in preferred regions: it repeats after 408, 500 and 503. The account's own
                           name leads to the write region, after a failover to the new one.
    read_timeout           the default is 65 s; `timeout=` doesn't end a wait for a silent server

    With discovery on, a read that fails in one region is repeated in the next, and in the first once more if all fail;
    one that a region refuses as none of the account's (403), every second: tests/storage/test_cosmos_regions.py.

    What is left: opening repeats a failed read of the account three times; every five minutes the SDK reads
    the account in the background; a container that was created again costs its first call two more requests.
    """
    return {
        "transport": AioHttpTransport(session=session, session_owner=False, use_env_settings=False),
        "connection_timeout": options.connection_timeout,
        "read_timeout": options.read_timeout,
        "retry_total": 0,
        "retry_throttle_total": -1,
    }


def _container(client: CosmosClient, options: CosmosOptions) -> ContainerProxy:
    return client.get_database_client(options.database).get_container_client(options.container)


async def _create_if_missing(client: CosmosClient, options: CosmosOptions) -> None:
    # Another process may do the same at the same time, and be first.
    with suppress(CosmosResourceExistsError):
        await client.create_database_if_not_exists(options.database)
    with suppress(CosmosResourceExistsError):
        await client.get_database_client(options.database).create_container_if_not_exists(
            options.container, PartitionKey(PARTITION_KEY_PATH), indexing_policy=INDEXING_POLICY
        )


async def _translated(
    options: CosmosOptions, session: aiohttp.ClientSession, operation: Callable[[], Awaitable[T]], seconds: float
) -> T:
    # Neither the SDK's errors nor their texts go on: an answer may quote the signed path, and with it a user's id. What
    # an operator needs is added as a note, which a logged traceback shows.
    try:
        async with asyncio.timeout(seconds):
            return await operation()
    except (UpstreamError, _CosmosAnswer):  # of our own, or of the managed identity that the SDK asked for a token
        raise
    except TimeoutError:
        raise _unanswered("TimeoutError", f"Cosmos DB did not answer within {seconds} s.") from None
    except CosmosHttpResponseError as error:
        if (error.status_code, error.sub_status) in cosmos_refusals.MOVED:
            drop_connections(session)  # before the repeat: they lead to the region that no longer takes writes
        raise _noted(_translate(options, error), _described(error)) from None
    except ClientAuthenticationError as error:
        status = getattr(error.response, "status_code", None)
        if status is not None and 400 <= status < 500 and status not in (408, 429):
            refused = StoreMisconfigured(f"The credential for Cosmos DB was refused ({status}).")
            raise _noted(refused, "Entra ID issued no token.") from None
        raise _noted(StoreUnavailable(), "Entra ID or the managed identity endpoint issued no token.") from None
    except Exception as error:  # whatever the SDK raises ends here
        name = type(error).__name__
        raise _unanswered(name, f"Cosmos DB can't be reached or understood: {name}.") from None


def _unanswered(code: str, note: str) -> Exception:
    return _noted(StoreUnavailable().because(Cause(code=code)), note)


def _translate(options: CosmosOptions, error: CosmosHttpResponseError) -> Exception:
    """What an answer means, by its status and sub-status (`storage.cosmos_refusals`)."""
    status, sub_status, headers = error.status_code or 0, error.sub_status or 0, error.headers or {}
    its_own = any(name.lower().startswith("x-ms-") for name in headers)
    match status:
        case 404 if sub_status == 0 and "Owner resource does not exist" in str(error.message):
            sub_status = _OWNER_NOT_FOUND
        case 404 if sub_status == 0 and its_own:
            return _NotFound()
        case 409 if its_own:
            return _Conflict()
        case 412 if its_own:
            return _PreconditionFailed()
    row = cosmos_refusals.row_for(status, sub_status, its_own=its_own)
    code = cosmos_refusals.code_of(status, sub_status)
    cause = Cause(status, code, plain(headers.get("x-ms-activity-id")), row.advice if row else UNKNOWN_ADVICE)
    return _meant(options, status, sub_status, headers, row).because(cause)


def _meant(
    options: CosmosOptions, status: int, sub_status: int, headers: Mapping[str, str], row: Refusal | None
) -> StoreError:
    code = cosmos_refusals.code_of(status, sub_status)
    match row.blame if row else Blame.NOBODY:
        case Blame.PASSING if status in cosmos_refusals.NOTHING_DONE:
            return StoreThrottled(retry_after(headers))
        case Blame.PASSING:
            return StoreUnavailable(retry_after(headers))
        case Blame.SET_UP if code == f"404/{_OWNER_NOT_FOUND}":
            return StoreMisconfigured(_missing(options))
        case Blame.SET_UP if code == f"400/{_PARTITION_KEY_MISMATCH}":
            return StoreMisconfigured(_wrong_partition_key("another one"))
        case Blame.SET_UP if status in (401, 403):
            return StoreMisconfigured(f"Cosmos DB refused the credential ({code}). {row.advice if row else ''}")
        case Blame.SET_UP:
            return StoreMisconfigured(f"Cosmos DB refused a request as invalid ({status}, sub-status {sub_status}).")
    return StoreUnexpectedAnswer(code)


def _noted(error: Exception, note: str) -> Exception:
    error.add_note(note)
    return error


def _described(error: CosmosHttpResponseError) -> str:
    activity = (error.headers or {}).get("x-ms-activity-id", "unknown")
    return f"Cosmos DB answered {error.status_code}, sub-status {error.sub_status or 0}, activity {activity}."


def _check_container(options: CosmosOptions, properties: dict[str, Any]) -> None:
    paths = (properties.get("partitionKey") or {}).get("paths")
    if paths != [PARTITION_KEY_PATH]:
        raise StoreMisconfigured(_wrong_partition_key(", ".join(map(str, paths or ["none"]))))
    if properties.get("defaultTtl") not in (None, -1):
        raise StoreMisconfigured(
            f"The Cosmos DB container '{options.container}' deletes its items after {properties['defaultTtl']} s, and "
            "with them the users' identities. Turn its time to live off."
        )


def _wrong_partition_key(found: str) -> str:
    return (
        f"The Cosmos DB container has the partition key {found}; mappings need {PARTITION_KEY_PATH}. A partition key "
        "can't be changed: create another container and name it in COSMOS_CONTAINER."
    )


def _missing(options: CosmosOptions) -> str:
    return (
        f"The Cosmos DB container '{options.database}/{options.container}' does not exist. Create it with the "
        f"partition key {PARTITION_KEY_PATH}, or check COSMOS_DATABASE and COSMOS_CONTAINER. For development, "
        "COSMOS_CREATE_IF_MISSING=true creates it."
    )


def _weak(consistency: str) -> str:
    return (
        f"The Cosmos DB account's default consistency is {consistency}: mappings stay unique, but for a moment one "
        "replica of this service may not see a mapping that another one created. Set the account's default consistency "
        "to Strong."
    )


def _lagging(consistency: str) -> str:
    return (
        "COSMOS_PREFERRED_REGIONS needs an account whose default consistency is Strong, and this one's is "
        f"{consistency}: a region that is not written to would show for a moment what is no longer so."
    )


def _in_order(preferred: Sequence[str], readable: Sequence[str]) -> tuple[list[str], list[str], list[str]]:
    """The account's regions that are preferred, its other ones, and what is preferred and none of its regions.

    Azure's names have short forms: West Europe is westeurope.
    """
    names = {name.lower().replace(" ", ""): name for name in readable}
    return (
        [names[each] for each in preferred if each in names],
        [name for short, name in names.items() if short not in preferred],
        [each for each in preferred if each not in names],
    )


def _unknown_region(region: str, readable: Sequence[str]) -> str:
    return (
        f"COSMOS_PREFERRED_REGIONS names {region}, which is no region of this Cosmos DB account "
        f"({', '.join(readable)}): nothing is read there. Add the region to the account, or name another one."
    )


def _item(answer: Any) -> dict[str, Any]:
    """The item of an answer. What has no id is not a Cosmos DB item, so it says nothing about any mapping."""
    if not isinstance(answer, dict) or not isinstance(answer.get("id"), str):
        raise _noted(StoreUnavailable(), "An answer held something that is not a Cosmos DB item.")
    return answer


def _readable(answer: Any, user: UserKey) -> IdentityMapping:
    item = _item(answer)
    if item["id"] != item_id(user):
        raise _noted(StoreUnavailable(), "An answer held an item that was not asked for.")
    found = mapping_of(item, user)
    if isinstance(found, UnreadableMapping):
        raise MappingUnreadable(found)
    return found
