"""Client certificates and private keys, made for a test."""

from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

Key = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


class Pair(NamedTuple):
    """A private key, and a certificate for it."""

    key: Key
    certificate: x509.Certificate

    @property
    def key_pem(self) -> bytes:
        """PKCS #8, not encrypted."""
        return encoded(self.key)

    @property
    def certificate_pem(self) -> bytes:
        """PEM."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)


@cache
def rsa_key(name: str, bits: int = 2048) -> rsa.RSAPrivateKey:
    """One key for each name: making them takes a while."""
    return rsa.generate_private_key(65537, bits)


def encoded(key: Key, *, password: bytes | None = None, old: bool = False) -> bytes:
    """A key as PEM: PKCS #8, or the older form of each algorithm ("BEGIN RSA PRIVATE KEY")."""
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if password is not None:
        encryption = serialization.BestAvailableEncryption(password)
    form = serialization.PrivateFormat.TraditionalOpenSSL if old else serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, encryption)


def certified(
    key: Key,
    name: str = "acs-auth",
    *,
    issuer: Pair | None = None,
    begins: timedelta = timedelta(days=-400),
    ends: timedelta = timedelta(days=100),
) -> Pair:
    """A certificate for `key`, issued by itself or by `issuer`; `begins` and `ends` count from now."""
    now = datetime.now(UTC)
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + begins)
        .not_valid_after(now + ends)
    )
    return Pair(key, builder.sign(issuer.key if issuer else key, hashes.SHA256()))


def write_certificate(path: Path, pair: Pair | None = None) -> Path:
    """A file with a private key and its certificate, sound unless another pair is given."""
    pair = pair or certified(rsa_key("sound"))
    path.write_bytes(pair.key_pem + pair.certificate_pem)
    return path
