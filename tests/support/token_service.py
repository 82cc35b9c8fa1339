"""The service over HTTP, in development so that it tells its reasons, for the users of an issuer whose keys change."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

import quart_app.app
from local_azure.environment import LocalAzure
from quart_app.app import create_app
from quart_app.auth.signing_keys import SigningKeys
from quart_app.settings import load_settings
from quart_app.web.readiness import Check, Readiness
from tests.conftest import FakeClock
from tests.support.oidc_issuer import OidcIssuer, running_oidc_issuer
from tests.support.running_service import served

ACCEPTED = (404, "identity_not_found", "")
"""What a good caller without an identity gets from `TokenService.get`."""


@dataclass
class TokenService:
    """The running service. Its keys age by `clock`; readiness is looked at when the test asks."""

    address: str
    session: aiohttp.ClientSession
    clock: FakeClock
    keys: SigningKeys
    readiness: Readiness

    async def get(self, token: str, **headers: str) -> tuple[int, str, str]:
        """Status, error and reason of `GET /api/user`."""
        return await self.call("GET", {"Authorization": f"Bearer {token}", **headers})

    async def call(self, method: str, headers: dict[str, str]) -> tuple[int, str, str]:
        async with self.session.request(method, f"{self.address}/api/user", headers=headers) as answer:
            body = await answer.json()
            return answer.status, body.get("error", ""), body.get("reason", "")

    async def ready(self) -> int:
        """The status of readiness, after a check."""
        await self.readiness.check()
        async with self.session.get(f"{self.address}/health/ready") as answer:
            return answer.status


@dataclass
class OidcService(TokenService):
    """The same with the issuer whose users call."""

    issuer: OidcIssuer = field(kw_only=True)


@asynccontextmanager
async def token_service(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> AsyncIterator[TokenService]:
    """The service with these settings, its keys fetched once."""
    clock = FakeClock(1000)
    made_keys: list[SigningKeys] = []
    made_readiness: list[Readiness] = []

    def keys(*arguments: Any, **keywords: Any) -> SigningKeys:
        made_keys.append(SigningKeys(*arguments, **{**keywords, "clock": clock}))
        return made_keys[-1]

    def readiness(checks: Mapping[str, Check], **keywords: Any) -> Readiness:
        made_readiness.append(Readiness(checks, **{**keywords, "interval": 3600}))
        return made_readiness[-1]

    monkeypatch.setattr(quart_app.app, "SigningKeys", keys)
    monkeypatch.setattr(quart_app.app, "Readiness", readiness)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    async with (
        create_app(load_settings(None)) as app,
        served(app) as address,
        aiohttp.ClientSession() as session,
    ):
        for each in made_keys:
            await each.refresh()
        yield TokenService(address, session, clock, made_keys[0], made_readiness[0])


@asynccontextmanager
async def oidc_service(
    monkeypatch: pytest.MonkeyPatch,
    azure: LocalAzure,
    directory: Path,
    key: rsa.RSAPrivateKey,
    claims: dict[str, Any] | None = None,
    extra: dict[str, Any] | None = None,
    **settings: str,
) -> AsyncIterator[OidcService]:
    """An issuer, its state below `directory`, and the service for its users, by default by the scope `access`.

    `claims` are in every token, `extra` are members of its key. A setting that is empty is left out.
    """
    basic = {"aud": "api", "sub": "user-1", "scope": "access"}
    async with running_oidc_issuer(directory / "local-azure", key, basic if claims is None else claims) as issuer:
        issuer.extra = extra or {}
        environment = {
            **azure.acs.service_environment(),
            "ENVIRONMENT": "development",
            "STORAGE_BACKEND": "sqlite",
            "SQLITE_PATH": str(directory / "mappings.sqlite"),
            "OIDC_ISSUER": issuer.issuer,
            "OIDC_AUDIENCE": "api",
            "OIDC_REQUIRED_SCOPE": "access",
            **settings,
        }
        kept = {name: value for name, value in environment.items() if value}
        async with token_service(monkeypatch, kept) as running:
            yield OidcService(
                running.address, running.session, running.clock, running.keys, running.readiness, issuer=issuer
            )
