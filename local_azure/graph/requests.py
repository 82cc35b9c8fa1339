"""What a request for Graph brings along: a token and its permissions, OData parameters, a JSON body."""

import base64
import json
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from aiohttp import web

from local_azure.graph.errors import bad_request

READ_DIRECTORY = ("Directory.Read.All", "Directory.ReadWrite.All")
"""Permissions to read any object of the directory."""

READ_USERS = ("User.Read.All", "User.ReadWrite.All", *READ_DIRECTORY)
"""Permissions to read any user."""


@dataclass(frozen=True, slots=True)
class Token:
    """What a token allows. `user` is `None` for an app-only token, whose permissions are its roles."""

    tenant: str
    app: str
    user: str | None
    permissions: frozenset[str]

    @classmethod
    def of(cls, claims: dict[str, Any]) -> "Token":
        app = str(claims.get("appid") or claims.get("azp") or "")
        scopes = claims.get("scp")
        if isinstance(scopes, str):
            return cls(claims["tid"], app, claims["oid"], frozenset(scopes.split()))
        return cls(claims["tid"], app, None, frozenset(claims.get("roles") or ()))

    def has(self, *permissions: str) -> bool:
        """Whether the token holds at least one of the permissions, whose names have no case."""
        return not {name.lower() for name in self.permissions}.isdisjoint(name.lower() for name in permissions)


@dataclass(frozen=True, slots=True)
class Query:
    """The OData parameters that the stand-in understands; others are refused."""

    select: tuple[str, ...] = ()
    expands: bool = False
    only: str | None = None
    top: int = 100
    after: str = ""
    text: tuple[tuple[str, str], ...] = ()

    @classmethod
    def of(cls, request: web.Request) -> "Query":
        parameters = dict(request.query)
        if unknown := parameters.keys() - {"$select", "$expand", "$top", "$skiptoken"}:
            raise bad_request(f"'{min(unknown)}' is not supported by the service.")
        expand = parameters.get("$expand", "")
        filtered = re.fullmatch(r"extensions\(\$filter=id eq '([^']*)'\)", expand)
        if expand and expand != "extensions" and filtered is None:
            raise bad_request("Parsing OData Select and Expand failed.", code="BadRequest")
        try:
            top = int(parameters.get("$top", "100"))
            after = base64.urlsafe_b64decode(parameters.get("$skiptoken", "")).decode()
        except ValueError:
            raise bad_request("Invalid page size or skip token.") from None
        if not 1 <= top <= 999:
            raise bad_request("Invalid page size specified. Must be between 1 and 999 inclusive.")
        return cls(
            select=tuple(name.strip() for name in parameters.get("$select", "").split(",") if name.strip()),
            expands=bool(expand),
            only=None if filtered is None else filtered[1],
            top=top,
            after=after,
            text=tuple((name, value) for name, value in parameters.items() if name != "$skiptoken"),
        )

    def next(self, last: str) -> str:
        """The query of the page that follows the user `last`."""
        return urlencode([*self.text, ("$skiptoken", base64.urlsafe_b64encode(last.encode()).decode())])

    def selected(self) -> str:
        """What the answer's context says about its shape."""
        return ",".join([*self.select, *(["extensions()"] if self.expands else [])])


async def json_object(request: web.Request) -> dict[str, Any]:
    """The JSON object of the body. Raises `Refusal`."""
    try:
        body = await request.json()
    except (json.JSONDecodeError, UnicodeDecodeError):
        body = None
    if not isinstance(body, dict):
        raise bad_request("Unable to read JSON request payload.", code="BadRequest")
    return body
