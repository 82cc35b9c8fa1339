"""The API's client certificate: loaded once from its PEM file, and used as loaded."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

LEAST_KEY_BITS = 2048
"""https://learn.microsoft.com/entra/identity-platform/certificate-credentials, and NIST SP 800-57 part 1."""


@dataclass(frozen=True, slots=True)
class ClientCertificate:
    """A certificate and its private key, by which the API's registration proves itself to Entra ID.

    `private_key` is PEM (PKCS #8, not encrypted). `certificates` are PEM: first the one that belongs to the key, then
    those that issued it, as far as the file at `path` holds them. It is valid from `begins` until `ends`.
    """

    path: Path
    private_key: str = field(repr=False)
    certificates: str = field(repr=False)
    begins: datetime
    ends: datetime

    def expires_soon(self, now: datetime) -> bool:
        """Whether it is time to make a new one."""
        return self.ends <= now + timedelta(days=30)

    @classmethod
    def load(cls, path: Path) -> "ClientCertificate":
        """Read a PEM file. Order, comments, bag attributes, further certificates and line ends don't matter.

        Raises `ValueError` with what is wrong and what to do.
        """
        from cryptography.hazmat.primitives import serialization

        blocks = list(_blocks(_content(path)))
        key = _private_key([block for label, block in blocks if label.endswith(b"PRIVATE KEY")])
        certificates = _certificates([block for label, block in blocks if label in _CERTIFICATE_LABELS])
        own = [each for each in certificates if each.public_key() == key.public_key()]
        if not own:
            raise ValueError("names a file whose private key and certificate don't belong together; write one pair")
        leaf = max(own, key=lambda each: each.not_valid_after_utc)
        return cls(
            path,
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            ).decode(),
            "".join(each.public_bytes(serialization.Encoding.PEM).decode() for each in _chain(leaf, certificates)),
            leaf.not_valid_before_utc,
            leaf.not_valid_after_utc,
        )


def _content(path: Path) -> bytes:
    try:
        if not path.is_file():
            raise ValueError("names no file")
        content = path.read_bytes()
    except OSError as error:
        raise ValueError(f"names a file that can't be read ({error.strerror})") from None
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):  # what Windows' editors and shells write as "Unicode"
        content = content.decode("utf-16", errors="replace").encode()
    if content.startswith(b"\x30"):  # ASN.1
        raise ValueError(
            "names a binary file (PFX or DER); make it PEM: openssl pkcs12 -in FILE.pfx -out FILE.pem -nodes"
        )
    return content


def _blocks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """The label and the text of each PEM block (RFC 7468, whose section 2 lets other text stand around them)."""
    for block in re.finditer(rb"-----BEGIN ([A-Z0-9 ]+)-----.*?-----END \1-----", content, re.DOTALL):
        lines = (line.strip() for line in block[0].splitlines())
        yield block[1], b"\n".join(lines) + b"\n"


def _private_key(blocks: list[bytes]) -> "RSAPrivateKey":
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    if not blocks:
        raise ValueError("names a file without a private key; it must hold the certificate and its private key, as PEM")
    if len(blocks) > 1:
        raise ValueError("names a file with several private keys; leave only the certificate's")
    (block,) = blocks
    if b"ENCRYPTED" in block:  # in the label (PKCS #8), or in the line "Proc-Type: 4,ENCRYPTED"
        raise ValueError(
            "names a file whose private key is encrypted; decrypt it: openssl pkey -in KEY.pem -out PLAIN.pem"
        )
    try:
        key = load_pem_private_key(block, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ValueError("names a file whose private key can't be read; write it again, as PEM") from None
    if not isinstance(key, RSAPrivateKey):
        raise ValueError(  # noqa: TRY004 (it is about a file's content)
            "names a file whose private key is not an RSA key, the only kind that Entra ID takes"
        )
    if key.key_size < LEAST_KEY_BITS:
        raise ValueError(
            f"names a file whose private key has only {key.key_size} bits; make one of {LEAST_KEY_BITS} or more"
        )
    return key


def _certificates(blocks: list[bytes]) -> "list[x509.Certificate]":
    from cryptography import x509

    if not blocks:
        raise ValueError("names a file without a certificate; it must hold the certificate and its private key, as PEM")
    try:
        return [x509.load_pem_x509_certificate(block) for block in blocks]
    except ValueError:
        raise ValueError("names a file with a certificate that can't be read; write it again, as PEM") from None


def _chain(leaf: "x509.Certificate", certificates: "list[x509.Certificate]") -> "Iterator[x509.Certificate]":
    """`leaf`, and after it the certificates that issued it, upwards (RFC 7515, section 4.1.6)."""
    rest = [each for each in certificates if each != leaf]
    current: x509.Certificate | None = leaf
    while current is not None:
        yield current
        issuer = next((each for each in rest if each.subject == current.issuer), None)
        if issuer is not None:
            rest.remove(issuer)
        current = issuer


_CERTIFICATE_LABELS = (b"CERTIFICATE", b"X509 CERTIFICATE")
