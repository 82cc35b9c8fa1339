"""The token endpoint that Azure App Service and Container Apps give to a workload with a managed identity.

Source: Microsoft docs, "Managed identities for App Service", REST endpoint reference, api-version 2019-08-01.
"""

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from local_azure.entra.directory import MANAGED_IDENTITY
from local_azure.entra.errors import EntraError

PATH = "/msi/token"
API_VERSION = "2019-08-01"
IDENTITY_HEADER = "local-development-only-identity-header"


@dataclass(frozen=True, slots=True)
class ManagedIdentityEndpoint:
    """Gives tokens of the one user-assigned identity; `token_for` signs one for a resource, `read` its claims."""

    token_for: Callable[[str], str]
    read: Callable[[str], dict[str, Any] | None]

    async def answer(self, request: web.Request) -> web.Response:
        """`GET /msi/token?api-version=…&resource=…&client_id=…` with the header `X-IDENTITY-HEADER`."""
        query = request.query
        presented = request.headers.get("X-IDENTITY-HEADER", "")
        if not secrets.compare_digest(presented.encode(), IDENTITY_HEADER.encode()):
            return refused(401, "The identity header is missing or wrong.")
        if query.get("api-version") != API_VERSION or not query.get("resource"):
            return refused(400, "The parameters api-version and resource are required.")
        if query.get("client_id") != MANAGED_IDENTITY.client_id:
            return refused(400, "No user-assigned managed identity was found for the given client id.")
        try:
            token = self.token_for(query["resource"])
        except EntraError as error:
            return refused(500, str(error))
        claims = self.read(token) or {}
        return web.json_response(
            {
                "access_token": token,
                "expires_on": str(claims["exp"]),
                "resource": query["resource"],
                "token_type": "Bearer",
                "client_id": MANAGED_IDENTITY.client_id,
            },
            headers={"Cache-Control": "no-store"},
        )


def environment(url: str) -> dict[str, str]:
    """What the platform sets for a workload with an identity; Microsoft's SDKs read it."""
    return {"IDENTITY_ENDPOINT": f"{url}{PATH}", "IDENTITY_HEADER": IDENTITY_HEADER}


def refused(status: int, message: str) -> web.Response:
    """An error answer in this endpoint's own form."""
    return web.json_response({"statusCode": status, "message": message}, status=status)
