"""What a request's `scope` asks for: one resource, some of its permissions, and OpenID Connect's own scopes."""

from dataclasses import dataclass
from urllib.parse import urlsplit

from local_azure.entra.directory import API, Application
from local_azure.entra.errors import EntraError
from local_azure.entra.metadata import VERSION_1

OPENID_SCOPES = frozenset({"openid", "profile", "email", "offline_access"})
GRAPH = "https://graph.microsoft.com"
TEAMS_RESOURCE = "https://auth.msft.communication.azure.com"
TEAMS_RESOURCE_ID = "1fd5118e-2576-4263-8130-9503064c837a"
TEAMS_SCOPES = ("Teams.ManageCalls", "Teams.ManageChats")
TOKEN_EXCHANGE = "api://AzureADTokenExchange"  # noqa: S105  # an audience, not a secret
DEFAULT = ".default"

_TEAMS_NAMES = (TEAMS_RESOURCE, TEAMS_RESOURCE_ID)
_GRAPH_ID = "00000003-0000-0000-c000-000000000000"
API_NAMES = (API.client_id, str(API.app_id_uri))


@dataclass(frozen=True, slots=True)
class Requested:
    """A parsed `scope`. `resource` is named as the client named it; `openid` holds OpenID Connect's own scopes."""

    resource: str
    permissions: tuple[str, ...]
    openid: frozenset[str]

    @property
    def for_api(self) -> bool:
        """Whether the resource is the API registration."""
        return self.resource in API_NAMES

    def audience(self, version: int) -> str:
        """The `aud` of the access token: as asked for in v1.0, the client id in v2.0 (Entra docs, "Access token claims
        reference").
        """
        return API.client_id if self.for_api and version != VERSION_1 else self.resource


def parse(scope: str, tenant: str) -> Requested:
    """Parse and resolve a `scope` parameter. Raises `EntraError` for an unknown resource, or more than one."""
    openid = set()
    permissions: list[str] = []
    resources: list[str] = []
    for entry in scope.split():
        if entry in OPENID_SCOPES:
            openid.add(entry)
            continue
        resource, separator, permission = entry.rpartition("/")
        permissions.append(permission)
        resources.append(resource if separator else GRAPH)
    if len(set(resources)) > 1:
        raise EntraError(
            28000,
            "invalid_scope",
            "Provided value for the input parameter scope is not valid because it contains more than one resource. "
            f"Scope {scope} is not valid.",
        )
    return Requested(_resolve(resources[0] if resources else GRAPH, tenant), tuple(permissions), frozenset(openid))


def delegated(requested: Requested, client: Application) -> tuple[str, ...]:
    """The delegated permissions (`scp`) that a user's token for `client` gets: those asked for, then all others that
    the client was given for that API before. Raises `EntraError` (65001, 650053).
    """
    if requested.resource in _TEAMS_NAMES:
        if not client.teams:
            raise consent_required(client)
        return _known(requested, TEAMS_SCOPES, client)
    if requested.for_api:
        return _known(requested, API.scopes, client)
    named = tuple(name for name in requested.permissions if name != DEFAULT)
    asked = {name.lower() for name in named}
    consented = tuple(name for name in client.graph_scopes if name.lower() not in asked)
    return (*named, *consented) or ("User.Read",)


def consent_required(client: Application) -> EntraError:
    """Nobody has consented that this client uses the permissions it asks for."""
    return EntraError(
        65001,
        "invalid_grant",
        f"The user or administrator has not consented to use the application with ID '{client.client_id}' named "
        f"'{client.name}'. Send an interactive authorization request for this user and resource.",
        suberror="consent_required",
    )


def require_default(scope: str) -> None:
    """Client credentials may ask only for `/.default`. Raises `EntraError`."""
    if len(scope.split()) != 1 or not scope.strip().endswith(f"/{DEFAULT}"):
        raise EntraError(
            1002012,
            "invalid_scope",
            f"The provided value for scope {scope} is not valid. Client credential flows must have a scope value with "
            "/.default suffixed to the resource identifier (application ID URI).",
        )


def _known(requested: Requested, exposed: tuple[str, ...], client: Application) -> tuple[str, ...]:
    if DEFAULT in requested.permissions:
        return exposed
    for permission in requested.permissions:
        if permission not in exposed:
            raise EntraError(
                650053,
                "invalid_client",
                f"The application '{client.name}' asked for scope '{permission}' that doesn't exist on the resource "
                f"'{requested.resource}'. Contact the app vendor.",
            )
    return requested.permissions


def _resolve(resource: str, tenant: str) -> str:
    if resource in (*API_NAMES, *_TEAMS_NAMES, TOKEN_EXCHANGE):
        return resource
    if resource == _GRAPH_ID:
        return GRAPH
    parts = urlsplit(resource)
    if parts.scheme == "https" and parts.hostname:
        return resource
    raise EntraError(
        500011,
        "invalid_resource",
        f"The resource principal named {resource} was not found in the tenant named {tenant}. This can happen if the "
        "application has not been installed by the administrator of the tenant or consented to by any user in the "
        "tenant.",
    )
