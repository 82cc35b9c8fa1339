"""Typed settings from the environment (and `.env`). Every fault is reported at once, before the port opens."""

import base64
import difflib
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from dotenv import dotenv_values
from pydantic import AfterValidator, AliasChoices, BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from quart_app.auth.clouds import CLOUDS, cloud_of

ACS_TOKEN_SCOPES = ("chat", "voip", "chat.join", "chat.join.limited", "voip.join")
"""The scopes ACS knows (azure-rest-api-specs: CommunicationIdentity.json 2023-10-01, CommunicationTokenScope)."""


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


class InvalidSettings(Exception):
    """The settings can't be used; `faults` holds one sentence for each thing that is wrong, none with a secret."""

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


def _split(value: Any) -> Any:
    return tuple(re.findall(r"[^,\s]+", value)) if isinstance(value, str) else value


def _guid(value: str) -> str:
    if not re.fullmatch(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", value):
        raise ValueError("must be a GUID such as 11112222-bbbb-3333-cccc-4444dddd5555")
    return value.lower()


def _https_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme != "https" or not parts.hostname or parts.query or parts.fragment or parts.username:
        raise ValueError("must be an https:// URL without a query")
    return value.rstrip("/")


def _address(value: str) -> str:
    """An https URL that is kept as it is written: two issuers may differ in a slash at the end."""
    parts = urlsplit(value)
    if parts.scheme != "https" or not parts.hostname or parts.fragment or parts.username or re.search(r"\s", value):
        raise ValueError("must be an https:// URL")
    return value


def _issuer(value: str) -> str:
    if "?" in value:  # OpenID Connect Discovery 1.0, section 3
        raise ValueError("must be an https:// URL without a query, exactly as the issuer writes it")
    return value


def _origin(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname or value.count("/") != 2:
        raise ValueError("each must be an exact origin such as https://app.example.com, without path or wildcard")
    return value.lower()


def _connection_string(value: SecretStr) -> SecretStr:
    parts = dict(part.partition("=")[::2] for part in value.get_secret_value().split(";"))
    given = {key.strip().lower(): rest for key, rest in parts.items()}
    try:
        _https_url(given.get("endpoint", ""))
        key = base64.b64decode(given.get("accesskey", ""), validate=True)
    except ValueError:
        key = b""
    if not key:
        raise ValueError(
            "must look like endpoint=https://NAME.communication.azure.com/;accesskey=KEY; "
            "copy it from the ACS resource's Keys page"
        )
    return value


def _application_insights(value: SecretStr) -> SecretStr:
    parts = dict(part.partition("=")[::2] for part in value.get_secret_value().split(";"))
    given = {key.strip().lower(): rest for key, rest in parts.items()}
    try:
        _guid(given.get("instrumentationkey", ""))
        _https_url(given.get("ingestionendpoint", "https://default.example"))
    except ValueError:
        raise ValueError(
            "must look like InstrumentationKey=GUID;IngestionEndpoint=https://…; "
            "copy it from the Application Insights resource's overview"
        ) from None
    return value


def _base64(value: SecretStr) -> SecretStr:
    try:
        base64.b64decode(value.get_secret_value(), validate=True)
    except ValueError:
        raise ValueError("must be an account key in base64; copy it from the account's Keys page") from None
    return value


def _token_scopes(value: tuple[str, ...]) -> tuple[str, ...]:
    if not value or not set(value) <= set(ACS_TOKEN_SCOPES):
        raise ValueError(f"must name one or more of {', '.join(ACS_TOKEN_SCOPES)}")
    return value


def _without_version(value: str) -> str:
    return value.removesuffix("/v1.0")


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


Guid = Annotated[str, AfterValidator(_guid)]
HttpsUrl = Annotated[str, AfterValidator(_https_url)]
Origin = Annotated[str, AfterValidator(_origin)]
Words = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
Guids = Annotated[tuple[Guid, ...], NoDecode, BeforeValidator(_split)]
Origins = Annotated[tuple[Origin, ...], NoDecode, BeforeValidator(_split)]


class _Group(BaseSettings):
    """One concern's settings, read from variables that share a prefix."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_ignore_empty=True)


class ServerSettings(_Group):
    """How the service listens. Times are in seconds."""

    environment: Environment = Environment.PRODUCTION
    host: str = "0.0.0.0"  # noqa: S104 (a container listens on every interface)
    port: int = Field(5000, ge=1, le=65535)
    request_deadline_seconds: float = Field(10, gt=0, le=120)
    max_concurrent_requests: int = Field(500, ge=1)
    rate_limit_requests_per_minute: int = Field(600, ge=0)
    trusted_proxy_hops: int = Field(0, ge=0, le=10)


class CorsSettings(_Group):
    """Which browser origins may call."""

    model_config = SettingsConfigDict(env_prefix="CORS_")
    allowed_origins: Origins = ()


class EntraSettings(_Group):
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
    audiences: Words = ()
    required_scope: str = Field("access_as_user", pattern=r"^[^\s/]+$")
    authority_host: HttpsUrl = Field(
        "https://login.microsoftonline.com",
        validation_alias=_named("ENTRA_AUTHORITY_HOST", "AzureActiveDirectory__Instance"),
    )

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


class OidcSettings(_Group):
    """Another OpenID Connect issuer: where `issuer` is set, its users call, and Entra ID's do not."""

    model_config = SettingsConfigDict(env_prefix="OIDC_")
    issuer: Annotated[str, AfterValidator(_address), AfterValidator(_issuer)] | None = None
    discovery_url: Annotated[str, AfterValidator(_address)] | None = None
    audience: Words = ()
    subject_claim: str = Field("sub", pattern=r"^\S+$")
    required_scope: str | None = Field(None, pattern=r"^\S+$")
    required_role: str | None = None
    roles_claim: str = Field("roles", pattern=r"^\S+$")


class TeamsSettings(_Group):
    """Which client applications may get the Teams tokens that are exchanged (their `appid`/`azp`), and their `aud`."""

    model_config = SettingsConfigDict(env_prefix="TEAMS_")
    client_ids: Guids = ()
    audiences: Words = ACS_TEAMS_AUDIENCES


class AcsSettings(_Group):
    """The ACS resource, and what its access tokens are good for. Without a key the managed identity is used."""

    model_config = SettingsConfigDict(env_prefix="ACS_")
    connection_string: Annotated[SecretStr, AfterValidator(_connection_string)] | None = Field(
        None,
        validation_alias=_named(
            "ACS_CONNECTION_STRING", "communicationServices_connectionString", "CommunicationServices__ConnectionString"
        ),
    )
    endpoint: HttpsUrl | None = None
    token_scopes: Annotated[Words, AfterValidator(_token_scopes)] = ("chat", "voip")
    token_lifetime_minutes: int = Field(1440, ge=60, le=1440)
    token_reuse_minutes: int = Field(0, ge=0, lt=1440)


class StorageSettings(_Group):
    """Which store holds the mappings."""

    model_config = SettingsConfigDict(env_prefix="STORAGE_")
    backend: StorageBackend


class CosmosSettings(_Group):
    """The Cosmos DB container. Without a key the managed identity is used."""

    model_config = SettingsConfigDict(env_prefix="COSMOS_")
    endpoint: HttpsUrl | None = None
    key: Annotated[SecretStr, AfterValidator(_base64)] | None = None
    database: str = Field("acs-auth", pattern=r"^[^/\\?#]{1,255}$")
    container: str = Field("identity-mappings", pattern=r"^[^/\\?#]{1,255}$")
    create_if_missing: bool = False


class GraphSettings(_Group):
    """Microsoft Graph and the open extension that holds a mapping."""

    model_config = SettingsConfigDict(env_prefix="GRAPH_")
    base_url: Annotated[HttpsUrl, AfterValidator(_without_version)] = Field(
        "https://graph.microsoft.com", validation_alias=_named("GRAPH_BASE_URL", "Graph__BaseUrl")
    )
    extension_name: str = Field(
        "com.contoso.identityMapping",
        pattern=r"^[A-Za-z0-9_.]{1,128}$",
        validation_alias=_named("GRAPH_EXTENSION_NAME", "Graph__ExtensionName"),
    )


class SqliteSettings(_Group):
    """The SQLite file."""

    model_config = SettingsConfigDict(env_prefix="SQLITE_")
    path: Path = Path("mappings.sqlite")


class DocsSettings(_Group):
    """The browser client registration with which `/docs` signs users in; none leaves the field to be typed."""

    model_config = SettingsConfigDict(env_prefix="DOCS_")
    client_id: str | None = Field(None, pattern=r"^\S+$")
    scopes: Words = ()


class TelemetrySettings(_Group):
    """Where traces and metrics go, and the key under which logs name users.

    An OTLP collector is set by OpenTelemetry's own variables (`OTEL_EXPORTER_OTLP_ENDPOINT` and so on).
    """

    applicationinsights_connection_string: Annotated[SecretStr, AfterValidator(_application_insights)] | None = None
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
        for name, group in _GROUPS.items():
            values = getattr(self, name)
            for field in group.model_fields:
                yield _variable(group, field), _shown(getattr(values, field))


_GROUPS: Mapping[str, type[_Group]] = {
    name: annotation for name, annotation in Settings.__annotations__.items() if isinstance(annotation, type)
}


def load_settings(env_file: Path | None = Path(".env")) -> Settings:
    """Read the environment, then `env_file` (the environment wins).

    Raises `InvalidSettings` with every fault: missing, malformed and contradictory values, and unknown variables that
    carry one of our prefixes.
    """
    faults: list[str] = []
    groups: dict[str, _Group] = {}
    for name, group in _GROUPS.items():
        try:
            groups[name] = group(_env_file=env_file)  # type: ignore[call-arg]
        except ValidationError as error:
            faults += _sentences(group, error)
    faults += _missing_registration(env_file)
    faults += _contradictions(groups)
    faults += _unknown_variables(env_file)
    if faults:
        raise InvalidSettings(faults)
    return Settings(**groups)  # type: ignore[arg-type]


def variable_names() -> list[str]:
    """The name of every setting, in the order of their concerns."""
    return [_variable(group, field) for group in _GROUPS.values() for field in group.model_fields]


def _variable(group: type[_Group], field: str) -> str:
    return f"{group.model_config.get('env_prefix', '')}{field}".upper()


def _aliases(group: type[_Group]) -> Iterable[tuple[str, str]]:
    """Every field that goes by several names, with each of them."""
    for field, information in group.model_fields.items():
        if isinstance(information.validation_alias, AliasChoices):
            for choice in information.validation_alias.choices:
                yield field, str(choice)


def _sentences(group: type[_Group], error: ValidationError) -> Iterable[str]:
    by_alias = {alias.lower(): field for field, alias in _aliases(group)}
    for fault in error.errors(include_input=False, include_url=False):
        message = fault["msg"].removeprefix("Value error, ")
        location = str(fault["loc"][0])
        name = _variable(group, by_alias.get(location.lower(), location.lower()))
        if fault["type"] == "missing":
            yield f"{name} is not set."
        else:
            yield f"{name}: {message}."


def _missing_registration(env_file: Path | None) -> Iterable[str]:
    """The Entra settings that nothing but another issuer makes up for."""
    variables: dict[str, str | None] = {**(dotenv_values(env_file) if env_file else {}), **os.environ}
    given = {name.upper() for name, value in variables.items() if value}
    if "OIDC_ISSUER" not in given:
        for required in ("tenant_id", "client_id"):
            if not any(alias.upper() in given for field, alias in _aliases(EntraSettings) if field == required):
                yield f"{_variable(EntraSettings, required)} is not set."


def _other_issuer_contradictions(groups: Mapping[str, Any]) -> Iterable[str]:
    oidc, entra, teams, storage = (groups.get(name) for name in ("oidc", "entra", "teams", "storage"))
    if oidc is None:
        return
    if oidc.issuer is None:
        for field in sorted(oidc.model_fields_set - {"issuer"}):
            yield f"{_variable(OidcSettings, field)} is for another issuer than Microsoft Entra ID; set OIDC_ISSUER."
        return
    if not oidc.audience:
        yield "OIDC_ISSUER needs OIDC_AUDIENCE, the `aud` of access tokens for this API."
    if not oidc.required_scope and not oidc.required_role:
        yield "OIDC_ISSUER needs OIDC_REQUIRED_SCOPE or OIDC_REQUIRED_ROLE: an audience alone is no permission to call."
    if storage and storage.backend is StorageBackend.GRAPH:
        yield (
            "STORAGE_BACKEND=graph works with users of Microsoft Entra ID alone, because their own tokens reach "
            "Microsoft Graph; with OIDC_ISSUER use cosmos or sqlite."
        )
    # The managed identity is also the service's own for other Azure resources.
    excluded = sorted(entra.model_fields_set - {"managed_identity_client_id"}) if entra else []
    if excluded:
        names = ", ".join(_variable(EntraSettings, field) for field in excluded)
        yield f"With OIDC_ISSUER leave out {names}: callers come from that issuer or from Microsoft Entra ID, not both."
    if teams and teams.model_fields_set:
        yield "The TEAMS_ settings are for users of Microsoft Entra ID; leave them out with OIDC_ISSUER."


def _cloud_contradictions(groups: Mapping[str, Any]) -> Iterable[str]:
    entra, storage, graph = (groups.get(name) for name in ("entra", "storage", "graph"))
    if entra and graph and storage and storage.backend is StorageBackend.GRAPH:
        cloud = cloud_of(entra.authority_host)
        known = {host for each in CLOUDS for host in each.graph_hosts}
        if cloud and graph.base_url in known and graph.base_url not in cloud.graph_hosts:
            hosts = " or ".join(cloud.graph_hosts)
            yield f"GRAPH_BASE_URL is in another cloud than ENTRA_AUTHORITY_HOST, whose Microsoft Graph is {hosts}."


def _contradictions(groups: Mapping[str, Any]) -> Iterable[str]:
    """Faults between concerns; of those whose own settings are sound."""
    yield from _other_issuer_contradictions(groups)
    yield from _cloud_contradictions(groups)
    server, entra, storage, cosmos = (groups.get(name) for name in ("server", "entra", "storage", "cosmos"))
    backend = storage.backend if storage else None
    oidc = groups.get("oidc")
    if entra and not (oidc and oidc.issuer):
        given = [name for name in _ENTRA_CREDENTIALS if getattr(entra, name)]
        names = [_variable(EntraSettings, name) for name in _ENTRA_CREDENTIALS]
        if backend is StorageBackend.GRAPH and len(given) != 1:
            yield f"STORAGE_BACKEND=graph needs exactly one of {', '.join(names)}."
        elif "client_secret" in given and "client_certificate_path" in given:
            yield f"Set only one of {' and '.join(names[:2])}."
        path = entra.client_certificate_path
        if path is not None and not path.is_file():
            yield "ENTRA_CLIENT_CERTIFICATE_PATH names no file."
    if backend is StorageBackend.COSMOS and cosmos and not cosmos.endpoint:
        yield "STORAGE_BACKEND=cosmos needs COSMOS_ENDPOINT, such as https://NAME.documents.azure.com."
    if cosmos and cosmos.create_if_missing and (not server or server.environment is not Environment.DEVELOPMENT):
        yield "COSMOS_CREATE_IF_MISSING is for ENVIRONMENT=development alone; elsewhere, deploy the container."
    if acs := groups.get("acs"):
        yield from _acs_faults(acs)
    if entra and not entra.managed_identity_client_id:
        if acs and acs.endpoint and not acs.connection_string:
            yield "ACS_ENDPOINT needs ENTRA_MANAGED_IDENTITY_CLIENT_ID, the managed identity that ACS is called with."
        if backend is StorageBackend.COSMOS and cosmos and not cosmos.key:
            yield "STORAGE_BACKEND=cosmos needs COSMOS_KEY or, better, ENTRA_MANAGED_IDENTITY_CLIENT_ID."


def _acs_faults(acs: AcsSettings) -> Iterable[str]:
    if (acs.connection_string is None) == (acs.endpoint is None):
        yield "Set exactly one of ACS_CONNECTION_STRING and ACS_ENDPOINT."
    if acs.token_reuse_minutes >= acs.token_lifetime_minutes:
        yield "ACS_TOKEN_REUSE_MINUTES must be less than ACS_TOKEN_LIFETIME_MINUTES."


_ENTRA_CREDENTIALS = ("client_secret", "client_certificate_path", "managed_identity_client_id")


def _unknown_variables(env_file: Path | None) -> Iterable[str]:
    known = variable_names()
    accepted = {*known, *(alias.upper() for group in _GROUPS.values() for _, alias in _aliases(group))}
    prefixes = [str(prefix) for group in _GROUPS.values() if (prefix := group.model_config.get("env_prefix"))]
    given = {*os.environ, *(dotenv_values(env_file) if env_file else ())}
    for name in sorted(given):
        prefix = next((prefix for prefix in prefixes if name.upper().startswith(prefix)), None)
        if prefix and name.upper() not in accepted:
            related = [candidate for candidate in known if candidate.startswith(prefix)]
            nearest = difflib.get_close_matches(name.upper(), related, n=1, cutoff=0)[0]
            yield f"{name} is not a setting; did you mean {nearest}?"


def _shown(value: object) -> str:
    if isinstance(value, SecretStr):
        return "(set, not shown)"
    if isinstance(value, tuple):
        return ",".join(value)
    return "" if value is None else str(value)
