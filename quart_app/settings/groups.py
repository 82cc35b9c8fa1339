"""The settings by concern: one model for each, read from variables that share a prefix."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import date
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, ClassVar, get_args, get_origin

from pydantic import AfterValidator, AliasChoices, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr

from quart_app.settings.certificates import ClientCertificate
from quart_app.settings.connection_strings import AcsConnectionString, check_application_insights
from quart_app.settings.values import (
    Guid,
    Guids,
    Origins,
    Tenants,
    Word,
    Words,
    check_acs_address,
    check_address,
    check_authority_host,
    check_base64,
    check_client_secret,
    check_cosmos_address,
    check_graph_address,
    check_host,
    check_issuer,
    check_seal_keys,
    check_tenant,
    check_token_scopes,
    check_within_90_days,
    looking_like,
    parse_date,
    split_words,
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


class DoorName(StrEnum):
    """By which door callers come in. Each has its own issuers, audiences, scope or role, and token scopes.

    entra  users of Microsoft Entra ID
    oidc   users of the other OpenID Connect issuer, OIDC_ISSUER
    """

    ENTRA = "entra"
    OIDC = "oidc"


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


def _parsed(parse: Callable[[Any], Any]) -> BeforeValidator:
    """Text becomes the value by `parse`; what is a value already stays as it is."""
    return BeforeValidator(lambda given: parse(given) if isinstance(given, str) else given)


class Group(BaseModel):
    """One concern's settings. Their variables share `prefix`; values are given by the variables' names."""

    model_config = ConfigDict(frozen=True, arbitrary_types_allowed=True)
    prefix: ClassVar[str] = ""


class ServerSettings(Group):
    """How the service listens. Times are in seconds."""

    environment: Environment = Environment.PRODUCTION
    console: bool | None = None
    host: Annotated[str, AfterValidator(check_host)] = "0.0.0.0"  # noqa: S104 (a container listens on every interface)
    port: int = Field(5000, ge=1, le=65535)
    shutdown_delay_seconds: float = Field(0, ge=0, le=10)
    request_deadline_seconds: float = Field(10, gt=0, le=120)
    max_concurrent_requests: int = Field(500, ge=1)
    rate_limit_requests_per_minute: int = Field(600, ge=0)
    trusted_proxy_hops: int = Field(0, ge=0, le=10)

    @property
    def in_development(self) -> bool:
        """Whether clients are told more than is good for production."""
        return self.environment is Environment.DEVELOPMENT

    @property
    def shows_console(self) -> bool:
        """Whether `/` is the console: as `console` says, else only in development."""
        return self.in_development if self.console is None else self.console


class CorsSettings(Group):
    """Which browser origins may call."""

    prefix = "CORS_"
    allowed_origins: Origins = ()


Certificate = Annotated[ClientCertificate, _parsed(lambda path: ClientCertificate.load(Path(path)))]
ScopeName = Annotated[str, looking_like(r"[^\s/]+", "must be only the scope's name, such as access_as_user")]


class EntraSettings(Group):
    """The API's app registration, and whose access tokens it takes: the door `entra`.

    Required unless `OidcSettings.issuer` is set.
    """

    prefix = "ENTRA_"
    tenant_id: Annotated[str, AfterValidator(check_tenant)] = Field(
        "", validate_default=False, validation_alias=_named("ENTRA_TENANT_ID", *_samples("tenantId"))
    )
    client_id: Guid = Field(
        "", validate_default=False, validation_alias=_named("ENTRA_CLIENT_ID", *_samples("clientId"))
    )
    client_secret: Annotated[SecretStr, AfterValidator(check_client_secret)] | None = Field(
        None, validation_alias=_named("ENTRA_CLIENT_SECRET", *_samples("clientSecret"))
    )
    client_certificate: Certificate | None = Field(None, alias="client_certificate_path")
    managed_identity_client_id: Guid | None = None
    allowed_tenants: Tenants = ()
    allowed_clients: Guids = ()
    allow_guests: bool = True
    audiences: Words = ()
    required_scope: ScopeName = "access_as_user"
    resolve_scope: ScopeName | None = None
    authority_host: Annotated[str, AfterValidator(check_authority_host)] = Field(
        "https://login.microsoftonline.com",
        validation_alias=_named("ENTRA_AUTHORITY_HOST", "AzureActiveDirectory__Instance"),
    )

    @property
    def client_certificate_path(self) -> Path | None:
        """Where the client certificate was loaded from."""
        return self.client_certificate.path if self.client_certificate else None

    @property
    def client_credentials(self) -> tuple[str, ...]:
        """By which variables the API's own registration proves itself to Entra ID: those that are set."""
        return tuple(name for name in CLIENT_CREDENTIALS if getattr(self, name.removeprefix("ENTRA_").lower()))

    @property
    def tenants(self) -> tuple[str, ...]:
        """The tenants whose users may call; only the home tenant unless a list is given."""
        return self.allowed_tenants or (self.tenant_id,)

    @property
    def accepted_audiences(self) -> tuple[str, ...]:
        """v2 tokens carry the client id as `aud`, v1 tokens the App ID URI or the client id."""
        return self.audiences or (self.client_id, f"api://{self.client_id}")

    @property
    def full_scope(self) -> str:
        """The required scope as a client requests it: the App ID URI and the scope's name."""
        return self.in_full(self.required_scope)

    def in_full(self, scope: str) -> str:
        """A scope of this API as a client requests it."""
        uris = [audience for audience in self.accepted_audiences if "://" in audience]
        return f"{uris[0] if uris else f'api://{self.client_id}'}/{scope}"


CLIENT_CREDENTIALS = ("ENTRA_CLIENT_SECRET", "ENTRA_CLIENT_CERTIFICATE_PATH", "ENTRA_MANAGED_IDENTITY_CLIENT_ID")
"""The ways for the API's own registration to prove itself to Entra ID."""


class OidcSettings(Group):
    """Another OpenID Connect issuer, whose users call where `issuer` is set: the door `oidc`.

    `acs_token_scopes` are those of `AcsSettings` unless given.
    """

    prefix = "OIDC_"
    issuer: Annotated[str, AfterValidator(check_address), AfterValidator(check_issuer)] | None = None
    discovery_url: Annotated[str, AfterValidator(check_address)] | None = None
    audience: Words = ()
    subject_claim: Word = "sub"
    required_scope: Word | None = None
    required_role: str | None = None
    roles_claim: Word = "roles"
    acs_token_scopes: Annotated[Words, AfterValidator(check_token_scopes)] = Field((), validate_default=False)

    @property
    def discovery_address(self) -> str | None:
        """Where the issuer's discovery document is.

        A slash at the end of the issuer is not part of it (OpenID Connect Discovery 1.0, section 4).
        """
        below = f"{self.issuer.rstrip('/')}/.well-known/openid-configuration" if self.issuer else None
        return self.discovery_url or below


class TeamsSettings(Group):
    """Which client applications may get the Teams tokens that are exchanged (their `appid`/`azp`), and their `aud`."""

    prefix = "TEAMS_"
    client_ids: Guids = ()
    audiences: Words = ACS_TEAMS_AUDIENCES


class AcsSettings(Group):
    """The ACS resource, and what its access tokens may be good for. Without a key the managed identity is used."""

    prefix = "ACS_"
    connection_string: Annotated[AcsConnectionString, _parsed(AcsConnectionString.parse)] | None = Field(
        None,
        validation_alias=_named(
            "ACS_CONNECTION_STRING", "communicationServices_connectionString", "CommunicationServices__ConnectionString"
        ),
    )
    endpoint: Annotated[str, AfterValidator(check_acs_address)] | None = None
    token_scopes: Annotated[Words, AfterValidator(check_token_scopes)] = Field(
        ("chat", "voip"), validation_alias=_named("ACS_TOKEN_SCOPES", "CommunicationServices__Scopes")
    )
    token_lifetime_minutes: int = Field(1440, ge=60, le=1440)
    token_reuse_minutes: int = Field(0, ge=0, lt=1440)


class StorageSettings(Group):
    """Which store holds the mappings."""

    prefix = "STORAGE_"
    backend: StorageBackend


Region = Annotated[str, looking_like(r"[a-z][a-z0-9]*", "must be a region by Azure's short name, such as northeurope")]
CosmosName = Annotated[str, looking_like(r"[^/\\?#]{1,255}", "must be a name without /, \\, ? and #")]


class CosmosSettings(Group):
    """The Cosmos DB container. Without a key the managed identity is used."""

    prefix = "COSMOS_"
    endpoint: Annotated[str, AfterValidator(check_cosmos_address)] | None = None
    key: Annotated[SecretStr, AfterValidator(check_base64)] | None = None
    database: CosmosName = "acs-auth"
    container: CosmosName = "identity-mappings"
    preferred_regions: Annotated[tuple[Region, ...], BeforeValidator(split_words)] = ()
    create_if_missing: bool = False


class GraphSettings(Group):
    """Microsoft Graph and the open extension that holds a mapping."""

    prefix = "GRAPH_"
    base_url: Annotated[str, AfterValidator(check_graph_address)] = Field(
        "https://graph.microsoft.com", validation_alias=_named("GRAPH_BASE_URL", "Graph__BaseUrl")
    )
    extension_name: Annotated[
        str, looking_like(r"[A-Za-z0-9_.]{1,128}", "must be a name of letters, digits, dots and underscores")
    ] = Field(
        "com.contoso.identityMapping",
        validation_alias=_named("GRAPH_EXTENSION_NAME", "Graph__ExtensionName"),
    )
    seal_keys: Annotated[SecretStr, AfterValidator(check_seal_keys)] | None = None
    accept_unsealed_until: Annotated[date, _parsed(parse_date), AfterValidator(check_within_90_days)] | None = None


NO_SEAL_KEYS = (
    "GRAPH_SEAL_KEYS, the secret by which mappings are sealed, because users may write their own extensions; make one "
    "with: openssl rand -base64 32"
)


class SqliteSettings(Group):
    """The SQLite file."""

    prefix = "SQLITE_"
    path: Path = Path("mappings.sqlite")


class DocsSettings(Group):
    """The browser client registration with which `/docs` signs users in; none leaves the field to be typed."""

    prefix = "DOCS_"
    client_id: Word | None = None
    scopes: Words = ()


ApplicationInsights = Annotated[SecretStr, AfterValidator(check_application_insights)]


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
    """All settings, by concern. `sources` says, by variable name, where each one that is set comes from."""

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
    sources: Mapping[str, str] = field(default_factory=dict, compare=False)

    @property
    def doors(self) -> tuple[DoorName, ...]:
        """The doors that are open, at least one."""
        given = {DoorName.ENTRA: self.entra.tenant_id, DoorName.OIDC: self.oidc.issuer}
        return tuple(door for door in DoorName if given[door])

    def token_scopes(self, door: DoorName) -> tuple[str, ...]:
        """What ACS tokens of those who come in by this door may be good for."""
        own = self.oidc.acs_token_scopes if door is DoorName.OIDC else ()
        return own or self.acs.token_scopes

    @property
    def issued_scopes(self) -> frozenset[str]:
        """What ACS tokens may be good for, whichever door their users come in by."""
        return frozenset(scope for door in self.doors for scope in self.token_scopes(door))


GROUPS: Mapping[str, type[Group]] = {
    name: annotation for name, annotation in Settings.__annotations__.items() if isinstance(annotation, type)
}


def variable_names() -> list[str]:
    """The name of every setting, in the order of their concerns."""
    return [variable_name(group, field) for group in GROUPS.values() for field in group.model_fields]


def variable_name(group: type[Group], field: str) -> str:
    """The environment variable of a field."""
    return f"{group.prefix}{group.model_fields[field].alias or field}".upper()


def key_of(group: type[Group], field: str) -> str:
    """By which name a group is given the field's value."""
    information = group.model_fields[field]
    if isinstance(information.validation_alias, AliasChoices):
        return str(information.validation_alias.choices[0])
    return information.alias or field


def names_of(group: type[Group], field: str) -> Iterable[str]:
    """All names by which a field's value may be set, those of the samples last."""
    yield variable_name(group, field)
    alias = group.model_fields[field].validation_alias
    if isinstance(alias, AliasChoices):
        yield from (str(choice) for choice in alias.choices[1:])


def is_secret(group: type[Group], field: str) -> bool:
    """Whether the value must never be shown."""
    return any(_mentions(group.model_fields[field].annotation, kind) for kind in (SecretStr, AcsConnectionString))


def is_list(group: type[Group], field: str) -> bool:
    """Whether the value is several words, separated by commas or white space."""
    return _mentions(group.model_fields[field].annotation, tuple)


def _mentions(annotation: Any, kind: type) -> bool:
    return kind in (annotation, get_origin(annotation)) or any(_mentions(each, kind) for each in get_args(annotation))
