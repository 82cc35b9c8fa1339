"""The settings by concern: one model for each, read from variables that share a prefix."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, AliasChoices, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from quart_app.settings.values import (
    Guid,
    Guids,
    HttpsUrl,
    Origins,
    Words,
    check_address,
    check_application_insights,
    check_base64,
    check_connection_string,
    check_issuer,
    check_token_scopes,
    without_version,
)

ACS_TEAMS_AUDIENCES = (
    "https://auth.msft.communication.azure.com",
    "https://auth.msft.communication.azure.com/",
    "1fd5118e-2576-4263-8130-9503064c837a",
)
"""The resource Azure Communication Services in Entra ID
(https://learn.microsoft.com/azure/communication-services/quickstarts/manage-teams-identity)."""


class Environment(StrEnum):
    """Where the service runs. `development` adds stack traces to error answers."""

    DEVELOPMENT = "development"
    PRODUCTION = "production"


class StorageBackend(StrEnum):
    """Where mappings live."""

    COSMOS = "cosmos"
    GRAPH = "graph"
    SQLITE = "sqlite"


def _named(name: str, *samples_names: str) -> AliasChoices:
    """The setting's own name, and those that Microsoft's samples have for it; the first that is set counts."""
    return AliasChoices(name, *samples_names)


def _samples(name: str) -> tuple[str, str, str]:
    """What the Node.js sample calls a setting of its app registration, now and before, and the C# sample."""
    return (
        f"microsoftEntraID_{name}",
        f"azureActiveDirectory_{name}",
        f"AzureActiveDirectory__{name[0].upper()}{name[1:]}",
    )


class Group(BaseSettings):
    """One concern's settings, read from variables that share a prefix."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_ignore_empty=True)


class ServerSettings(Group):
    """How the service listens. Times are in seconds."""

    environment: Environment = Environment.PRODUCTION
    host: str = "0.0.0.0"  # noqa: S104 (a container listens on every interface)
    port: int = Field(5000, ge=1, le=65535)
    request_deadline_seconds: float = Field(10, gt=0, le=120)
    max_concurrent_requests: int = Field(500, ge=1)
    rate_limit_requests_per_minute: int = Field(600, ge=0)
    trusted_proxy_hops: int = Field(0, ge=0, le=10)


class CorsSettings(Group):
    """Which browser origins may call."""

    model_config = SettingsConfigDict(env_prefix="CORS_")
    allowed_origins: Origins = ()


class EntraSettings(Group):
    """The API's app registration, and whose access tokens it takes. Required unless `OidcSettings.issuer` is set."""

    model_config = SettingsConfigDict(env_prefix="ENTRA_")
    tenant_id: Guid = Field(
        "", validate_default=False, validation_alias=_named("ENTRA_TENANT_ID", *_samples("tenantId"))
    )
    client_id: Guid = Field(
        "", validate_default=False, validation_alias=_named("ENTRA_CLIENT_ID", *_samples("clientId"))
    )
    client_secret: SecretStr | None = Field(
        None, validation_alias=_named("ENTRA_CLIENT_SECRET", *_samples("clientSecret"))
    )
    client_certificate_path: Path | None = None
    managed_identity_client_id: Guid | None = None
    allowed_tenants: Guids = ()
    allowed_clients: Guids = ()
    allow_guests: bool = True
    audiences: Words = ()
    required_scope: str = Field("access_as_user", pattern=r"^[^\s/]+$")
    authority_host: HttpsUrl = Field(
        "https://login.microsoftonline.com",
        validation_alias=_named("ENTRA_AUTHORITY_HOST", "AzureActiveDirectory__Instance"),
    )

    @property
    def client_credentials(self) -> tuple[str, ...]:
        """By which variables the API's own registration proves itself to Entra ID: those that are set."""
        return tuple(name for name in CLIENT_CREDENTIALS if getattr(self, name.removeprefix("ENTRA_").lower()))

    @property
    def tenants(self) -> tuple[str, ...]:
        """The tenants whose users may call; the home tenant alone unless a list is given."""
        return self.allowed_tenants or (self.tenant_id,)

    @property
    def accepted_audiences(self) -> tuple[str, ...]:
        """v2 tokens carry the client id as `aud`, v1 tokens the App ID URI or the client id."""
        return self.audiences or (self.client_id, f"api://{self.client_id}")

    @property
    def full_scope(self) -> str:
        """The scope as a client requests it: the App ID URI and the scope's name."""
        uris = [audience for audience in self.accepted_audiences if "://" in audience]
        return f"{uris[0] if uris else f'api://{self.client_id}'}/{self.required_scope}"


CLIENT_CREDENTIALS = ("ENTRA_CLIENT_SECRET", "ENTRA_CLIENT_CERTIFICATE_PATH", "ENTRA_MANAGED_IDENTITY_CLIENT_ID")
"""The ways for the API's own registration to prove itself to Entra ID."""


class OidcSettings(Group):
    """Another OpenID Connect issuer: where `issuer` is set, its users call, and Entra ID's do not."""

    model_config = SettingsConfigDict(env_prefix="OIDC_")
    issuer: Annotated[str, AfterValidator(check_address), AfterValidator(check_issuer)] | None = None
    discovery_url: Annotated[str, AfterValidator(check_address)] | None = None
    audience: Words = ()
    subject_claim: str = Field("sub", pattern=r"^\S+$")
    required_scope: str | None = Field(None, pattern=r"^\S+$")
    required_role: str | None = None
    roles_claim: str = Field("roles", pattern=r"^\S+$")


class TeamsSettings(Group):
    """Which client applications may get the Teams tokens that are exchanged (their `appid`/`azp`), and their `aud`."""

    model_config = SettingsConfigDict(env_prefix="TEAMS_")
    client_ids: Guids = ()
    audiences: Words = ACS_TEAMS_AUDIENCES


class AcsSettings(Group):
    """The ACS resource, and what its access tokens are good for. Without a key the managed identity is used."""

    model_config = SettingsConfigDict(env_prefix="ACS_")
    connection_string: Annotated[SecretStr, AfterValidator(check_connection_string)] | None = Field(
        None,
        validation_alias=_named(
            "ACS_CONNECTION_STRING", "communicationServices_connectionString", "CommunicationServices__ConnectionString"
        ),
    )
    endpoint: HttpsUrl | None = None
    token_scopes: Annotated[Words, AfterValidator(check_token_scopes)] = ("chat", "voip")
    token_lifetime_minutes: int = Field(1440, ge=60, le=1440)
    token_reuse_minutes: int = Field(0, ge=0, lt=1440)


class StorageSettings(Group):
    """Which store holds the mappings."""

    model_config = SettingsConfigDict(env_prefix="STORAGE_")
    backend: StorageBackend


class CosmosSettings(Group):
    """The Cosmos DB container. Without a key the managed identity is used."""

    model_config = SettingsConfigDict(env_prefix="COSMOS_")
    endpoint: HttpsUrl | None = None
    key: Annotated[SecretStr, AfterValidator(check_base64)] | None = None
    database: str = Field("acs-auth", pattern=r"^[^/\\?#]{1,255}$")
    container: str = Field("identity-mappings", pattern=r"^[^/\\?#]{1,255}$")
    create_if_missing: bool = False


class GraphSettings(Group):
    """Microsoft Graph and the open extension that holds a mapping."""

    model_config = SettingsConfigDict(env_prefix="GRAPH_")
    base_url: Annotated[HttpsUrl, AfterValidator(without_version)] = Field(
        "https://graph.microsoft.com", validation_alias=_named("GRAPH_BASE_URL", "Graph__BaseUrl")
    )
    extension_name: str = Field(
        "com.contoso.identityMapping",
        pattern=r"^[A-Za-z0-9_.]{1,128}$",
        validation_alias=_named("GRAPH_EXTENSION_NAME", "Graph__ExtensionName"),
    )


class SqliteSettings(Group):
    """The SQLite file."""

    model_config = SettingsConfigDict(env_prefix="SQLITE_")
    path: Path = Path("mappings.sqlite")


class DocsSettings(Group):
    """The browser client registration with which `/docs` signs users in; none leaves the field to be typed."""

    model_config = SettingsConfigDict(env_prefix="DOCS_")
    client_id: str | None = Field(None, pattern=r"^\S+$")
    scopes: Words = ()


class TelemetrySettings(Group):
    """Where traces and metrics go, and the key under which logs name users.

    An OTLP collector is set by OpenTelemetry's own variables (`OTEL_EXPORTER_OTLP_ENDPOINT` and so on).
    """

    applicationinsights_connection_string: Annotated[SecretStr, AfterValidator(check_application_insights)] | None = (
        None
    )
    log_hash_key: SecretStr | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings, by concern."""

    server: ServerSettings
    cors: CorsSettings
    entra: EntraSettings
    oidc: OidcSettings
    teams: TeamsSettings
    acs: AcsSettings
    storage: StorageSettings
    cosmos: CosmosSettings
    graph: GraphSettings
    sqlite: SqliteSettings
    docs: DocsSettings
    telemetry: TelemetrySettings

    def shown(self) -> Iterable[tuple[str, str]]:
        """Every setting by its variable's name, as it is in effect; secrets only as set or not."""
        for name, group in GROUPS.items():
            values = getattr(self, name)
            for field in group.model_fields:
                yield variable_name(group, field), _shown(getattr(values, field))


GROUPS: Mapping[str, type[Group]] = {
    name: annotation for name, annotation in Settings.__annotations__.items() if isinstance(annotation, type)
}


def variable_names() -> list[str]:
    """The name of every setting, in the order of their concerns."""
    return [variable_name(group, field) for group in GROUPS.values() for field in group.model_fields]


def variable_name(group: type[Group], field: str) -> str:
    """The environment variable of a field."""
    return f"{group.model_config.get('env_prefix', '')}{field}".upper()


def aliases(group: type[Group]) -> Iterable[tuple[str, str]]:
    """Every field that goes by several names, with each of them."""
    for field, information in group.model_fields.items():
        if isinstance(information.validation_alias, AliasChoices):
            for choice in information.validation_alias.choices:
                yield field, str(choice)


def _shown(value: object) -> str:
    if isinstance(value, SecretStr):
        return "(set, not shown)"
    if isinstance(value, tuple):
        return ",".join(value)
    return "" if value is None else str(value)
