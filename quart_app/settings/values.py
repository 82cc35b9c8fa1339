"""The types of single settings, and what each must look like."""

import base64
import re
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, SecretStr
from pydantic_settings import NoDecode

from storage.seal import parse_seal_keys

ACS_TOKEN_SCOPES = ("chat", "voip", "chat.join", "chat.join.limited", "voip.join")
"""The scopes ACS knows (azure-rest-api-specs: CommunicationIdentity.json 2023-10-01, CommunicationTokenScope)."""


def split_words(value: Any) -> Any:
    return tuple(re.findall(r"[^,\s]+", value)) if isinstance(value, str) else value


def check_guid(value: str) -> str:
    if not re.fullmatch(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", value):
        raise ValueError("must be a GUID such as 11112222-bbbb-3333-cccc-4444dddd5555")
    return value.lower()


def check_https_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme != "https" or not parts.hostname or parts.query or parts.fragment or parts.username:
        raise ValueError("must be an https:// URL without a query")
    return value.rstrip("/")


def check_address(value: str) -> str:
    """An https URL that is kept as it is written: two issuers may differ in a slash at the end."""
    parts = urlsplit(value)
    if parts.scheme != "https" or not parts.hostname or parts.fragment or parts.username or re.search(r"\s", value):
        raise ValueError("must be an https:// URL")
    return value


def check_issuer(value: str) -> str:
    if "?" in value:  # OpenID Connect Discovery 1.0, section 3
        raise ValueError("must be an https:// URL without a query, exactly as the issuer writes it")
    return value


def check_origin(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname or value.count("/") != 2:
        raise ValueError("each must be an exact origin such as https://app.example.com, without path or wildcard")
    return value.lower()


def check_connection_string(value: SecretStr) -> SecretStr:
    parts = dict(part.partition("=")[::2] for part in value.get_secret_value().split(";"))
    given = {key.strip().lower(): rest for key, rest in parts.items()}
    try:
        check_https_url(given.get("endpoint", ""))
        key = base64.b64decode(given.get("accesskey", ""), validate=True)
    except ValueError:
        key = b""
    if not key:
        raise ValueError(
            "must look like endpoint=https://NAME.communication.azure.com/;accesskey=KEY; "
            "copy it from the ACS resource's Keys page"
        )
    return value


def check_application_insights(value: SecretStr) -> SecretStr:
    parts = dict(part.partition("=")[::2] for part in value.get_secret_value().split(";"))
    given = {key.strip().lower(): rest for key, rest in parts.items()}
    try:
        check_guid(given.get("instrumentationkey", ""))
        check_https_url(given.get("ingestionendpoint", "https://default.example"))
    except ValueError:
        raise ValueError(
            "must look like InstrumentationKey=GUID;IngestionEndpoint=https://…; "
            "copy it from the Application Insights resource's overview"
        ) from None
    return value


def check_base64(value: SecretStr) -> SecretStr:
    try:
        base64.b64decode(value.get_secret_value(), validate=True)
    except ValueError:
        raise ValueError("must be an account key in base64; copy it from the account's Keys page") from None
    return value


def check_seal_keys(value: SecretStr) -> SecretStr:
    parse_seal_keys(value.get_secret_value())
    return value


def parse_date(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        return datetime.strptime(value, "%Y-%m-%d").replace(tzinfo=UTC).date()
    except ValueError:
        raise ValueError("must be a date such as 2026-12-31") from None


def check_within_90_days(value: date) -> date:
    if value > datetime.now(UTC).date() + timedelta(days=90):
        raise ValueError("must be at most 90 days ahead: it is for the time of a move only")
    return value


def check_token_scopes(value: tuple[str, ...]) -> tuple[str, ...]:
    if not value or not set(value) <= set(ACS_TOKEN_SCOPES):
        raise ValueError(f"must name one or more of {', '.join(ACS_TOKEN_SCOPES)}")
    return value


def without_version(value: str) -> str:
    return value.removesuffix("/v1.0")


Guid = Annotated[str, AfterValidator(check_guid)]
HttpsUrl = Annotated[str, AfterValidator(check_https_url)]
Origin = Annotated[str, AfterValidator(check_origin)]
Words = Annotated[tuple[str, ...], NoDecode, BeforeValidator(split_words)]
Guids = Annotated[tuple[Guid, ...], NoDecode, BeforeValidator(split_words)]
Origins = Annotated[tuple[Origin, ...], NoDecode, BeforeValidator(split_words)]
