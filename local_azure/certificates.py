"""The local certificate authority and the certificate of the stand-ins, kept in the state directory."""

import ssl
from pathlib import Path

import trustme

HOSTS = ("localhost", "127.0.0.1", "::1")


class LocalAuthority:
    """A certificate authority of this machine's own; clients trust it by the file `certificate_path` (PEM)."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.certificate_path = directory / "ca.pem"
        key_path = directory / "ca-key.pem"
        if self.certificate_path.exists() and key_path.exists():
            self._authority = trustme.CA.from_pem(self.certificate_path.read_bytes(), key_path.read_bytes())
        else:
            self._authority = trustme.CA(organization_name="acs-auth local development")
            key_path.touch(mode=0o600)
            self._authority.private_key_pem.write_to_path(str(key_path))
            self._authority.cert_pem.write_to_path(str(self.certificate_path))

    def server_context(self) -> ssl.SSLContext:
        """A TLS server context with a fresh certificate for the loopback names."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._authority.issue_cert(*HOSTS).configure_cert(context)
        return context
