"""Another OpenID Connect issuer than Entra ID, at a path of the Entra ID stand-in: for a service with two doors.

It has a discovery document, a key of its own and tokens for the local users, whom it calls by other ids. Nobody can
sign in there: its tokens are had by `acs-auth-local token --door oidc`.
"""

import json
from functools import cached_property
from typing import Any

import jwt
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import rsa

from local_azure.clock import Clock
from local_azure.keys import KeyFactory

PATH = "/fabrikam"
AUDIENCE = "https://acs-auth.fabrikam.localhost"
SCOPE = "acs.call"
LIFETIME = 3600
_KEY_ID = "fabrikam-1"


class OidcIssuer:
    """The issuer below `url`, which is where the Entra ID stand-in is. Its key is made when it is first needed."""

    def __init__(self, url: str, clock: Clock, new_key: KeyFactory) -> None:
        self.issuer = f"{url}{PATH}"
        self._clock = clock
        self._new_key = new_key

    @cached_property
    def key(self) -> rsa.RSAPrivateKey:
        """What its tokens are signed with."""
        return self._new_key()

    def add_routes(self, application: web.Application) -> None:
        """Its documents, under operations of their own."""
        add = application.router.add_route
        add("GET", f"{PATH}/.well-known/openid-configuration", self._configuration, name="oidc_configuration")
        add("GET", f"{PATH}/keys", self._keys, name="oidc_keys")

    def service_environment(self) -> dict[str, str]:
        """The settings that let its users call the service, too."""
        return {"OIDC_ISSUER": self.issuer, "OIDC_AUDIENCE": AUDIENCE, "OIDC_REQUIRED_SCOPE": SCOPE}

    def access_token(self, alias: str, **claim_overrides: Any) -> str:
        """A user's access token for the service; a claim given as `None` is left out."""
        now = int(self._clock())
        claims = {
            "iss": self.issuer,
            "aud": AUDIENCE,
            "sub": f"fabrikam|{alias}",
            "scope": f"openid {SCOPE}",
            "iat": now,
            "exp": now + LIFETIME,
            **claim_overrides,
        }
        kept = {name: value for name, value in claims.items() if value is not None}
        return jwt.encode(kept, self.key, "RS256", {"kid": _KEY_ID, "typ": "at+jwt"})

    async def _configuration(self, _: web.Request) -> web.Response:
        return web.json_response({"issuer": self.issuer, "jwks_uri": f"{self.issuer}/keys"})

    async def _keys(self, _: web.Request) -> web.Response:
        public = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(self.key.public_key()))
        key = {"kty": "RSA", "use": "sig", "alg": "RS256", "kid": _KEY_ID, "n": public["n"], "e": public["e"]}
        return web.json_response({"keys": [key]})
