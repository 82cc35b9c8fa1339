"""How the API's own app registration proves itself to Entra ID: by a secret, a certificate, or a managed identity."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from quart_app.auth.on_behalf_of.errors import OnBehalfOfMisconfigured
from quart_app.clouds import token_exchange_audience
from quart_app.credentials import AzureCredential
from quart_app.settings import ClientCertificate, EntraSettings


@dataclass(frozen=True, slots=True)
class ClientSecret:
    """The app registration's secret."""

    value: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class FederatedCredential:
    """No secret at all: `assertion` gets a token that the app registration trusts, once per token request."""

    assertion: Callable[[], Awaitable[str]]


ClientCredential = ClientSecret | ClientCertificate | FederatedCredential


def client_credential(entra: EntraSettings, identity: AzureCredential | None = None) -> ClientCredential:
    """The one credential that is configured. `identity` is the managed identity, for a service that has one.

    The app registration must trust it as a federated credential, by an audience that differs in national clouds
    (https://learn.microsoft.com/entra/workload-id/workload-identity-federation-config-app-trust-managed-identity).
    """
    if entra.client_secret is not None:
        return ClientSecret(entra.client_secret.get_secret_value())
    if entra.client_certificate is not None:
        return entra.client_certificate
    if identity is None:
        raise OnBehalfOfMisconfigured("Microsoft Graph needs a client secret, a certificate or a managed identity.")
    scope = f"{token_exchange_audience(entra.authority_host)}/.default"
    return FederatedCredential(lambda: identity.token(scope))


def msal_credential(credential: ClientCredential, assertion: Callable[[], str]) -> Any:
    """The credential in MSAL's own form; `assertion` gives the federated credential's last one."""
    match credential:
        case ClientSecret(value):
            return value
        case FederatedCredential():
            return {"client_assertion": assertion}
    return {"private_key": credential.private_key, "public_certificate": credential.certificates}
