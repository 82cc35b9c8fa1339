"""Microsoft Entra ID's clouds, where they differ in more than the settings name."""

from dataclasses import dataclass

ENTRA = "entra"
"""The name of Microsoft Entra ID, or of another issuer in its place, in metrics and logs."""


@dataclass(frozen=True, slots=True)
class Cloud:
    """One cloud. `authority_hosts` are the addresses of its Entra ID; its v2 issuers begin with the first.

    `graph_hosts` are its Microsoft Graph. `token_exchange_audience` is the audience with which an app registration
    trusts a managed identity.

    Sources: https://learn.microsoft.com/graph/deployments,
    https://learn.microsoft.com/entra/identity-platform/authentication-national-cloud,
    https://learn.microsoft.com/entra/workload-id/workload-identity-federation-config-app-trust-managed-identity.
    """

    authority_hosts: tuple[str, ...]
    graph_hosts: tuple[str, ...]
    token_exchange_audience: str


PUBLIC = Cloud(
    ("https://login.microsoftonline.com", "https://login.windows.net"),
    ("https://graph.microsoft.com",),
    "api://AzureADTokenExchange",
)
US_GOVERNMENT = Cloud(
    ("https://login.microsoftonline.us", "https://login.usgovcloudapi.net"),
    ("https://graph.microsoft.us", "https://dod-graph.microsoft.us"),
    "api://AzureADTokenExchangeUSGov",
)
CHINA = Cloud(
    ("https://login.partner.microsoftonline.cn", "https://login.chinacloudapi.cn"),
    ("https://microsoftgraph.chinacloudapi.cn",),
    "api://AzureADTokenExchangeChina",
)
CLOUDS = (PUBLIC, US_GOVERNMENT, CHINA)


def cloud_of(authority_host: str) -> Cloud | None:
    """The cloud whose Entra ID is at this address; `None` for an address that is not one of Microsoft's."""
    return next((cloud for cloud in CLOUDS if authority_host.lower() in cloud.authority_hosts), None)


def issuing_host(authority_host: str) -> str:
    """What the v2 issuers begin with when Entra ID is asked at this address."""
    cloud = cloud_of(authority_host)
    return cloud.authority_hosts[0] if cloud else authority_host


def token_exchange_audience(authority_host: str) -> str:
    """The audience of a managed identity's token that stands in for a client secret."""
    return (cloud_of(authority_host) or PUBLIC).token_exchange_audience
