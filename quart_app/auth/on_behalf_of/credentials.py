"""How the API's own app registration proves itself to Entra ID: by a secret, a certificate, or a managed identity."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msal

from quart_app.auth.on_behalf_of.errors import OnBehalfOfCredentialsRejected, OnBehalfOfMisconfigured
from quart_app.auth.on_behalf_of.msal_http import HttpClient, RemembersNothing
from quart_app.clouds import token_exchange_audience
from quart_app.settings import EntraSettings


@dataclass(frozen=True, slots=True)
class ClientSecret:
    """The app registration's secret."""

    value: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """A PEM file with the private key and the certificate that the app registration holds."""

    path: Path


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
    if entra.client_certificate_path is not None:
        return ClientCertificate(entra.client_certificate_path)
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
    """The credential in MSAL's own form. Raises `OnBehalfOfMisconfigured` for a certificate that can't be used."""
    match credential:
        case ClientSecret(value):
            return value
        case FederatedCredential(assertion):
            return {"client_assertion": assertion}
        case ClientCertificate(path):
            try:
                text = path.read_text(encoding="ascii")
            except (OSError, UnicodeDecodeError) as error:
                raise OnBehalfOfMisconfigured("The client certificate's PEM file can't be read.") from error
            key = re.search(r"-----BEGIN ([A-Z ]*PRIVATE KEY)-----.+?-----END \1-----", text, re.DOTALL)
            certificates = re.findall(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", text, re.DOTALL)
            if key is None or not certificates:
                raise OnBehalfOfMisconfigured(
                    "The client certificate's file must hold an unencrypted private key and a certificate, as PEM."
                )
            return {"private_key": key[0], "public_certificate": "\n".join(certificates)}
