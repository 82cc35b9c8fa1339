"""The account on the wire: routes, headers and bodies as the gateway of Azure Cosmos DB answers them."""

import base64
import binascii
import copy
import json
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

from aiohttp import web

from local_azure.clock import Clock
from local_azure.control import add_fault_routes
from local_azure.cosmos.authorization import Authorization
from local_azure.cosmos.errors import (
    CosmosError,
    bad_request,
    no_operation,
    out_of_request_units,
    write_forbidden,
)
from local_azure.cosmos.queries import parse
from local_azure.cosmos.storage import Container, Storage, StoredItem
from local_azure.faults import Faults
from local_azure.limits import WindowLimit
from local_azure.state import State

_KEY_BYTES = 64
"""An account key is 64 random bytes in base64."""

PARTITION_KEY_MISMATCH = 1001
CROSS_PARTITION_QUERY_NOT_SERVABLE = 1004
COLLECTION_RID_MISMATCH = 1024

_DATABASE = "acs"
_CONTAINER = "identities"
_PAGE_SIZE = 100
_LONGEST_ID = 1023  # bytes; learn.microsoft.com/azure/cosmos-db/concepts-limits
_RANGES_ETAG = '"1"'

# Request units of small items, roughly as the service charges them; a read with Strong or BoundedStaleness twice:
# https://learn.microsoft.com/azure/cosmos-db/optimize-cost-reads-writes
_CHARGES = {"read_item": 1.0, "create_item": 6.29, "replace_item": 10.29, "delete_item": 6.29, "query_items": 2.83}

_WRITES = ("create_item", "replace_item", "delete_item")

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_Body = dict[str, Any]


class Cosmos:
    """One Cosmos DB account with key and Entra ID authentication, in one region unless `read_region` adds more.

    `verify` answers the claims of a valid Entra ID access token, or `None`. `consistency` is the account's default:
    Strong, BoundedStaleness, Session, ConsistentPrefix or Eventual. `partition_key_path` is that of the container that
    is there from the start; `None` is an account without it. `multiple_write_regions` is only reported, not simulated.
    """

    def __init__(
        self,
        state: State,
        url: str,
        *,
        clock: Clock,
        verify: Callable[[str], dict[str, Any] | None],
        consistency: str = "Strong",
        partition_key_path: str | None = "/id",
        multiple_write_regions: bool = False,
    ) -> None:
        self.faults = Faults()
        self.throughput: WindowLimit | None = None
        self._consistency = consistency
        self._multiple_write_regions = multiple_write_regions
        self._url = url
        self._takes_writes = True
        self._readable = [_location("Local", url)]
        self._host = urlsplit(url).hostname or ""
        self._storage = Storage(state, clock=clock, key_bytes=_KEY_BYTES)
        self._authorization = Authorization(self._storage.key, url, clock=clock, verify=verify)
        if partition_key_path is not None:
            self._seed(partition_key_path)

    def application(self) -> web.Application:
        """A fresh application; the names of its routes are the operations."""
        application = web.Application(middlewares=[self.faults.middleware, self._answer])
        add_fault_routes(application, self.faults)
        documents, document = "/dbs/{db}/colls/{coll}/docs", "/dbs/{db}/colls/{coll}/docs/{id}"
        self._route(application, "GET", document, "read_item", self._read_item)
        self._route(application, "POST", documents, "query_plan", self._query_plan, _is_query_plan)
        self._route(application, "POST", documents, "query_items", self._query_items, _is_query)
        self._route(application, "POST", documents, "upsert_item", self._refuse, _is_upsert)
        self._route(application, "POST", documents, "create_item", self._create_item)
        self._route(application, "PUT", document, "replace_item", self._replace_item)
        self._route(application, "DELETE", document, "delete_item", self._delete_item)
        self._route(application, "GET", documents, "list_items", self._list_items)
        self._route(application, "GET", "/dbs/{db}/colls/{coll}/pkranges", "read_partition_key_ranges", self._ranges)
        self._route(application, "GET", "/dbs/{db}/colls/{coll}", "get_container", self._get_container)
        self._route(application, "DELETE", "/dbs/{db}/colls/{coll}", "delete_container", self._delete_container)
        self._route(application, "POST", "/dbs/{db}/colls", "create_container", self._create_container)
        self._route(application, "GET", "/dbs/{db}", "get_database", self._get_database)
        self._route(application, "POST", "/dbs", "create_database", self._create_database)
        application.router.add_get("/", self._get_account, name="get_account")
        return application

    def read_region(self, name: str, url: str) -> "Cosmos":
        """One more region, which is reached at `url`: the same items, its own faults and counts, and no writes."""
        region = copy.copy(self)
        region.faults = Faults()
        region._takes_writes = False  # noqa: SLF001 (its own class)
        self._readable.append(_location(name, url))
        return region

    def service_environment(self) -> dict[str, str]:
        """The settings that point the service at this account."""
        return {
            "COSMOS_ENDPOINT": self._url,
            "COSMOS_KEY": self._storage.key,
            "COSMOS_DATABASE": _DATABASE,
            "COSMOS_CONTAINER": _CONTAINER,
        }

    @property
    def without_role(self) -> set[str]:
        """Object ids of principals that have no data-plane role: they are answered 403."""
        return self._authorization.without_role

    @property
    def counts(self) -> Counter[str]:
        """How many calls of each operation arrived."""
        return self.faults.counts

    def items(self, database: str = _DATABASE, container: str = _CONTAINER) -> list[_Body]:
        """Every item of a container as stored, in the order of creation."""
        found = self._storage.feed(self._storage.owner(database, container), None, 0)
        return [json.loads(item.body) for item in found]

    def _seed(self, partition_key_path: str) -> None:
        if not self._storage.has_database(_DATABASE):
            self._storage.create_database({"id": _DATABASE})
        if not self._storage.has_container(_DATABASE, _CONTAINER):
            definition = {"paths": [partition_key_path], "kind": "Hash", "version": 2}
            self._storage.create_container(_DATABASE, {"id": _CONTAINER, "partitionKey": definition})

    def _route(
        self,
        application: web.Application,
        method: str,
        path: str,
        operation: str,
        handler: _Handler,
        when: Callable[[web.Request], bool] | None = None,
    ) -> None:
        # Clients end paths with a slash, curl sessions often don't.
        resource = _Resource(path + "{slash:/?}", operation, when)
        application.router.register_resource(resource)
        resource.add_route(method, handler)

    @web.middleware
    async def _answer(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        operation = request.match_info.route.name or ""
        if operation.startswith("local_"):
            return await handler(request)
        try:
            principal = self._authorization.check(
                request.method, request.path, request.headers.get("authorization"), request.headers.get("x-ms-date")
            )
            if operation in ("create_database", "create_container", "delete_container"):
                self._authorization.require_control_plane(principal, request.method, request.path)
            if request.match_info.http_exception is not None:
                raise no_operation(request.match_info.http_exception)
            if operation in _WRITES and not self._takes_writes:
                raise write_forbidden()
            self._take(operation)
            response = await handler(request)
        except CosmosError as error:
            activity = _activity(request)
            text = f"{error.message}\r\nActivityId: {activity}, local-azure"
            response = _json({"code": error.code, "message": text}, error.status)
            if error.sub_status is not None:
                response.headers["x-ms-substatus"] = str(error.sub_status)
            response.headers.update(error.headers)
        headers = response.headers
        headers["x-ms-activity-id"] = _activity(request)
        headers["x-ms-version"] = "2020-07-15"
        headers.setdefault("x-ms-request-charge", f"{self._charge(operation):.2f}")
        return response

    def _charge(self, operation: str) -> float:
        twice = operation == "read_item" and self._consistency in ("Strong", "BoundedStaleness")
        return _CHARGES.get(operation, 1.0) * (2 if twice else 1)

    def _take(self, operation: str) -> None:
        if self.throughput is None or operation not in _CHARGES:
            return
        seconds = self.throughput.take(self._charge(operation))
        if seconds is not None:
            raise out_of_request_units(seconds)

    async def _get_account(self, _: web.Request) -> web.Response:
        # The SDK sends its requests to the locations that are advertised here, not to the endpoint it was given.
        body = {
            "_self": "",
            "id": self._host.partition(".")[0],
            "_rid": f"{self._host.partition('.')[0]}.documents.local",
            "media": "//media/",
            "addresses": "//addresses/",
            "_dbs": "//dbs/",
            "writableLocations": self._readable[:1],
            "readableLocations": self._readable,
            "enableMultipleWriteLocations": self._multiple_write_regions,
            "userReplicationPolicy": {"asyncReplication": False, "minReplicaSetSize": 3, "maxReplicasetSize": 4},
            "userConsistencyPolicy": {"defaultConsistencyLevel": self._consistency},
            "systemReplicationPolicy": {"minReplicaSetSize": 3, "maxReplicasetSize": 4},
            "readPolicy": {"primaryReadCoefficient": 1, "secondaryReadCoefficient": 1},
            "queryEngineConfiguration": json.dumps({"maxSqlQueryInputLength": 262144, "maxJoinsPerSqlQuery": 10}),
        }
        return _json(body)

    async def _get_database(self, request: web.Request) -> web.Response:
        return _resource(self._storage.database(request.match_info["db"]))

    async def _create_database(self, request: web.Request) -> web.Response:
        return _resource(self._storage.create_database(await _read_body(request)), 201)

    async def _get_container(self, request: web.Request) -> web.Response:
        return _resource(self._storage.container(request.match_info["db"], request.match_info["coll"]).body)

    async def _create_container(self, request: web.Request) -> web.Response:
        body = await _read_body(request)
        if not (body.get("partitionKey") or {}).get("paths"):
            raise bad_request("The partition key definition is missing or has no paths.")
        return _resource(self._storage.create_container(request.match_info["db"], body), 201)

    async def _delete_container(self, request: web.Request) -> web.Response:
        self._storage.delete_container(request.match_info["db"], request.match_info["coll"])
        return web.Response(status=204)

    async def _read_item(self, request: web.Request) -> web.Response:
        container = self._container(request)
        item = self._storage.read(container, _required_partition_key(request, container), request.match_info["id"])
        if request.headers.get("if-none-match") == item.etag:
            return web.Response(status=304)
        return self._item(request, container, item, 200)

    async def _create_item(self, request: web.Request) -> web.Response:
        container = self._container(request)
        body = await _read_body(request)
        item = self._storage.create(container, _matching_partition_key(request, container, body), body)
        return self._item(request, container, item, 201)

    async def _replace_item(self, request: web.Request) -> web.Response:
        container = self._container(request)
        body = await _read_body(request)
        key = _matching_partition_key(request, container, body)
        if_match = request.headers.get("if-match")
        item = self._storage.replace(container, key, request.match_info["id"], body, if_match)
        return self._item(request, container, item, 200)

    async def _delete_item(self, request: web.Request) -> web.Response:
        container = self._container(request)
        key = _required_partition_key(request, container)
        self._storage.delete(container, key, request.match_info["id"], request.headers.get("if-match"))
        return web.Response(status=204, headers=self._session_headers(request, container))

    async def _list_items(self, request: web.Request) -> web.Response:
        container = self._container(request)
        found = self._storage.feed(container, _partition_key(request, container), _continuation(request))
        return self._page(container, ((item, json.loads(item.body)) for item in found), request)

    async def _query_items(self, request: web.Request) -> web.Response:
        container = self._container(request)
        body = await _read_body(request, needs_id=False)
        parameters = {entry["name"]: entry.get("value") for entry in body.get("parameters", [])}
        query = parse(str(body.get("query", "")), parameters)
        key = _partition_key(request, container)
        if key is None:
            if request.headers.get("x-ms-documentdb-query-enablecrosspartition", "").lower() != "true":
                raise bad_request(
                    "Cross partition query is required but disabled. Please set "
                    "x-ms-documentdb-query-enablecrosspartition to true, specify x-ms-documentdb-partitionkey, "
                    "or revise your query to avoid this exception."
                )
            if query.order_by is not None:
                # The service merges no order over partitions: its clients do, with a query plan.
                raise bad_request(
                    "The provided cross partition query can not be directly served by the gateway.",
                    CROSS_PARTITION_QUERY_NOT_SERVABLE,
                )
        after = 0 if query.order_by or query.counts else _continuation(request)
        found = self._storage.feed(container, key, after)
        kept = (
            (item, parsed) for item, parsed in ((item, json.loads(item.body)) for item in found) if query.keeps(parsed)
        )
        if query.order_by is None and not query.counts:
            return self._page(container, kept, request, query.tell)
        items = query.tell(query.arrange([parsed for _, parsed in kept]))
        return _json({"_rid": container.rid, "Documents": items, "_count": len(items)}, headers=_count(len(items)))

    async def _query_plan(self, _: web.Request) -> web.Response:
        raise bad_request("The stand-in makes no query plans: leave out ORDER BY, or query one partition key.")

    async def _refuse(self, _: web.Request) -> web.Response:
        raise bad_request("The stand-in has no upsert.")

    async def _ranges(self, request: web.Request) -> web.Response:
        container = self._container(request)
        if request.headers.get("if-none-match") == _RANGES_ETAG:
            return web.Response(status=304, headers={"etag": _RANGES_ETAG})
        one = {
            "_rid": container.rid,
            "id": "0",
            "_etag": _RANGES_ETAG,
            "minInclusive": "",
            "maxExclusive": "FF",
            "ridPrefix": 0,
            "_self": f"{container.self_link}pkranges/{container.rid}/",
            "throughputFraction": 1,
            "status": "online",
            "parents": [],
        }
        body = {"_rid": container.rid, "PartitionKeyRanges": [one], "_count": 1}
        return _json(body, headers={"etag": _RANGES_ETAG, **_count(1)})

    def _container(self, request: web.Request) -> Container:
        container = self._storage.owner(request.match_info["db"], request.match_info["coll"])
        intended = request.headers.get("x-ms-cosmos-intended-collection-rid")
        if intended is not None and intended != container.rid:
            raise bad_request("The container was created anew since its properties were read.", COLLECTION_RID_MISMATCH)
        return container

    def _item(self, request: web.Request, container: Container, item: StoredItem, status: int) -> web.Response:
        headers = {"etag": item.etag, **self._session_headers(request, container)}
        minimal = request.headers.get("prefer") == "return=minimal"
        return web.Response(
            status=status,
            body=b"" if minimal else item.body.encode(),
            content_type="application/json",
            headers=headers,
        )

    def _page(
        self, container: Container, found: Any, request: web.Request, tell: Callable[[list[_Body]], list[Any]] = list
    ) -> web.Response:
        size = _page_size(request)
        documents: list[_Body] = []
        last = 0
        headers: dict[str, str] = {}
        for item, parsed in found:
            if len(documents) == size:
                headers["x-ms-continuation"] = base64.b64encode(json.dumps({"after": last}).encode()).decode()
                break
            documents.append(parsed)
            last = item.sequence
        told = tell(documents)
        body = {"_rid": container.rid, "Documents": told, "_count": len(told)}
        return _json(body, headers=headers | _count(len(told)) | self._session_headers(request, container))

    def _session_headers(self, request: web.Request, container: Container) -> dict[str, str]:
        # A client with session consistency files the token under these two paths, and sends it with its next read.
        lsn = str(self._storage.lsn)
        return {
            "x-ms-session-token": f"0:-1#{lsn}",
            "lsn": lsn,
            "x-ms-alt-content-path": f"dbs/{request.match_info['db']}/colls/{request.match_info['coll']}",
            "x-ms-content-path": container.rid,
        }


class _Resource(web.DynamicResource):
    """A path that also looks at headers: one path carries creating, querying and planning a query."""

    def __init__(self, path: str, name: str, when: Callable[[web.Request], bool] | None) -> None:
        super().__init__(path, name=name)
        self._when = when

    async def resolve(self, request: web.Request) -> Any:
        if self._when is not None and not self._when(request):
            return None, set()
        return await super().resolve(request)


def _is_query(request: web.Request) -> bool:
    return request.headers.get("x-ms-documentdb-isquery", "").lower() == "true"


def _is_query_plan(request: web.Request) -> bool:
    return request.headers.get("x-ms-cosmos-is-query-plan-request", "").lower() == "true"


def _is_upsert(request: web.Request) -> bool:
    return request.headers.get("x-ms-documentdb-is-upsert", "").lower() == "true"


def _location(name: str, url: str) -> dict[str, str]:
    return {"name": name, "databaseAccountEndpoint": f"{url}/"}


def _activity(request: web.Request) -> str:
    return request.headers.get("x-ms-activity-id") or str(uuid4())


def _json(body: _Body, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(status=status, body=json.dumps(body).encode(), content_type="application/json", headers=headers)


def _resource(body: _Body, status: int = 200) -> web.Response:
    return _json(body, status, {"etag": body["_etag"]})


def _count(items: int) -> dict[str, str]:
    return {"x-ms-item-count": str(items)}


async def _read_body(request: web.Request, *, needs_id: bool = True) -> _Body:
    try:
        body = json.loads(await request.read())
    except ValueError as error:
        raise bad_request("The request body is not valid JSON.") from error
    if not isinstance(body, dict):
        raise bad_request("The request body must be an object.")
    if needs_id and not _is_valid_id(body.get("id")):
        raise bad_request("The input name is invalid. Ensure to provide a unique non-empty string.")
    return body


def _is_valid_id(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value.encode()) <= _LONGEST_ID and not set(value) & set("/\\?#")


def _partition_key(request: web.Request, container: Container) -> str | None:
    header = request.headers.get("x-ms-documentdb-partitionkey")
    if header is None:
        return None
    try:
        values = json.loads(header)
    except ValueError as error:
        raise bad_request("The partition key header is not valid JSON.") from error
    if not isinstance(values, list) or len(values) != len(container.partition_key_paths):
        raise bad_request(
            "Partition key provided either doesn't correspond to definition in the collection or doesn't match "
            "partition key field values specified in the document.",
            PARTITION_KEY_MISMATCH,
        )
    return json.dumps(values)


def _required_partition_key(request: web.Request, container: Container) -> str:
    key = _partition_key(request, container)
    if key is None:
        raise bad_request("PartitionKey value must be supplied for this operation.")
    return key


def _matching_partition_key(request: web.Request, container: Container, body: _Body) -> str:
    key = _required_partition_key(request, container)
    extracted = json.dumps([_extract(body, path) for path in container.partition_key_paths])
    if key != extracted:
        raise bad_request(
            "PartitionKey extracted from document doesn't match the one specified in the header", PARTITION_KEY_MISMATCH
        )
    return key


def _extract(body: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        if not isinstance(body, dict) or name not in body:
            return {}
        body = body[name]
    return body


def _page_size(request: web.Request) -> int:
    try:
        size = int(request.headers.get("x-ms-max-item-count", "-1"))
    except ValueError as error:
        raise bad_request("x-ms-max-item-count must be a number.") from error
    return _PAGE_SIZE if size <= 0 else size


def _continuation(request: web.Request) -> int:
    token = request.headers.get("x-ms-continuation")
    if token is None:
        return 0
    try:
        return int(json.loads(base64.b64decode(token, validate=True))["after"])
    except (binascii.Error, ValueError, KeyError, TypeError) as error:
        raise bad_request("Invalid Continuation Token") from error
