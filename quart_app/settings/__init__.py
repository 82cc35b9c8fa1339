"""Typed settings from the environment and `.env`. Every fault is reported at once. May import `clouds`."""

from quart_app.settings.certificates import ClientCertificate
from quart_app.settings.connection_strings import AcsConnectionString
from quart_app.settings.groups import (
    CLIENT_CREDENTIALS,
    GROUPS,
    NO_SEAL_KEYS,
    AcsSettings,
    CorsSettings,
    CosmosSettings,
    DocsSettings,
    DoorName,
    EntraSettings,
    Environment,
    GraphSettings,
    OidcSettings,
    ServerSettings,
    Settings,
    SqliteSettings,
    StorageBackend,
    StorageSettings,
    TeamsSettings,
    TelemetrySettings,
    is_secret,
    variable_name,
    variable_names,
)
from quart_app.settings.loading import InvalidSettings, load_settings
from quart_app.settings.showing import callers, shown_settings
from quart_app.settings.values import INCLUDED_SCOPES, included_scopes

__all__ = [
    "CLIENT_CREDENTIALS",
    "GROUPS",
    "INCLUDED_SCOPES",
    "NO_SEAL_KEYS",
    "AcsConnectionString",
    "AcsSettings",
    "ClientCertificate",
    "CorsSettings",
    "CosmosSettings",
    "DocsSettings",
    "DoorName",
    "EntraSettings",
    "Environment",
    "GraphSettings",
    "InvalidSettings",
    "OidcSettings",
    "ServerSettings",
    "Settings",
    "SqliteSettings",
    "StorageBackend",
    "StorageSettings",
    "TeamsSettings",
    "TelemetrySettings",
    "callers",
    "included_scopes",
    "is_secret",
    "load_settings",
    "shown_settings",
    "variable_name",
    "variable_names",
]
