"""Another OpenID Connect issuer than Entra ID, over TLS on loopback: one discovery document, one key set, real keys."""

import json
import socket
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jwt
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

from local_azure.certificates import LocalAuthority


@dataclass
class OidcIssuer:
    """A running issuer at `url`, which calls itself `issuer` and describes itself at `path`.

    `claims` are in every token. `document` replaces members of the discovery document, `None` removes one. `extra`
    are further members of each published key; `key_set` stands for all that is published, or for the whole document.
    While `down`, nothing but 503 is answered. `cache_control` is what each request for keys said.
    """

    url: str
    issuer: str
    path: str
    key: rsa.RSAPrivateKey
    claims: dict[str, Any]
    document: dict[str, Any] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)
    key_set: list[Any] | dict[str, Any] | None = None
    cache_control: list[str | None] = field(default_factory=list)
    key_id: str = "key-1"
    down: bool = False
    requests: Counter[str] = field(default_factory=Counter)

    @property
    def discovery_url(self) -> str:
        return f"{self.url}{self.path}/.well-known/openid-configuration"

    def token(self, header: dict[str, Any] | None = None, **claims: Any) -> str:
        """A token with these claims besides the issuer's own; a claim given as `None` is left out."""
        now = int(time.time())
        times = {"iss": self.issuer, "iat": now, "nbf": now, "exp": now + 3600}
        merged = {name: value for name, value in {**times, **self.claims, **claims}.items() if value is not None}
        # Encoded as text, because PyJWT's own `encode` refuses to write an issuer that is no string.
        payload = json.dumps(merged).encode()
        members = {"kid": self.key_id, "typ": "JWT", **(header or {})}
        kept = {name: value for name, value in members.items() if value is not None}
        return jwt.api_jws.encode(payload, self.key, "RS256", kept)

    def application(self) -> web.Application:
        application = web.Application()
        application.router.add_get("/{path:.*}", self._answer)
        return application

    async def _answer(self, request: web.Request) -> web.Response:
        self.requests[request.path] += 1
        if self.down:
            return web.Response(status=503)
        if request.path == f"{self.path}/.well-known/openid-configuration":
            document = {
                "issuer": self.issuer,
                "jwks_uri": f"{self.url}{self.path}/keys",
                "authorization_endpoint": f"{self.url}{self.path}/authorize",
                "token_endpoint": f"{self.url}{self.path}/token",
                **self.document,
            }
            return web.json_response({name: value for name, value in document.items() if value is not None})
        if request.path == f"{self.path}/keys":
            self.cache_control.append(request.headers.get("Cache-Control"))
            if self.key_set is None:
                return web.json_response({"keys": [self.published(**self.extra)]})
            return web.json_response({"keys": self.key_set} if isinstance(self.key_set, list) else self.key_set)
        return web.Response(status=404)

    def published(self, key: rsa.RSAPrivateKey | None = None, **members: Any) -> dict[str, Any]:
        """The entry of a key, by default the issuer's own, with these members; one given as `None` is left out."""
        public = json.loads(RSAAlgorithm.to_jwk((key or self.key).public_key()))
        numbers = {"kty": "RSA", "use": "sig", "n": public["n"], "e": public["e"]}
        entry = {"kid": self.key_id, **numbers, **members}
        return {name: value for name, value in entry.items() if value is not None}


@asynccontextmanager
async def running_oidc_issuer(
    directory: Path, key: rsa.RSAPrivateKey, claims: dict[str, Any], *, path: str = "", issuer: str | None = None
) -> AsyncIterator[OidcIssuer]:
    """Start an issuer with the certificate authority in `directory`; its name is its own address unless told."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"https://localhost:{listening.getsockname()[1]}"
        running = OidcIssuer(url, issuer or f"{url}{path}", path, key, claims)
        runner = web.AppRunner(running.application(), access_log=None, shutdown_timeout=0.5)
        await runner.setup()
        try:
            context = LocalAuthority(directory).server_context()
            await web.SockSite(runner, listening, ssl_context=context).start()
            yield running
        finally:
            await runner.cleanup()
