"""The fixed local directory: tenants, users and app registrations. Everything here is well known and grants nothing."""

from dataclasses import dataclass
from types import MappingProxyType
from urllib.parse import urlsplit


@dataclass(frozen=True, slots=True)
class Tenant:
    """An Entra tenant; `domain` may stand for its id in URLs."""

    tenant_id: str
    domain: str
    name: str


@dataclass(frozen=True, slots=True)
class User:
    """A user object of one tenant. `username` is the user principal name.

    A guest has a separate object in the inviting tenant (`tenant_id`, `object_id`) and signs in with the account of
    `account_tenant_id`.
    """

    alias: str
    tenant_id: str
    object_id: str
    name: str
    username: str
    account_tenant_id: str

    @property
    def is_guest(self) -> bool:
        """Whether the account belongs to another tenant."""
        return self.account_tenant_id != self.tenant_id


@dataclass(frozen=True, slots=True)
class Application:
    """An app registration with its service principal (`object_id`).

    Without a `secret` it is a public client. `single_page` and `loopback_redirects` describe its redirect URIs: any
    path and any port on loopback. `scopes` and `app_roles` are what it exposes as an API under `app_id_uri`.
    `graph_roles` and `graph_scopes` are the application and the delegated permissions for Microsoft Graph that an
    administrator has consented to.
    """

    client_id: str
    object_id: str
    name: str
    secret: str | None = None
    single_page: bool = False
    loopback_redirects: bool = False
    app_id_uri: str | None = None
    scopes: tuple[str, ...] = ()
    app_roles: tuple[str, ...] = ()
    graph_roles: tuple[str, ...] = ()
    graph_scopes: tuple[str, ...] = ()
    teams: bool = False

    @property
    def is_public(self) -> bool:
        """Whether the client holds no credential."""
        return self.secret is None

    def allows_redirect(self, uri: str) -> bool:
        """Whether `uri` is one of its redirect URIs.

        Entra ignores the port of a localhost redirect URI (RFC 8252, section 7.3).
        """
        if not self.loopback_redirects:
            return False
        parts = urlsplit(uri)
        return parts.scheme in {"http", "https"} and is_loopback(parts.hostname) and not parts.fragment


def is_loopback(host: str | None) -> bool:
    """Whether a URL's host is this machine's loopback."""
    return host in {"localhost", "127.0.0.1", "::1"}


HOME_TENANT = Tenant("7f2b5a10-3c4d-4e8f-9a61-0d5c8e2b7a11", "contoso.localhost", "Contoso (local)")
OTHER_TENANT = Tenant("c3d9e6f4-81a2-4b57-8c0e-5f7a2d1b9e22", "fabrikam.localhost", "Fabrikam (local)")
TENANTS = (HOME_TENANT, OTHER_TENANT)

_HOME = HOME_TENANT.tenant_id
_OTHER = OTHER_TENANT.tenant_id
_USERS = (
    User("alex", _HOME, "a1e5c0de-0001-4a6b-8f21-6d0c3b9e4f01", "Alex Wilber", "alex@contoso.localhost", _HOME),
    User("megan", _HOME, "a1e5c0de-0002-4a6b-8f21-6d0c3b9e4f02", "Megan Bowen", "megan@contoso.localhost", _HOME),
    User("pradeep", _HOME, "a1e5c0de-0003-4a6b-8f21-6d0c3b9e4f03", "Pradeep Gupta", "pradeep@contoso.localhost", _HOME),
    User("zoe", _HOME, "a1e5c0de-0004-4a6b-8f21-6d0c3b9e4f04", "Zoë Ångström", "zoe@contoso.localhost", _HOME),
    User("nestor", _OTHER, "b2f6d1ef-0001-4c7d-9e32-7e1d4caf5a01", "Nestor Wilke", "nestor@fabrikam.localhost", _OTHER),
    User(
        "guest",
        _HOME,
        "a1e5c0de-0009-4a6b-8f21-6d0c3b9e4f09",
        "Isaiah Langer (guest)",
        "isaiah_fabrikam.localhost#EXT#@contoso.localhost",
        _OTHER,
    ),
)
USERS = MappingProxyType({user.alias: user for user in _USERS})

RESOLVE_SCOPE = "resolve_users"
"""The scope with which the service may be asked for colleagues' identities (`ENTRA_RESOLVE_SCOPE`)."""

_API_ID = "5e1f0a2b-9c3d-4d7e-8b6a-1a2b3c4d5e01"
API = Application(
    _API_ID,
    "5e1f0a2b-9c3d-4d7e-8b6a-1a2b3c4d5ef1",
    "ACS authentication service",
    secret="local-development-only-api-secret",  # noqa: S106  # well known, opens nothing but this stand-in
    app_id_uri=f"api://{_API_ID}",
    scopes=("access_as_user", RESOLVE_SCOPE),
    app_roles=("Identities.Manage.All",),
    graph_roles=("User.ReadWrite.All", "Directory.Read.All"),
    graph_scopes=("User.ReadWrite",),
)
BROWSER = Application(
    "5e1f0a2b-9c3d-4d7e-8b6a-1a2b3c4d5e02",
    "5e1f0a2b-9c3d-4d7e-8b6a-1a2b3c4d5ef2",
    "Browser client",
    single_page=True,
    loopback_redirects=True,
)
TEAMS = Application(
    "5e1f0a2b-9c3d-4d7e-8b6a-1a2b3c4d5e03",
    "5e1f0a2b-9c3d-4d7e-8b6a-1a2b3c4d5ef3",
    "Teams client",
    single_page=True,
    loopback_redirects=True,
    teams=True,
)
DAEMON = Application(
    "5e1f0a2b-9c3d-4d7e-8b6a-1a2b3c4d5e04",
    "5e1f0a2b-9c3d-4d7e-8b6a-1a2b3c4d5ef4",
    "Daemon",
    secret="local-development-only-daemon-secret",  # noqa: S106  # well known, opens nothing but this stand-in
)
MANAGED_IDENTITY = Application(
    "5e1f0a2b-9c3d-4d7e-8b6a-1a2b3c4d5e05",
    "5e1f0a2b-9c3d-4d7e-8b6a-1a2b3c4d5ef5",
    "User-assigned managed identity",
)
COMMAND_LINE = Application(
    "5e1f0a2b-9c3d-4d7e-8b6a-1a2b3c4d5e06",
    "5e1f0a2b-9c3d-4d7e-8b6a-1a2b3c4d5ef6",
    "Command line client",
    loopback_redirects=True,
)
APPLICATIONS = MappingProxyType(
    {app.client_id: app for app in (API, BROWSER, TEAMS, DAEMON, MANAGED_IDENTITY, COMMAND_LINE)}
)


def tenant_named(name: str) -> Tenant | None:
    """The tenant with this id or domain."""
    return next((tenant for tenant in TENANTS if name.lower() in {tenant.tenant_id, tenant.domain}), None)


def user_with_object_id(tenant_id: str, object_id: str) -> User | None:
    """The user object of a tenant."""
    return next((user for user in _USERS if (user.tenant_id, user.object_id) == (tenant_id, object_id)), None)


def users_of(tenant: Tenant | None) -> list[User]:
    """Who can sign in at a tenant; without one (`common`, `organizations`), everybody at their own."""
    if tenant is None:
        return [user for user in _USERS if not user.is_guest]
    return [user for user in _USERS if user.tenant_id == tenant.tenant_id]


def user_hinted(tenant: Tenant | None, login_hint: str) -> User | None:
    """The user that a `login_hint` (user principal name, object id or alias) means at a tenant."""
    hint = login_hint.lower()
    return next(
        (user for user in users_of(tenant) if hint in {user.username.lower(), user.object_id, user.alias}), None
    )
