"""Which certificate authorities are trusted: one choice for every upstream, whichever library makes the connection.

OpenSSL, and with it aiohttp, reads `SSL_CERT_FILE` and `SSL_CERT_DIR`; requests, which the commands and telemetry use,
reads `REQUESTS_CA_BUNDLE` and `CURL_CA_BUNDLE`. Where only those of requests are set, they count for aiohttp too.
https://docs.openssl.org/master/man3/SSL_CTX_load_verify_locations,
https://requests.readthedocs.io/en/latest/user/advanced/#ssl-cert-verification
"""

import os
import ssl
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

_OPENSSL = ("SSL_CERT_FILE", "SSL_CERT_DIR")
_REQUESTS = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


def unusable_bundles(environment: Mapping[str, str]) -> Iterator[str]:
    """One sentence for each of the variables that names nothing to trust."""
    for name in (*_OPENSSL, *_REQUESTS):
        value = environment.get(name)
        if not value or (name != "SSL_CERT_FILE" and any(Path(path).is_dir() for path in value.split(os.pathsep))):
            continue
        if not Path(value).is_file():
            yield f"{name} names no file: {value}."
            continue
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=value)
        except (ssl.SSLError, OSError):
            yield f"{name}: no certificate can be read from {value}; it must hold those of the authorities, as PEM."


def for_aiohttp() -> ssl.SSLContext | bool:
    """What aiohttp trusts: what OpenSSL does, and without `SSL_CERT_FILE` what requests' variables name as well."""
    bundle = next((path for name in _REQUESTS if (path := os.environ.get(name))), None)
    return True if bundle is None or os.environ.get("SSL_CERT_FILE") else _context(bundle)


@cache
def _context(bundle: str) -> ssl.SSLContext:
    context = ssl.create_default_context()
    is_directory = Path(bundle).is_dir()
    context.load_verify_locations(cafile=None if is_directory else bundle, capath=bundle if is_directory else None)
    context.set_alpn_protocols(("http/1.1",))  # as aiohttp's own
    return context
