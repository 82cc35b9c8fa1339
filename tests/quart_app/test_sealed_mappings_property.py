"""Whatever users write into their extensions, no call of theirs reaches an identity that was not minted for them."""

import itertools
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from quart.typing import TestClientProtocol as Client

from local_azure.entra.directory import COMMAND_LINE, HOME_TENANT, User
from local_azure.environment import LocalAzure
from quart_app.app import create_app
from quart_app.settings import load_settings

EXTENSION = "com.contoso.identityMapping"
USERS = 3
SEAL, IDENTITY, DELETING = "acsUserIdentitySeal", "acsUserIdentity", "acsUserIdentityDeleting"


@dataclass(frozen=True)
class Step:
    """What a user does: a call of the service, or something written into the own extension.

    `kept` chooses among all extensions that anybody ever had, `bit` what is changed of it.
    """

    user: int
    action: str
    kept: int = 0
    bit: int = 0


steps = st.lists(
    st.builds(
        Step,
        user=st.integers(0, USERS - 1),
        action=st.sampled_from(
            ["POST", "POST", "DELETE", "GET", "token", "whole", "whole", "identity", "seal", "unsealed", "flip", "mark"]
        ),
        kept=st.integers(0, 20),
        bit=st.integers(0, 10_000),
    ),
    min_size=4,
    max_size=14,
)


@dataclass
class Scene:
    """The users of one example and whose each identity is, which ACS itself can't say."""

    azure: LocalAzure
    client: Client
    http: aiohttp.ClientSession
    users: list[User]
    minted: dict[int, set[str]] = field(default_factory=dict)
    kept: list[dict[str, Any]] = field(default_factory=list)

    async def carry_out(self, step: Step, *, tokens_too: bool) -> None:
        if step.action in ("POST", "DELETE", "GET", "token"):
            await self._call(step, tokens_too=tokens_too)
        else:
            await self._write(step)
        self._keep(step.user)

    async def _call(self, step: Step, *, tokens_too: bool) -> None:
        everything, living = set(self.azure.acs.all_identities()), set(self.azure.acs.live_identities())
        token = self.azure.entra.access_token(self.users[step.user])
        path, method = ("/api/token", "GET") if step.action == "token" else ("/api/user", step.action)
        answer = await self.client.open(path, method=method, headers={"Authorization": f"Bearer {token}"})  # type: ignore[call-arg]
        assert answer.status_code < 500
        event(f"{step.action} {answer.status_code}")
        own = self.minted.setdefault(step.user, set())
        own |= set(self.azure.acs.all_identities()) - everything
        deleted = living - set(self.azure.acs.live_identities())
        assert deleted <= own, "a call deleted an identity of somebody else"
        if tokens_too and answer.status_code in (200, 201):
            body = await answer.get_json()
            told = body["user"]["communicationUserId"] if step.action == "token" else body["acsUserIdentity"]
            assert told in own, "a call reached an identity of somebody else"

    async def _write(self, step: Step) -> None:
        if not self.kept:
            return
        chosen = self.kept[step.kept % len(self.kept)]
        own = dict(self._stored(step.user) or {})
        match step.action:
            case "whole":
                own = dict(chosen)
            case "identity":
                own[IDENTITY] = chosen.get(IDENTITY, "")
            case "seal":
                own[SEAL] = chosen.get(SEAL, "")
            case "unsealed":
                own = {name: value for name, value in chosen.items() if name != SEAL}
            case "mark":
                own[DELETING] = [True, False, "false", 1][step.bit % 4]
            case "flip":
                own = dict(chosen)
                name = (IDENTITY, SEAL)[step.bit % 2]
                text = str(own.get(name, "x"))
                at = step.bit % max(len(text), 1)
                own[name] = text[:at] + chr(ord(text[at : at + 1] or "x") ^ (1 << step.bit % 7)) + text[at + 1 :]
        await self._patch(step.user, own)

    async def _patch(self, user: int, properties: dict[str, Any]) -> None:
        token = self.azure.entra.graph_token(self.users[user], client=COMMAND_LINE, scope="User.ReadWrite")
        headers = {"Authorization": f"Bearer {token}"}
        url = f"{self.azure.service_environment()['GRAPH_BASE_URL']}/v1.0/me/extensions"
        body = {"@odata.type": "microsoft.graph.openTypeExtension", "extensionName": EXTENSION, **properties}
        async with self.http.patch(f"{url}/{EXTENSION}", json=body, headers=headers) as answer:
            if answer.status == 204:
                return
        async with self.http.post(url, json=body, headers=headers) as answer:
            assert answer.status == 201

    def _stored(self, user: int) -> dict[str, Any] | None:
        who = self.users[user]
        found = self.azure.graph.extensions.get(who.tenant_id, who.object_id, EXTENSION)
        return None if found is None else found.properties

    def _keep(self, user: int) -> None:
        stored = self._stored(user)
        if stored and stored not in self.kept:
            self.kept.append(dict(stored))


numbers = itertools.count()


def new_users(local_azure: LocalAzure) -> list[User]:
    made = []
    for _ in range(USERS):
        number = next(numbers)
        name = f"somebody{number}"
        object_id = f"bbbbbbbb-0000-4000-8000-{number:012}"
        tenant = HOME_TENANT.tenant_id
        made.append(User(name, tenant, object_id, name, f"{name}@contoso.localhost", tenant))
    local_azure.entra.users = {**local_azure.entra.users, **{user.alias: user for user in made}}  # type: ignore[assignment]
    return made


@pytest.fixture(params=["sealed", "unsealed accepted"])
async def service(
    local_azure: LocalAzure, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> AsyncIterator[tuple[Client, aiohttp.ClientSession, bool]]:
    for name, value in {**local_azure.service_environment(), "STORAGE_BACKEND": "graph"}.items():
        monkeypatch.setenv(name, value)
    if request.param == "unsealed accepted":
        until = datetime.now(UTC).date() + timedelta(days=30)
        monkeypatch.setenv("GRAPH_ACCEPT_UNSEALED_UNTIL", until.isoformat())
    async with create_app(load_settings(None)) as app, aiohttp.ClientSession() as http:
        yield app.test_client(), http, request.param == "sealed"


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(script=steps)
async def test_whatever_users_write_they_reach_only_what_was_minted_for_them(
    local_azure: LocalAzure, service: tuple[Client, aiohttp.ClientSession, bool], script: list[Step]
) -> None:
    client, http, sealed = service
    scene = Scene(local_azure, client, http, new_users(local_azure))
    for user in range(USERS):  # everybody has an identity that others know
        await scene.carry_out(Step(user, "POST"), tokens_too=sealed)
    for step in script:
        await scene.carry_out(step, tokens_too=sealed)
