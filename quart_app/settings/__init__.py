"""Typed settings from the environment and `.env`. Every fault is reported at once. May import `clouds`."""

from quart_app.settings.groups import (
    CLIENT_CREDENTIALS,
    AcsSettings,
    CorsSettings,
    CosmosSettings,
    DocsSettings,
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
    variable_names,
)
from quart_app.settings.loading import InvalidSettings, load_settings

__all__ = [
    "CLIENT_CREDENTIALS",
    "AcsSettings",
    "CorsSettings",
    "CosmosSettings",
    "DocsSettings",
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
    "load_settings",
    "variable_names",
]
