"""Which certificate authorities are trusted: one choice for every upstream, whichever library makes the connection.

OpenSSL, and with it aiohttp, reads `SSL_CERT_FILE` and `SSL_CERT_DIR`; requests, which the commands and telemetry use,
reads `REQUESTS_CA_BUNDLE` and `CURL_CA_BUNDLE`. Where only those of requests are set, they count for aiohttp too.
https://docs.openssl.org/master/man3/SSL_CTX_load_verify_locations,
https://requests.readthedocs.io/en/latest/user/advanced/#ssl-cert-verification
"""

import logging
import os
import ssl
import stat
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path

logger = logging.getLogger(__name__)

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


class TrustedAuthorities:
    """What aiohttp trusts: what OpenSSL does, and without `SSL_CERT_FILE` what requests' variables name as well.

    A file is read again when another one has taken its place, as happens to mounted ones when they are renewed. While
    no certificate can be read from it, those read before stay trusted. Directories are OpenSSL's own business: it looks
    into them at every handshake.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._name, self._path = next(
            ((name, path) for name in ("SSL_CERT_FILE", *_REQUESTS) if (path := environment.get(name))), ("", "")
        )
        self._version = _version(self._path)
        # aiohttp has read what OpenSSL trusts when it was imported.
        self._trusted: ssl.SSLContext | bool = _context(self._path, self._version) if self._name in _REQUESTS else True

    def now(self) -> ssl.SSLContext | bool:
        """For a connection that is made now; `True` stands for aiohttp's own choice."""
        version = _version(self._path)
        if version not in (self._version, None):
            self._version = version
            try:
                self._trusted = _context(self._path, version)
            except (ssl.SSLError, OSError):
                logger.warning(
                    "%s: no certificate can be read from the file any more; those read before stay trusted", self._name
                )
        return self._trusted


_Version = tuple[int, int, int]


def _version(path: str) -> _Version | None:
    """Tells the file from another at the same path; `None` where there is none."""
    try:
        found = Path(path).stat()
    except OSError:
        return None
    return None if stat.S_ISDIR(found.st_mode) else (found.st_ino, found.st_mtime_ns, found.st_size)


@lru_cache(maxsize=1)
def _context(bundle: str, _: _Version | None) -> ssl.SSLContext:
    """One for all sessions: reading the system's authorities takes tens of milliseconds."""
    context = ssl.create_default_context()
    is_directory = Path(bundle).is_dir()
    context.load_verify_locations(cafile=None if is_directory else bundle, capath=bundle if is_directory else None)
    context.set_alpn_protocols(("http/1.1",))  # as aiohttp's own
    return context
