"""How a client proves itself at the token endpoint: a secret, a certificate or a federated credential."""

import base64
import binascii
import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_plus

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from local_azure.clock import Clock
from local_azure.entra import metadata
from local_azure.entra.directory import APPLICATIONS, HOME_TENANT, MANAGED_IDENTITY, Application
from local_azure.entra.errors import EntraError, missing_parameter, unknown_client
from local_azure.entra.scopes import TOKEN_EXCHANGE
from local_azure.entra.signing_keys import SigningKeys, thumbprint
from local_azure.entra.tokens import CERTIFICATE, PUBLIC, SECRET

ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"


@dataclass(frozen=True, slots=True)
class Client:
    """A client and how it proved itself (`azpacr`)."""

    application: Application
    proof: str


class Clients:
    """Authenticates the clients of the token endpoint."""

    def __init__(self, url: str, keys: SigningKeys, clock: Clock) -> None:
        self._url = url
        self._keys = keys
        self._clock = clock
        self._certificates: dict[str, tuple[str, rsa.RSAPublicKey]] = {}

    def register_certificate(self, client_id: str, certificate_pem: bytes) -> None:
        """Let a client prove itself with the private key of this certificate (until the next start)."""
        certificate = x509.load_pem_x509_certificate(certificate_pem)
        public_key = certificate.public_key()
        if not isinstance(public_key, rsa.RSAPublicKey):
            raise TypeError("A client certificate needs an RSA key.")
        encoded = certificate.public_bytes(serialization.Encoding.DER)
        sha256 = base64.urlsafe_b64encode(hashlib.sha256(encoded).digest()).rstrip(b"=").decode()
        for name in (thumbprint(encoded), sha256):
            self._certificates[name] = (client_id, public_key)

    def authenticate(self, form: Mapping[str, str], authorization: str | None, token_endpoint: str) -> Client:
        """The client of a token request. Raises `EntraError`.

        `token_endpoint` is the address that received the request: the audience of a client assertion.
        """
        client_id, secret = _credentials(form, authorization)
        if not client_id:
            raise missing_parameter("client_id")
        application = APPLICATIONS.get(client_id)
        if application is None or application is MANAGED_IDENTITY:
            raise unknown_client(client_id)
        assertion = form.get("client_assertion")
        if application.is_public:
            if secret or assertion:
                raise EntraError(
                    700025,
                    "invalid_client",
                    "Client is public so neither 'client_assertion' nor 'client_secret' should be presented.",
                )
            return Client(application, PUBLIC)
        if assertion:
            if form.get("client_assertion_type") != ASSERTION_TYPE:
                raise missing_parameter("client_assertion_type")
            self._check_assertion(application, assertion, token_endpoint)
            return Client(application, CERTIFICATE)
        if not secret:
            raise EntraError(
                7000218,
                "invalid_client",
                "The request body must contain the following parameter: 'client_assertion' or 'client_secret'.",
            )
        if not secrets.compare_digest(secret.encode(), str(application.secret).encode()):
            raise EntraError(
                7000215,
                "invalid_client",
                "Invalid client secret provided. Ensure the secret being sent in the request is the client secret "
                f"value, not the client secret ID, for a secret added to app '{client_id}'.",
            )
        return Client(application, SECRET)

    def _check_assertion(self, application: Application, assertion: str, token_endpoint: str) -> None:
        try:
            unverified = jwt.decode(assertion, options={"verify_signature": False})
            header = jwt.get_unverified_header(assertion)
        except jwt.PyJWTError as error:
            raise EntraError(50027, "invalid_client", "JWT token is invalid or malformed.") from error
        if unverified.get("iss") == application.client_id:
            claims = self._certified(application, assertion, header)
            if claims.get("sub") != application.client_id:
                raise EntraError(700021, "invalid_client", "Client assertion application identifier doesn't match.")
            if claims.get("aud") != token_endpoint:
                raise EntraError(
                    700023, "invalid_client", "Client assertion audience claim does not match Realm issuer."
                )
        else:
            claims = self._federated(assertion)
        expires = claims.get("exp")
        if not isinstance(expires, int | float) or expires <= self._clock():
            raise EntraError(700024, "invalid_client", "Client assertion is not within its valid time range.")

    def _certified(self, application: Application, assertion: str, header: Mapping[str, Any]) -> dict[str, Any]:
        name = str(header.get("x5t#S256") or header.get("x5t") or "").rstrip("=")  # MSAL pads, RFC 7515 does not
        owner, public_key = self._certificates.get(name, ("", None))
        if public_key is None or owner != application.client_id:
            raise _bad_signature("The key was not found.")
        try:
            claims: dict[str, Any] = jwt.decode(
                assertion,
                public_key,
                algorithms=["RS256", "PS256"],
                options={"verify_exp": False, "verify_aud": False, "verify_nbf": False, "verify_iat": False},
            )
        except jwt.PyJWTError as error:
            raise _bad_signature("The key was found, but its use to verify the signature failed.") from error
        return claims

    def _federated(self, assertion: str) -> dict[str, Any]:
        claims = self._keys.verify(assertion)
        if claims is None:
            raise _bad_signature("The key was not found.")
        expected = {
            "iss": (700211, metadata.issuer(self._url, HOME_TENANT.tenant_id, metadata.VERSION_2)),
            "sub": (700213, MANAGED_IDENTITY.object_id),
            "aud": (700212, TOKEN_EXCHANGE),
        }
        words = {"iss": "issuer", "sub": "subject", "aud": "audience"}
        for claim, (code, value) in expected.items():
            if claims.get(claim) != value:
                raise EntraError(
                    code,
                    "invalid_client",
                    "No matching federated identity record found for presented assertion "
                    f"{words[claim]} '{claims.get(claim)}'.",
                )
        return claims


def _credentials(form: Mapping[str, str], authorization: str | None) -> tuple[str | None, str | None]:
    """The client id and secret of the body, otherwise of HTTP Basic (form-encoded first: RFC 6749, section 2.3.1)."""
    if authorization is None or not authorization.startswith("Basic "):
        return form.get("client_id"), form.get("client_secret")
    try:
        text = base64.b64decode(authorization.removeprefix("Basic "), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError) as error:
        raise EntraError(7000216, "invalid_client", "The Authorization header is malformed.") from error
    client_id, _, secret = text.partition(":")
    return unquote_plus(client_id), unquote_plus(secret)


def _bad_signature(reason: str) -> EntraError:
    return EntraError(
        700027,
        "invalid_client",
        "The certificate with identifier used to sign the client assertion is not registered on application. "
        f"[Reason - {reason}]",
    )
