"""The types of single settings, and what each must look like. A `ValueError` states the rule, never the value."""

import base64
import ipaddress
import re
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any
from urllib.parse import SplitResult, urlsplit

from pydantic import AfterValidator, BeforeValidator, SecretStr

from quart_app.clouds import CLOUDS
from storage.seal import parse_seal_keys

INCLUDED_SCOPES = {
    "chat": ("chat", "chat.join", "chat.join.limited"),
    "voip": ("voip", "voip.join"),
    "chat.join": ("chat.join", "chat.join.limited"),
    "chat.join.limited": ("chat.join.limited",),
    "voip.join": ("voip.join",),
}
"""The scopes ACS knows (azure-rest-api-specs: CommunicationIdentity.json 2023-10-01, CommunicationTokenScope), and what
each includes (https://learn.microsoft.com/azure/communication-services/concepts/identity-model)."""


def split_words(value: Any) -> Any:
    return tuple(re.findall(r"[^,\s]+", value)) if isinstance(value, str) else value


def is_guid(value: str) -> bool:
    return re.fullmatch(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", value) is not None


def check_guid(value: str) -> str:
    if not is_guid(value):
        raise ValueError(f"must be a GUID such as {_EXAMPLE_GUID}")
    return value.lower()


def check_tenant(value: str) -> str:
    if value.lower() in _NO_TENANTS:
        raise ValueError(
            f"must be a GUID such as {_EXAMPLE_GUID}: the one tenant that holds the API's app registration; the "
            "tenants whose users may call go into ENTRA_ALLOWED_TENANTS"
        )
    if not is_guid(value):
        raise ValueError(f"must be a GUID such as {_EXAMPLE_GUID}: the tenant's id, not its domain name")
    return value.lower()


def check_allowed_tenant(value: str) -> str:
    if not is_guid(value):
        raise ValueError(
            f"must list tenants by their ids, GUIDs such as {_EXAMPLE_GUID}; there is no word for all tenants, whose "
            "users nobody has vouched for"
        )
    return value.lower()


def check_client_secret(value: SecretStr) -> SecretStr:
    if is_guid(value.get_secret_value()):
        raise ValueError("is the secret's id, a GUID; set the secret's value, which is shown only when it is made")
    return value


def check_https_host(value: str) -> str:
    """An https address without a path, without the slash at its end."""
    parts = _https(value)
    if parts.path not in ("", "/") or parts.query:
        raise ValueError("must be an https:// address without a path, such as https://name.example.com")
    return value.rstrip("/")


def check_authority_host(value: str) -> str:
    try:
        return check_https_host(value)
    except ValueError:
        raise ValueError(
            "must be the https:// address of Microsoft Entra ID without a path, such as "
            "https://login.microsoftonline.com; the tenant goes into ENTRA_TENANT_ID"
        ) from None


def check_acs_address(value: str) -> str:
    example = "https://NAME.communication.azure.com"
    return _address_of("an ACS resource", example, (".communication.azure.",))(value)


def check_cosmos_address(value: str) -> str:
    # The second is a dedicated gateway: https://learn.microsoft.com/azure/cosmos-db/dedicated-gateway.
    example = "https://NAME.documents.azure.com"
    check = _address_of("a Cosmos DB account's API for NoSQL", example, (".documents.azure.", ".sqlx.cosmos.azure."))
    return check(value)


def check_graph_address(value: str) -> str:
    hosts = [host for cloud in CLOUDS for host in cloud.graph_hosts]
    check = _address_of("Microsoft Graph", hosts[0], [host.removeprefix("https://") for host in hosts])
    return check(value.rstrip("/").removesuffix("/v1.0"))


def check_address(value: str) -> str:
    """An https URL that is kept as it is written: two issuers may differ in a slash at the end."""
    _https(value)
    return value


def check_issuer(value: str) -> str:
    if "/.well-known/" in value:
        raise ValueError(
            "is the address of a document; the issuer is the part before /.well-known/, exactly as the document's "
            "`issuer` writes it"
        )
    if "?" in value:  # OpenID Connect Discovery 1.0, section 3
        raise ValueError("must be an https:// URL without a query, exactly as the issuer writes it")
    return value


def check_origin(value: str) -> str:
    """https://developer.mozilla.org/docs/Glossary/Origin: what a browser sends in `Origin`."""
    fault = "each must be an exact origin such as https://app.example.com, without path or wildcard"
    try:
        parts = _url(value, ("http", "https"))
    except ValueError:
        raise ValueError(fault) from None
    if value.count("/") != 2 or parts.query:
        raise ValueError(fault)
    return value.lower()


def check_host(value: str) -> str:
    """What to listen on: an IP address or a name."""
    try:
        ipaddress.ip_address(value)
    except ValueError:
        if not re.fullmatch(rf"(?!\d+(\.\d+)*$){_NAME}", value):
            raise ValueError(
                "must be an IP address or a host name, without brackets and port: 0.0.0.0 listens on every IPv4 "
                "address, :: on every address"
            ) from None
    return value


def check_base64(value: SecretStr) -> SecretStr:
    try:
        key = base64.b64decode(value.get_secret_value(), validate=True)
    except ValueError:
        key = b""
    if not key:
        raise ValueError("must be an account key in base64; copy it from the account's Keys page")
    return value


def check_seal_keys(value: SecretStr) -> SecretStr:
    parse_seal_keys(value.get_secret_value())
    return value


def parse_date(value: str) -> date:
    try:
        return datetime.strptime(value, "%Y-%m-%d").replace(tzinfo=UTC).date()
    except ValueError:
        raise ValueError("must be a date such as 2026-12-31") from None


def check_within_90_days(value: date) -> date:
    if value > datetime.now(UTC).date() + timedelta(days=90):
        raise ValueError("must be at most 90 days ahead: it is only for the time of a move")
    return value


def check_token_scopes(value: tuple[str, ...]) -> tuple[str, ...]:
    if not value or not set(value) <= INCLUDED_SCOPES.keys():
        raise ValueError(f"must name one or more of {', '.join(INCLUDED_SCOPES)}")
    return value


def included_scopes(scopes: Iterable[str]) -> frozenset[str]:
    """All that tokens with these scopes are good for."""
    return frozenset(included for scope in scopes for included in INCLUDED_SCOPES[scope])


def looking_like(pattern: str, rule: str) -> AfterValidator:
    """A text that `pattern` matches whole; `rule` says what it must be."""

    def check(value: str) -> str:
        if not re.fullmatch(pattern, value):
            raise ValueError(rule)
        return value

    return AfterValidator(check)


def _address_of(service: str, example: str, hosts: Iterable[str]) -> Callable[[str], str]:
    """A check that an https address without a path is not one of Azure's that belongs to something else.

    An address that is not Azure's (a gateway, a stand-in) is not checked further.
    """
    own = tuple(hosts)

    def check(value: str) -> str:
        try:
            address = check_https_host(value)
        except ValueError:
            raise ValueError(f"must be {service}'s https:// address without a path, such as {example}") from None
        host = str(urlsplit(address).hostname)
        if host.endswith(_OF_AZURE) and not any(f"{name}" in f".{host}" for name in own):
            raise ValueError(f"is the address of something other than {service}, which looks like {example}")
        return address

    return check


def _https(value: str) -> SplitResult:
    return _url(value, ("https",))


def _url(value: str, schemes: tuple[str, ...]) -> SplitResult:
    """The parts of a URL with a host, and without user name, fragment and what doesn't belong in a URL."""
    try:
        parts = urlsplit(value)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        host, port = "", None
    sound = re.fullmatch(r"[!-~]+", value) and not re.search(r'[\\<>"{}|^`]', value)
    if not sound or not (re.fullmatch(_NAME, host) or _is_ipv6(host)) or port == 0:
        raise ValueError(f"must be an {schemes[0]}:// URL")
    if parts.scheme not in schemes or parts.fragment or "#" in value or "@" in parts.netloc:
        raise ValueError(f"must be an {schemes[0]}:// URL")
    return parts


def _is_ipv6(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).version == 6
    except ValueError:
        return False


_EXAMPLE_GUID = "11112222-bbbb-3333-cccc-4444dddd5555"
_NO_TENANTS = ("common", "organizations", "consumers", "*")
_LABEL = r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_NAME = rf"(?=.{{1,253}}$){_LABEL}(\.{_LABEL})*\.?"
_OF_AZURE = (".azure.com", ".azure.us", ".azure.cn", ".azure.net", ".windows.net", ".signalr.net", ".azconfig.io")

Guid = Annotated[str, AfterValidator(check_guid)]
Words = Annotated[tuple[str, ...], BeforeValidator(split_words)]
Guids = Annotated[tuple[Guid, ...], BeforeValidator(split_words)]
Tenants = Annotated[tuple[Annotated[str, AfterValidator(check_allowed_tenant)], ...], BeforeValidator(split_words)]
Origins = Annotated[tuple[Annotated[str, AfterValidator(check_origin)], ...], BeforeValidator(split_words)]
Word = Annotated[str, looking_like(r"\S+", "must be one word")]
