"""Mappings as open extensions on the user objects of Microsoft Graph, each next to its user.

The extension is the one of Microsoft's Node.js and C# "authentication server" samples: a name (by default
`com.contoso.identityMapping`) and a property `acsUserIdentity`. Both samples and this store read and write each other's
mappings. More properties, which the samples ignore, are described in `storage.graph_extensions`.

Requests go through azure-core's asynchronous pipeline, which the service's other Azure clients use too:
pooled connections, proxies, time limits. Five plain requests need nothing of the Graph SDK (a generated model of all of
Graph), whose pipeline would add a second retry layer and redirects that carry the caller's token along.

What Graph can't do, and what that leaves open:

- There is no etag. A version is a hash of the content; `change` and `remove` read, compare, then write. Inside this
  process they take turns per user. Between processes a small gap remains: if another one removes and recreates the
  mapping exactly between our read and our write, a change restores the old mapping and a removal takes the new one
  away. The ACS identity of the new mapping is then orphaned, never shared.
- Reads may lag behind writes: Graph promises nothing for extensions. `create` never relies on a read: Graph refuses a
  second extension of one name, so there is one winner. A `get` shortly after another process's write may be outdated.

Sources: https://learn.microsoft.com/graph/api/resources/opentypeextension and its methods,
https://learn.microsoft.com/graph/extensibility-open-users, https://learn.microsoft.com/graph/throttling.
"""

import asyncio
import base64
import binascii
import json
import re
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar
from urllib.parse import quote, urlencode, urlsplit
from weakref import WeakValueDictionary

from azure.core import AsyncPipelineClient
from azure.core.pipeline.policies import UserAgentPolicy
from azure.core.pipeline.transport import AioHttpTransport
from azure.core.rest import AsyncHttpResponse, HttpRequest

from storage import graph_refusals
from storage.graph_extensions import (
    IDENTITY,
    SEAL,
    StoredExtension,
    changed,
    created,
    mapping_of,
    properties_of,
)
from storage.graph_options import GraphAccessTokens, GraphApplicationTokens, GraphOptions
from storage.mapping import (
    ExtensionLimitReached,
    IdentityMapping,
    MappingChanged,
    MappingExists,
    MappingPage,
    MappingUnreadable,
    StoreAccessDenied,
    StoreError,
    StoreMisconfigured,
    StoreThrottled,
    StoreUnavailable,
    StoreUnexpectedAnswer,
    StoreUserNotFound,
    UnreadableMapping,
    UserKey,
    changed_mapping,
)
from storage.paging import Paged
from storage.seal import Seals
from upstream.claims import usable_challenge
from upstream.errors import Cause, plain
from upstream.http_session import new_http_session
from upstream.refusals import UNKNOWN_ADVICE, Blame, Refusal
from upstream.retry_after import retry_after

Item = TypeVar("Item")


class UserNotChangeable(StoreMisconfigured):
    """Graph lets the application not change this user: it holds a directory role, or the permission is missing."""


async def open_graph_store(
    options: GraphOptions,
    access_tokens: GraphAccessTokens | None,
    application_tokens: GraphApplicationTokens | None = None,
    *,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> "GraphMappingStore":
    """A store that acts as each mapping's own user (`access_tokens`), or as the application where that is `None`.

    `application_tokens` is for operators: listing all mappings needs it. Nothing is sent yet. Raises
    `StoreMisconfigured` for a URL that is not https: tokens would travel readable.
    """
    base_url = options.base_url.rstrip("/")
    parts = urlsplit(base_url)
    if parts.scheme != "https" or not parts.netloc or parts.path or parts.query:
        raise StoreMisconfigured("The base URL of Microsoft Graph must be https://host, without a path.")
    client: AsyncPipelineClient[HttpRequest, AsyncHttpResponse] = AsyncPipelineClient(
        base_url,
        # Neither a retry nor a redirect policy: the one retry layer is `upstream.retrying`.
        policies=[UserAgentPolicy(sdk_moniker="acs-auth-server")],
        transport=AioHttpTransport(
            session=new_http_session(),
            session_owner=True,
            connection_timeout=options.connection_timeout,
            read_timeout=options.timeout,
        ),
    )
    return GraphMappingStore(client, options, access_tokens, application_tokens, now)


class GraphMappingStore:
    """Fulfils `MappingStore`, with the limits that the module describes; made by `open_graph_store`.

    Besides the errors of `MappingStore`, every method may raise `StoreAccessDenied` and what the token providers raise.
    """

    def __init__(
        self,
        client: AsyncPipelineClient[HttpRequest, AsyncHttpResponse],
        options: GraphOptions,
        access_tokens: GraphAccessTokens | None,
        application_tokens: GraphApplicationTokens | None,
        now: Callable[[], datetime],
    ) -> None:
        self._client = client
        self._root = f"{options.base_url.rstrip('/')}/v1.0"
        self._options = options
        self._access_tokens = access_tokens
        self._application_tokens = application_tokens
        self._now = now
        self._seals = Seals(options.seal_keys, options.extension_name)
        self._writing: WeakValueDictionary[UserKey, asyncio.Lock] = WeakValueDictionary()

    async def get(self, user: UserKey) -> IdentityMapping | None:
        """See `MappingStore.get`."""
        found = await self.extension(user)
        return None if found is None else self._readable(found)

    async def create(self, user: UserKey, acs_user_id: str, created_at: datetime | None = None) -> IdentityMapping:
        """See `MappingStore.create`."""
        created_at = (created_at or self._now()).astimezone(UTC)
        content = created(IdentityMapping(user, acs_user_id, created_at, deleting=False, version=""), self._seals)
        for _ in range(_SETTLING_ROUNDS):
            async with self._owner(user) as owner:
                answer = await self._send("POST", f"{owner.path}/extensions", owner.token, self._extension(content))
                if answer.status == 201 and answer.body.get(IDENTITY) == acs_user_id:
                    return self._readable(StoredExtension(user, properties_of(answer.body)))
                if not _is_duplicate(answer):
                    raise self._error(answer)
            existing = await self.get(user)
            if existing is not None:
                raise MappingExists(existing)
            # Removed in between, or this read does not see it yet: only Graph's answer to another create tells.
        raise StoreThrottled(_LAG_PAUSE)  # nothing was written, and it may be repeated

    async def change(
        self, mapping: IdentityMapping, *, deleting: bool | None = None, signed_out_at: datetime | None = None
    ) -> IdentityMapping:
        """See `MappingStore.change`; and the module about races with other processes."""
        async with self._lock(mapping.user):
            stored = await self.extension(mapping.user)
            if stored is None or stored.version != mapping.version:
                raise MappingChanged
            current = self._readable(stored)
            wanted = changed_mapping(current, deleting, signed_out_at)
            if wanted == current:
                return current
            content = changed(stored.properties, wanted)
            await self._replace(mapping.user, content)
            return self._readable(StoredExtension(mapping.user, content))

    async def remove(self, stored: IdentityMapping | UnreadableMapping) -> None:
        """See `MappingStore.remove`; and the module about races with other processes."""
        user = stored.user
        if user is None:  # every extension has its user
            raise MappingChanged
        async with self._lock(user):
            found = await self.extension(user)
            if found is None:
                return
            if found.version != stored.version:
                raise MappingChanged
            async with self._owner(user) as owner:
                answer = await self._send("DELETE", self._one(owner), owner.token)
                if answer.status != 204 and not answer.is_absence:
                    raise self._error(answer)

    def mappings(self) -> AsyncIterator[IdentityMapping | UnreadableMapping]:
        """See `MappingStore.mappings`. Raises `StoreMisconfigured` without application tokens: no user may list all."""
        return self._listing(self._parsed)

    async def page(self, name: str | None) -> MappingPage:
        """See `MappingStore.page`. A name holds the address of the page, which Graph may forget."""
        page = None if name is None else _Page.named(name)
        found, following = await self._read_page(self._parsed, page)
        return MappingPage(tuple(found), None if following is None else following.name)

    def extensions(self) -> AsyncIterator[StoredExtension]:
        """As `mappings`, what is stored as it is."""
        return self._listing(lambda stored: stored)

    async def extension(self, user: UserKey) -> StoredExtension | None:
        """What is stored for the user as it is; `None` if nothing is."""
        found = await self._read(user)
        return None if found is None else StoredExtension(user, found)

    async def seal(self, stored: StoredExtension) -> None:
        """Seal what was read, by the first key; what bears that seal already is left as it is.

        Only for who knows that the identity is this user's. Raises `MappingChanged`, and `UserNotChangeable` for a user
        whom no application may change.
        """
        sealed = self._with_seal(stored)
        async with self._lock(stored.user):
            found = await self.extension(stored.user)
            if found is not None and found.properties == sealed:
                return
            if found is None or found.version != stored.version:
                raise MappingChanged
            await self._replace(stored.user, sealed)

    def sealing_request(self, stored: StoredExtension) -> dict[str, Any]:
        """The request to Graph by which the user seals it, whom no application may change: method, URL, body."""
        return {
            "method": "PATCH",
            "url": f"{self._root}{self._one(_Owner('/me', ''))}",
            "body": self._extension(self._with_seal(stored)),
        }

    def _with_seal(self, stored: StoredExtension) -> dict[str, Any]:
        return stored.properties | {SEAL: self._seals.seal(stored.user, str(stored.properties[IDENTITY]))}

    def _listing(self, parsed: Callable[[StoredExtension], Item]) -> AsyncIterator[Item]:
        self._listing_tokens()

        async def read_page(continuation: _Page | None) -> tuple[list[Item], _Page | None]:
            return await self._read_page(parsed, continuation)

        return Paged(read_page)

    async def _read_page(
        self, parsed: Callable[[StoredExtension], Item], continuation: "_Page | None"
    ) -> "tuple[list[Item], _Page | None]":
        tokens = self._listing_tokens()
        page = continuation or _Page(tuple(tokens.tenants))
        if not page.tenants:
            return [], None
        tenant = page.tenants[0]
        url = page.url or f"{self._root}/users?{self._users_query()}"
        answer = await self._get(self._checked(url), await tokens.access_token(tenant))
        found = [parsed(stored) for stored in self._extensions_of_page(tenant, answer)]
        return found, self._following(page, answer)

    def _listing_tokens(self) -> GraphApplicationTokens:
        if self._application_tokens is None:
            raise StoreMisconfigured(
                "Listing all mappings needs a token of the application itself with the permission User.Read.All."
            )
        return self._application_tokens

    def _checked(self, url: str) -> str:
        """The address of a page, which may come from a file: the token is for Graph only."""
        if not url.startswith(f"{self._root}/"):
            raise ValueError("The address of the page is not one of Microsoft Graph.")
        return url

    async def _replace(self, user: UserKey, content: dict[str, Any]) -> None:
        # PATCH erases every property that it does not name, no matter who wrote it.
        async with self._owner(user) as owner:
            answer = await self._send("PATCH", self._one(owner), owner.token, self._extension(content))
            if answer.is_absence:
                raise MappingChanged
            if answer.status not in (200, 204):
                raise self._error(answer)

    def _parsed(self, stored: StoredExtension) -> IdentityMapping | UnreadableMapping:
        until = self._options.accept_unsealed_until
        accepted = until is not None and self._now().date() <= until
        return mapping_of(stored, self._seals, accept_unsealed=accepted)

    def _readable(self, stored: StoredExtension) -> IdentityMapping:
        found = self._parsed(stored)
        if isinstance(found, UnreadableMapping):
            raise MappingUnreadable(found)
        return found

    async def ping(self) -> None:
        """Check that Graph can be reached. No user is there to ask for: an orderly refusal (401) is a good answer."""
        answer = await self._send("GET", "/me", None)
        if answer.status != 401:
            raise self._error(answer)

    async def aclose(self) -> None:
        """See `MappingStore.aclose`."""
        await self._client.close()

    @asynccontextmanager
    async def _owner(self, user: UserKey) -> AsyncIterator["_Owner"]:
        """Act for the user; a token that Graph refuses meanwhile is not given out again."""
        if self._access_tokens is not None:
            try:
                yield _Owner("/me", await self._access_tokens.access_token(user))
            except StoreAccessDenied:
                self._access_tokens.refused(user)
                raise
        elif self._application_tokens is not None:
            token = await self._application_tokens.access_token(user.issuer)
            yield _Owner(f"/users/{quote(user.subject, safe='')}", token)
        else:
            raise StoreMisconfigured("The Graph store needs access tokens of its users or of the application.")

    async def _read(self, user: UserKey) -> dict[str, Any] | None:
        """The properties of the user's extension. The query is the samples' own; it says whose extensions these are."""
        async with self._owner(user) as owner:
            answer = await self._get(f"{self._root}{owner.path}?{_SELECTION}", owner.token)
            found = self._find(answer.body)
            if answer.body.get("id") != user.subject:
                raise StoreMisconfigured("The Graph token belongs to a user other than the mapping's.")
            if found is None and _may_be_cut_short(answer.body):
                one = await self._send("GET", self._one(owner), owner.token)
                if one.status == 200:
                    return properties_of(one.body)
                if not one.is_absence:
                    raise self._error(one)
            return found

    def _find(self, described: dict[str, Any]) -> dict[str, Any] | None:
        extensions = described.get("extensions")
        if not isinstance(extensions, list):
            raise StoreUnavailable  # Not what was asked for, so it says nothing about absence.
        for extension in extensions:
            if isinstance(extension, dict) and extension.get("extensionName") == self._options.extension_name:
                return properties_of(extension)
        return None

    def _extensions_of_page(self, tenant: str, answer: "_GraphAnswer") -> list[StoredExtension]:
        users = answer.body.get("value")
        if not isinstance(users, list) or not all(isinstance(user, dict) and _is_id(user.get("id")) for user in users):
            raise StoreUnavailable
        found = [(UserKey(tenant, user["id"]), self._find(user)) for user in users]
        return [StoredExtension(user, properties) for user, properties in found if properties is not None]

    def _following(self, page: "_Page", answer: "_GraphAnswer") -> "_Page | None":
        url = answer.body.get("@odata.nextLink")
        if url is None:
            return _Page(page.tenants[1:]) if len(page.tenants) > 1 else None
        # The token is for Graph only, and no directory has that many pages.
        if not isinstance(url, str) or not url.startswith(f"{self._root}/") or page.number >= _PAGES_AT_MOST:
            raise StoreUnavailable
        return _Page(page.tenants, url, page.number + 1)

    def _users_query(self) -> str:
        size = self._options.page_size
        return _SELECTION if size is None else f"{_SELECTION}&{urlencode({'$top': size}, safe='$')}"

    def _one(self, owner: "_Owner") -> str:
        return f"{owner.path}/extensions/{quote(self._options.extension_name, safe='')}"

    def _extension(self, properties: Mapping[str, Any]) -> dict[str, Any]:
        return {
            "@odata.type": "microsoft.graph.openTypeExtension",
            "extensionName": self._options.extension_name,
            **properties,
        }

    def _lock(self, user: UserKey) -> asyncio.Lock:
        return self._writing.setdefault(user, asyncio.Lock())

    async def _get(self, url: str, token: str) -> "_GraphAnswer":
        answer = await self._send("GET", url.removeprefix(self._root), token)
        if answer.status != 200:
            raise self._error(answer)
        return answer

    async def _send(
        self, method: str, path: str, token: str | None, content: dict[str, Any] | None = None
    ) -> "_GraphAnswer":
        headers = {"Accept": "application/json", "client-request-id": str(uuid.uuid4())}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        request = HttpRequest(method, f"{self._root}{path}", headers=headers, json=content)
        try:
            async with asyncio.timeout(self._options.timeout):
                response = await self._client.send_request(request)
            return _GraphAnswer.of(response)
        except Exception as error:  # whatever azure-core raises ends here; its texts hold the URL
            raise StoreUnavailable().because(Cause(code=type(error).__name__)) from None

    def _error(self, answer: "_GraphAnswer") -> StoreError:
        """What an answer other than the expected one means, by Graph's code (`storage.graph_refusals`)."""
        row = None if answer.succeeded else graph_refusals.row_for(answer.status, answer.code)
        advice = row.advice if row else None if answer.succeeded else UNKNOWN_ADVICE
        cause = Cause(answer.status, answer.code, plain(answer.request_id), advice)
        return self._meant(answer, row).because(cause)

    def _meant(self, answer: "_GraphAnswer", row: Refusal | None) -> StoreError:
        if answer.succeeded:
            return StoreUnavailable(answer.retry_after)  # not what was asked for
        if answer.claims is not None and answer.status in (401, 403):
            return StoreAccessDenied(answer.claims)
        if answer.status == 400 and "maximum number of extensions" in answer.message.lower():
            return ExtensionLimitReached()
        match row.blame if row else Blame.NOBODY:
            case Blame.PASSING if answer.status in graph_refusals.NOTHING_DONE:
                return StoreThrottled(answer.retry_after)
            case Blame.PASSING:
                return StoreUnavailable(answer.retry_after)
            case Blame.TOKEN:
                return StoreAccessDenied()
            case Blame.NO_USER:
                return StoreUserNotFound()
            case Blame.SET_UP if answer.status == 403:
                is_users_own = self._access_tokens is None and answer.code == "Authorization_RequestDenied"
                return (UserNotChangeable if is_users_own else StoreMisconfigured)(self._denied(answer))
            case Blame.SET_UP:
                return StoreMisconfigured(
                    f"Microsoft Graph refused a request with status {answer.status} ({answer.code}), client-request-id "
                    f"{answer.client_request_id}. {row.advice if row else ''}"
                )
        return StoreUnexpectedAnswer(f"{answer.status} {answer.code}")

    def _denied(self, answer: "_GraphAnswer") -> str:
        permission = (
            "User.ReadWrite (delegated)"
            if self._access_tokens is not None
            else "User.ReadWrite.All (application), or User.Read.All to list only"
        )
        return (
            f"Microsoft Graph denied access ({answer.code}). Grant the API registration the Microsoft Graph permission "
            f"{permission} and consent to it."
        )


_SELECTION = "$select=id&$expand=extensions"
_SETTLING_ROUNDS = 3
_LAG_PAUSE = 1.0  # seconds
_PAGES_AT_MOST = 1_000_000
_EXPANDED_AT_MOST = 20  # https://learn.microsoft.com/graph/query-parameters#expand


@dataclass(frozen=True, slots=True)
class _Owner:
    """Where a user's object is and the token that reaches it."""

    path: str
    token: str


@dataclass(frozen=True, slots=True)
class _Page:
    """What a listing still has to read: the tenants left, and where in the first one to continue."""

    tenants: tuple[str, ...]
    url: str | None = None
    number: int = 1

    @property
    def name(self) -> str:
        """This page for `named`."""
        return json.dumps([*self.tenants, self.url, self.number])

    @classmethod
    def named(cls, name: str) -> "_Page":
        """Raises `ValueError`."""
        match json.loads(name):
            case [*tenants, (str() | None) as url, int() as number] if all(isinstance(each, str) for each in tenants):
                return cls(tuple(tenants), url, number)
        raise ValueError("It is not the name of a page.")


@dataclass(frozen=True, slots=True)
class _GraphAnswer:
    status: int
    body: dict[str, Any]
    code: str | None
    """Graph's own; `None` for an answer that is not in Graph's form."""
    message: str
    retry_after: float | None
    claims: str | None
    client_request_id: str
    request_id: str | None

    @property
    def succeeded(self) -> bool:
        """Whether the status means success, whatever the answer holds."""
        return self.status in (200, 201, 204)

    @property
    def is_absence(self) -> bool:
        """Whether Graph says that there is no such thing; a stranger's 404 (a gateway's, a proxy's) proves nothing."""
        return self.status == 404 and self.code is not None

    @classmethod
    def of(cls, response: AsyncHttpResponse) -> "_GraphAnswer":
        try:
            body = response.json() if response.content else {}
        except (ValueError, RecursionError):
            body = {}
        body = body if isinstance(body, dict) else {}
        error = body.get("error")
        error = error if isinstance(error, dict) else {}
        code = error.get("code")
        return cls(
            status=response.status_code,
            body=body,
            code=(plain(code) or "an unprintable code") if isinstance(code, str) and code else None,
            message=str(error.get("message", "")),
            retry_after=retry_after(response.headers),
            claims=_claims(response.headers.get("WWW-Authenticate", "")),
            client_request_id=str(response.request.headers["client-request-id"]),
            request_id=response.headers.get("request-id"),
        )


def _is_duplicate(answer: _GraphAnswer) -> bool:
    # Graph has no code for this; the message is the only sign.
    if answer.code in (None, "Directory_ConcurrencyViolation"):
        return False
    return answer.status == 409 or (answer.status == 400 and "already exists" in answer.message.lower())


def _may_be_cut_short(described: dict[str, Any]) -> bool:
    return "extensions@odata.nextLink" in described or len(described["extensions"]) >= _EXPANDED_AT_MOST


def _is_id(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _claims(challenge: str) -> str | None:
    """The claims that a `WWW-Authenticate` header asks for: base64 on the wire, JSON to the client."""
    found = re.search(r'\bclaims="([^"]+)"', challenge)
    if found is None or "insufficient_claims" not in challenge:
        return None
    try:
        encoded = found[1].replace("-", "+").replace("_", "/")
        claims = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return None
    return usable_challenge(claims)
