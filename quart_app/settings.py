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

ACS_TOKEN_SCOPES = ("chat", "voip", "chat.join", "chat.join.limited", "voip.join")
"""The scopes ACS knows (azure-rest-api-specs: CommunicationIdentity.json 2023-10-01, CommunicationTokenScope)."""


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


class CorsSettings(_Group):
    """Which browser origins may call."""

    model_config = SettingsConfigDict(env_prefix="CORS_")
    allowed_origins: Origins = ()


class EntraSettings(_Group):
    """The API's app registration, and whose access tokens it takes."""

    model_config = SettingsConfigDict(env_prefix="ENTRA_")
    tenant_id: Guid = Field(validation_alias=AliasChoices("ENTRA_TENANT_ID", "azureActiveDirectory_tenantId"))
    client_id: Guid = Field(validation_alias=AliasChoices("ENTRA_CLIENT_ID", "azureActiveDirectory_clientId"))
    client_secret: SecretStr | None = Field(
        None, validation_alias=AliasChoices("ENTRA_CLIENT_SECRET", "azureActiveDirectory_clientSecret")
    )
    client_certificate_path: Path | None = None
    managed_identity_client_id: Guid | None = None
    allowed_tenants: Guids = ()
    audiences: Words = ()
    required_scope: str = Field("access_as_user", pattern=r"^[^\s/]+$")
    authority_host: HttpsUrl = "https://login.microsoftonline.com"

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


class TeamsSettings(_Group):
    """Which client applications may get the Teams tokens that are exchanged (their `appid`/`azp`)."""

    model_config = SettingsConfigDict(env_prefix="TEAMS_")
    client_ids: Guids = ()


class AcsSettings(_Group):
    """The ACS resource, and what its access tokens are good for."""

    model_config = SettingsConfigDict(env_prefix="ACS_")
    connection_string: Annotated[SecretStr, AfterValidator(_connection_string)] = Field(
        validation_alias=AliasChoices("ACS_CONNECTION_STRING", "communicationServices_connectionString")
    )
    token_scopes: Annotated[Words, AfterValidator(_token_scopes)] = ("chat", "voip")
    token_lifetime_minutes: int = Field(1440, ge=60, le=1440)


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
    base_url: HttpsUrl = "https://graph.microsoft.com"
    extension_name: str = Field("com.contoso.identityMapping", pattern=r"^[A-Za-z0-9_.]{1,128}$")


class SqliteSettings(_Group):
    """The SQLite file."""

    model_config = SettingsConfigDict(env_prefix="SQLITE_")
    path: Path = Path("mappings.sqlite")


class DocsSettings(_Group):
    """The browser client registration with which `/docs` signs users in; none leaves the field to be typed."""

    model_config = SettingsConfigDict(env_prefix="DOCS_")
    client_id: Guid | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings, by concern."""

    server: ServerSettings
    cors: CorsSettings
    entra: EntraSettings
    teams: TeamsSettings
    acs: AcsSettings
    storage: StorageSettings
    cosmos: CosmosSettings
    graph: GraphSettings
    sqlite: SqliteSettings
    docs: DocsSettings

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


def _sentences(group: type[_Group], error: ValidationError) -> Iterable[str]:
    by_alias = {
        str(choice).lower(): field
        for field, information in group.model_fields.items()
        if isinstance(information.validation_alias, AliasChoices)
        for choice in information.validation_alias.choices
    }
    for fault in error.errors(include_input=False, include_url=False):
        message = fault["msg"].removeprefix("Value error, ")
        location = str(fault["loc"][0])
        name = _variable(group, by_alias.get(location.lower(), location.lower()))
        if fault["type"] == "missing":
            yield f"{name} is not set."
        else:
            yield f"{name}: {message}."


def _contradictions(groups: Mapping[str, Any]) -> Iterable[str]:
    """Faults between concerns; of those whose own settings are sound."""
    server, entra, storage, cosmos = (groups.get(name) for name in ("server", "entra", "storage", "cosmos"))
    backend = storage.backend if storage else None
    if entra:
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


_ENTRA_CREDENTIALS = ("client_secret", "client_certificate_path", "managed_identity_client_id")


def _unknown_variables(env_file: Path | None) -> Iterable[str]:
    known = variable_names()
    prefixes = [str(prefix) for group in _GROUPS.values() if (prefix := group.model_config.get("env_prefix"))]
    given = {*os.environ, *(dotenv_values(env_file) if env_file else ())}
    for name in sorted(given):
        prefix = next((prefix for prefix in prefixes if name.upper().startswith(prefix)), None)
        if prefix and name.upper() not in known:
            related = [candidate for candidate in known if candidate.startswith(prefix)]
            nearest = difflib.get_close_matches(name.upper(), related, n=1, cutoff=0)[0]
            yield f"{name} is not a setting; did you mean {nearest}?"


def _shown(value: object) -> str:
    if isinstance(value, SecretStr):
        return "(set, not shown)"
    if isinstance(value, tuple):
        return ",".join(value)
    return "" if value is None else str(value)
