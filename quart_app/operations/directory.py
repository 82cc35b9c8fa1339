"""Asks Entra ID, by Microsoft Graph and as the application, which users exist.

If the answer holds a user, that is proof; if it does not, that is not. So every question includes an object that
certainly exists, the API's own service principal, and an answer without it decides nothing.

Sources: https://learn.microsoft.com/graph/api/directoryobject-getbyids (1,000 ids at most; Directory.Read.All),
https://learn.microsoft.com/graph/api/directory-deleteditems-get and
https://learn.microsoft.com/graph/api/serviceprincipal-get (one's own needs no permission).
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol
from urllib.parse import quote

import aiohttp

from quart_app.operations.upstreams import PATIENT, open_operator_tokens
from quart_app.settings import Settings
from storage import graph_refusals
from storage.graph_options import GraphApplicationTokens
from storage.mapping import UserKey
from upstream.calls import UpstreamCalls
from upstream.errors import Cause, Throttled, Unavailable, UpstreamError, plain
from upstream.http_session import new_http_session
from upstream.refusals import Blame
from upstream.retry_after import retry_after
from upstream.retrying import RetryPolicy

USERS_PER_QUESTION = 999
"""Graph takes 1,000 ids, and one is the API's own service principal."""


class DirectoryError(UpstreamError):
    """Entra ID did not say who exists. Messages hold no id."""

    upstream: ClassVar[str] = "directory"


class DirectoryThrottled(Throttled, DirectoryError):
    """Microsoft Graph is too busy. `retry_after` is in seconds."""


class DirectoryUnavailable(Unavailable, DirectoryError):
    """Microsoft Graph did not answer, or not in its own form. `retry_after` is in seconds."""


class DirectoryRefused(DirectoryError):
    """Microsoft Graph refused the question until an operator changes something; the message says what."""


class DirectoryUnsure(DirectoryError):
    """An answer that can't be whole: it lacks what certainly exists."""

    def __init__(self) -> None:
        super().__init__("Entra ID's answer lacks the API's own service principal, so it says nothing about users.")


class Directory(Protocol):
    """Who exists in Entra ID. Every method raises an `UpstreamError` if that was not answered."""

    @property
    def tenants(self) -> Sequence[str]:
        """The tenants that can be asked."""
        ...

    async def existing(self, tenant_id: str, object_ids: Sequence[str]) -> frozenset[str]:
        """Which of these users exist, by object id in lower case. The ids are GUIDs."""
        ...

    async def is_restorable(self, tenant_id: str, object_id: str) -> bool:
        """Whether the user was deleted, but can be restored: Entra ID keeps deleted users for 30 days."""
        ...


def is_object_id(subject: str) -> bool:
    """Whether this can be the id of an object in Entra ID. Graph refuses a whole question for one that is not."""
    return _GUID.fullmatch(subject) is not None


async def known_users(directory: Directory, users: Sequence[UserKey]) -> frozenset[UserKey]:
    """Those of the users who exist. Raises `UpstreamError`; who can't be asked for is not among them."""
    found: set[UserKey] = set()
    for tenant in directory.tenants:
        asked = [user for user in users if user.issuer == tenant and is_object_id(user.subject)]
        for start in range(0, len(asked), USERS_PER_QUESTION):
            batch = asked[start : start + USERS_PER_QUESTION]
            existing = await directory.existing(tenant, [user.subject for user in batch])
            found.update(user for user in batch if user.subject.lower() in existing)
    return frozenset(found)


@asynccontextmanager
async def open_directory(settings: Settings, retry: RetryPolicy | None = None) -> AsyncIterator["GraphDirectory"]:
    """The directory of the configured tenants, by the API's own credential; `retry` is `PATIENT` by default."""
    retry = retry or PATIENT
    async with (
        open_operator_tokens(settings, retry) as tokens,
        new_http_session(unpack=True) as session,
    ):
        yield GraphDirectory(session, settings.graph.base_url, settings.entra.client_id, tokens, retry)


class GraphDirectory:
    """Fulfils `Directory`; made by `open_directory`."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        base_url: str,
        client_id: str,
        tokens: GraphApplicationTokens,
        retry: RetryPolicy,
    ) -> None:
        self._session = session
        self._root = f"{base_url.rstrip('/')}/v1.0"
        self._client_id = client_id
        self._tokens = tokens
        self._calls = UpstreamCalls("directory", lambda begun: _unavailable(), retry)
        self._own: dict[str, str] = {}

    @property
    def tenants(self) -> Sequence[str]:
        """See `Directory.tenants`."""
        return self._tokens.tenants

    async def existing(self, tenant_id: str, object_ids: Sequence[str]) -> frozenset[str]:
        """See `Directory.existing`."""
        found: set[str] = set()
        for start in range(0, len(object_ids), USERS_PER_QUESTION):
            found |= await self._ask(tenant_id, object_ids[start : start + USERS_PER_QUESTION])
        return frozenset(found)

    async def is_restorable(self, tenant_id: str, object_id: str) -> bool:
        """See `Directory.is_restorable`."""
        path = f"/directory/deletedItems/{quote(object_id, safe='')}?$select=id"
        answer = await self._send(tenant_id, "GET", path, absent="Request_ResourceNotFound")
        if answer is None:
            return False
        if str(answer.get("id")).lower() != object_id.lower():
            raise _unavailable()
        return True

    async def _ask(self, tenant_id: str, object_ids: Iterable[str]) -> set[str]:
        own = await self._own_service_principal(tenant_id)
        question = {"ids": [*object_ids, own], "types": ["user", "servicePrincipal"]}
        answer = await self._send(tenant_id, "POST", "/directoryObjects/getByIds?$select=id", question)
        objects = answer.get("value") if answer is not None else None
        if not isinstance(objects, list) or not all(isinstance(each, dict) for each in objects):
            raise _unavailable()
        found = {each["id"].lower() for each in objects if isinstance(each.get("id"), str)}
        if own not in found or (answer is not None and "@odata.nextLink" in answer):
            raise DirectoryUnsure
        return found - {own}

    async def _own_service_principal(self, tenant_id: str) -> str:
        """The object id of the API's enterprise application in this tenant."""
        if tenant_id not in self._own:
            path = f"/servicePrincipals(appId='{quote(self._client_id, safe='')}')?$select=id"
            answer = await self._send(tenant_id, "GET", path)
            found = answer.get("id") if answer is not None else None
            if not isinstance(found, str) or not is_object_id(found):
                raise _unavailable()
            self._own[tenant_id] = found.lower()
        return self._own[tenant_id]

    async def _send(
        self, tenant_id: str, method: str, path: str, content: dict[str, Any] | None = None, absent: str | None = None
    ) -> dict[str, Any] | None:
        """Graph's answer; `None` if it says with the code `absent` that there is no such object."""

        async def send() -> dict[str, Any] | None:
            token = await self._tokens.access_token(tenant_id)
            headers = {"Authorization": f"Bearer {token}", "Accept": "application/json"}
            try:
                async with (
                    asyncio.timeout(_SECONDS),
                    self._session.request(
                        method, f"{self._root}{path}", headers=headers, json=content, allow_redirects=False
                    ) as response,
                ):
                    answer = _DirectoryAnswer.of(response, await response.read())
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                raise _unavailable().because(Cause(code=type(error).__name__)) from None
            if answer.status == 200 and answer.body is not None:
                return answer.body
            if answer.status == 404 and absent is not None and answer.code == absent:
                return None
            raise answer.error()

        return await self._calls.call("directory", send)


_SECONDS = 30.0
_GUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_PERMISSION = (
    "Grant the API registration the Microsoft Graph permission Directory.Read.All (application) and consent to it."
)


def _unavailable(seconds: float | None = None) -> DirectoryUnavailable:
    return DirectoryUnavailable("Microsoft Graph did not say who exists in Entra ID.", seconds)


@dataclass(frozen=True, slots=True)
class _DirectoryAnswer:
    status: int
    body: dict[str, Any] | None
    code: str | None
    retry_after: float | None
    request_id: str | None

    @classmethod
    def of(cls, response: aiohttp.ClientResponse, content: bytes) -> "_DirectoryAnswer":
        try:
            body = json.loads(content)
        except (ValueError, RecursionError):
            body = None
        body = body if isinstance(body, dict) else None
        error = body.get("error") if body else None
        code = error.get("code") if isinstance(error, dict) else None
        known = (plain(code) or "an unprintable code") if isinstance(code, str) and code else None
        return cls(
            response.status, body, known, retry_after(response.headers), plain(response.headers.get("request-id"))
        )

    def error(self) -> DirectoryError:
        """What an answer other than the expected one means."""
        if self.status < 400:
            return _unavailable(self.retry_after)
        row = graph_refusals.row_for(self.status, self.code)
        blame = row.blame if row else Blame.NOBODY
        if blame is Blame.PASSING and self.status in graph_refusals.NOTHING_DONE:
            return DirectoryThrottled("Microsoft Graph is throttling requests.", self.retry_after)
        if blame is Blame.PASSING:
            return _unavailable(self.retry_after)
        refused = f"Microsoft Graph refused to say who exists in Entra ID ({self.status} {self.code})."
        advice = _PERMISSION if self.status == 403 else ""
        cause = Cause(self.status, self.code, self.request_id, advice or None)
        return DirectoryRefused(f"{refused} {advice}".strip()).because(cause)
