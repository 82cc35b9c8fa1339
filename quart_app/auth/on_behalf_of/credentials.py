"""How the API's own app registration proves itself to Entra ID: by a secret, a certificate, or a managed identity."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msal

from quart_app.auth.on_behalf_of.errors import OnBehalfOfCredentialsRejected
from quart_app.auth.on_behalf_of.msal_http import HttpClient, RemembersNothing
from quart_app.clouds import token_exchange_audience
from quart_app.settings import ClientCertificate, EntraSettings


@dataclass(frozen=True, slots=True)
class ClientSecret:
    """The app registration's secret."""

    value: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class FederatedCredential:
    """No secret at all: `assertion` returns a token that the app registration trusts (`managed_identity_assertion`).

    It is called in a worker thread, once per token request.
    """

    assertion: Callable[[], str]


ClientCredential = ClientSecret | ClientCertificate | FederatedCredential


def client_credential(entra: EntraSettings) -> ClientCredential:
    """The one credential that is configured."""
    if entra.client_secret is not None:
        return ClientSecret(entra.client_secret.get_secret_value())
    if entra.client_certificate is not None:
        return entra.client_certificate
    audience = token_exchange_audience(entra.authority_host)
    return FederatedCredential(managed_identity_assertion(str(entra.managed_identity_client_id), audience=audience))


def managed_identity_assertion(
    client_id: str, *, audience: str = "api://AzureADTokenExchange", timeout: float = 5.0
) -> Callable[[], str]:
    """Assertions from the user-assigned managed identity `client_id`, for `FederatedCredential`.

    The app registration must trust it as a federated credential; `audience` differs in national clouds
    (https://learn.microsoft.com/entra/workload-id/workload-identity-federation-config-app-trust-managed-identity).
    MSAL keeps the identity's token until shortly before it expires. `timeout` is in seconds. What is returned raises
    `OnBehalfOfCredentialsRejected`, `OnBehalfOfThrottled`, `OnBehalfOfUnavailable`.
    """
    client = msal.ManagedIdentityClient(
        msal.UserAssignedManagedIdentity(client_id=client_id),
        http_client=HttpClient(timeout, connections=1, keep_alive=False),  # nobody closes it, and it is rarely used
        http_cache=RemembersNothing(),
    )

    def assertion() -> str:
        answer = client.acquire_token_for_client(resource=audience)
        if "access_token" not in answer:
            raise OnBehalfOfCredentialsRejected
        return str(answer["access_token"])

    return assertion


def msal_credential(credential: ClientCredential) -> Any:
    """The credential in MSAL's own form."""
    match credential:
        case ClientSecret(value):
            return value
        case FederatedCredential(assertion):
            return {"client_assertion": assertion}
        case ClientCertificate():
            return {"private_key": credential.private_key, "public_certificate": credential.certificates}
