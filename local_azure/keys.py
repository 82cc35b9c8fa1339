"""Signing keys of the stand-ins; tests pass a factory that hands out ready-made ones."""

from collections.abc import Callable

from cryptography.hazmat.primitives.asymmetric import rsa

KeyFactory = Callable[[], rsa.RSAPrivateKey]


def new_rsa_key() -> rsa.RSAPrivateKey:
    """A fresh 2048-bit RSA key."""
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)
