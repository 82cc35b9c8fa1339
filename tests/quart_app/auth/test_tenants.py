"""Users of several tenants: who is let in, whose mapping is whose, and what one tenant's trouble does to another."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest
from quart.typing import TestClientProtocol as Client

from local_azure.entra.directory import API, HOME_TENANT, OTHER_TENANT, TENANTS, USERS
from local_azure.environment import LocalAzure
from local_azure.faults import Fault
from quart_app.app import create_app
from quart_app.auth.entra_tokens import EntraTokens
from quart_app.auth.refusals import InvalidAccessToken
from quart_app.auth.signed_tokens import SignedTokens
from quart_app.auth.signing_keys import SigningKeys, SigningKeysUnavailable
from quart_app.settings import load_settings
from tests.conftest import FakeClock
from tests.quart_app.conftest import Bearer
from tests.support.answers import error_of
from upstream.http_session import new_http_session

HOME, OTHER = HOME_TENANT.tenant_id, OTHER_TENANT.tenant_id
BOTH = f"{HOME},{OTHER}"
STORES = ("sqlite", "cosmos", "graph")
BACKENDS = {"cosmos": {"COSMOS_CREATE_IF_MISSING": "true", "ENVIRONMENT": "development"}}

Serve = Callable[..., AbstractAsyncContextManager[Client]]


@pytest.fixture
def serve(local_azure: LocalAzure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Serve:
    """The service for the users of some tenants, with a store of one kind."""

    @asynccontextmanager
    async def serve(allowed: str = BOTH, storage: str = "sqlite") -> AsyncIterator[Client]:
        more = {"ENTRA_ALLOWED_TENANTS": allowed, "STORAGE_BACKEND": storage, **BACKENDS.get(storage, {})}
        more["SQLITE_PATH"] = str(tmp_path / "mappings.sqlite")
        for name, value in {**local_azure.service_environment(), **more}.items():
            monkeypatch.setenv(name, value)
        async with create_app(load_settings(None)) as app:
            yield app.test_client()

    return serve


async def status(client: Client, headers: dict[str, str]) -> tuple[int, str]:
    answer = await client.get("/api/user", headers=headers)
    return answer.status_code, (await answer.get_json()).get("error", "")


@pytest.mark.parametrize("storage", STORES)
async def test_users_of_each_tenant_have_identities_of_their_own(
    serve: Serve, bearer: Bearer, local_azure: LocalAzure, storage: str
) -> None:
    async with serve(storage=storage) as client:
        identities = {}
        for name in ("alex", "nestor"):
            assert await status(client, bearer(name)) == (404, "identity_not_found")
            created = await client.post("/api/user", headers=bearer(name))
            assert created.status_code == 201
            identities[name] = (await created.get_json())["acsUserIdentity"]
        assert len(set(identities.values())) == 2
        for name, identity in identities.items():
            issued = await (await client.get("/api/token", headers=bearer(name))).get_json()
            assert issued["user"] == {"communicationUserId": identity}
        assert (await client.delete("/api/user", headers=bearer("alex"))).status_code == 204
        assert await status(client, bearer("alex")) == (404, "identity_not_found")
        assert await status(client, bearer("nestor")) == (200, "")
        assert local_azure.acs.live_identities() == [identities["nestor"]]


async def test_the_graph_store_acts_for_each_user_at_the_users_own_tenant(
    serve: Serve, bearer: Bearer, local_azure: LocalAzure
) -> None:
    async with serve(storage="graph") as client:
        for name in ("alex", "nestor", "guest"):
            assert (await client.post("/api/user", headers=bearer(name))).status_code == 201
    asked = [call.path for call in local_azure.entra.faults.calls if call.operation == "token"]
    assert asked == [f"/{tenant}/oauth2/v2.0/token" for tenant in (HOME, OTHER, HOME)]
    alex, nestor = USERS["alex"], USERS["nestor"]
    kept = [local_azure.graph.extensions.of(user.tenant_id, user.object_id) for user in (alex, nestor)]
    assert [len(extensions) for extensions in kept] == [1, 1]


@pytest.mark.parametrize("storage", ["sqlite", "cosmos"])
async def test_the_same_object_id_in_two_tenants_is_two_users(
    serve: Serve, local_azure: LocalAzure, storage: str
) -> None:
    alex = USERS["alex"]
    elsewhere = replace(alex, tenant_id=OTHER, account_tenant_id=OTHER)
    async with serve(storage=storage) as client:
        seen = set()
        for user in (alex, elsewhere):
            headers = {"Authorization": f"Bearer {local_azure.entra.access_token(user)}"}
            created = await client.post("/api/user", headers=headers)
            assert created.status_code == 201
            seen.add((await created.get_json())["acsUserIdentity"])
        assert len(seen) == 2


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(
    ("name", "claimed"), [("alex", OTHER), ("nestor", HOME), ("alex", HOME.upper().replace("7F", "00"))]
)
async def test_a_token_that_claims_another_tenant_than_its_issuer_is_refused(
    serve: Serve, local_azure: LocalAzure, version: int, name: str, claimed: str
) -> None:
    async with serve() as client:
        token = local_azure.entra.access_token(name, version=version, tid=claimed)
        assert await status(client, {"Authorization": f"Bearer {token}"}) == (401, "invalid_token")


@pytest.mark.parametrize(("allowed", "let_in", "refused"), [(HOME, "alex", "nestor"), (OTHER, "nestor", "alex")])
@pytest.mark.parametrize("version", [1, 2])
async def test_only_tenants_on_the_list_are_let_in_be_it_the_home_tenant(
    serve: Serve, local_azure: LocalAzure, version: int, allowed: str, let_in: str, refused: str
) -> None:
    entra = local_azure.entra
    async with serve(allowed) as client:
        for name, expected in ((let_in, (404, "identity_not_found")), (refused, (401, "invalid_token"))):
            token = entra.access_token(name, version=version)
            assert await status(client, {"Authorization": f"Bearer {token}"}) == expected
    asked = {call.path.split("/")[1] for call in entra.faults.calls if "configuration" in call.operation}
    assert asked == {allowed}


async def test_a_guest_is_a_user_of_the_inviting_tenant_alone(serve: Serve, bearer: Bearer) -> None:
    async with serve(HOME) as client:
        assert await status(client, bearer("guest")) == (404, "identity_not_found")
    async with serve(OTHER) as client:
        assert await status(client, bearer("guest")) == (401, "invalid_token")


@pytest.fixture
def other_tenant_is_down(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    def set_down(down: bool) -> None:
        running = (HOME_TENANT,) if down else TENANTS
        monkeypatch.setattr("local_azure.entra.directory.TENANTS", running)

    return set_down


async def test_a_tenant_whose_metadata_is_down_locks_out_no_user_of_another(
    serve: Serve, bearer: Bearer, local_azure: LocalAzure, other_tenant_is_down: Callable[[bool], None]
) -> None:
    other_tenant_is_down(True)
    async with serve() as client:
        assert (await client.post("/api/user", headers=bearer("alex"))).status_code == 201
        answer = await client.get("/api/user", headers=bearer("nestor"))
        assert await error_of(answer) == (503, "service_unavailable")
        assert int(answer.headers["Retry-After"]) >= 1
        assert (await client.get("/api/user", headers=bearer("alex"))).status_code == 200


async def test_a_service_is_ready_while_it_can_serve_the_users_of_some_tenant(
    local_azure: LocalAzure, other_tenant_is_down: Callable[[bool], None]
) -> None:
    entra = local_azure.entra
    other_tenant_is_down(True)
    async with new_http_session() as session:
        for tenants, ready in (((HOME, OTHER), True), ((OTHER,), False)):
            keys = SigningKeys(session, [metadata_url(entra.url, tenant) for tenant in tenants])
            if ready:
                await keys.check()
            else:
                with pytest.raises(SigningKeysUnavailable):
                    await keys.check()
            await keys.aclose()


def metadata_url(host: str, tenant: str) -> str:
    return f"{host}/{tenant}/v2.0/.well-known/openid-configuration"


@asynccontextmanager
async def signed_tokens(local_azure: LocalAzure, clock: FakeClock) -> AsyncIterator[tuple[SigningKeys, SignedTokens]]:
    url = local_azure.entra.url
    async with aiohttp.ClientSession() as session:
        keys = SigningKeys(session, [metadata_url(url, tenant) for tenant in (HOME, OTHER)], clock=clock)
        yield keys, SignedTokens(keys, EntraTokens([HOME, OTHER], url))
        await keys.aclose()


async def test_a_tenant_that_comes_back_is_served_after_the_pause(
    local_azure: LocalAzure, other_tenant_is_down: Callable[[bool], None]
) -> None:
    entra, clock = local_azure.entra, FakeClock(1000)
    async with signed_tokens(local_azure, clock) as (_, tokens):
        other_tenant_is_down(True)
        for _ in range(20):
            with pytest.raises(SigningKeysUnavailable):
                await tokens.verify(entra.access_token("nestor"), [API.client_id])
        assert entra.faults.counts["openid_configuration_v2"] == 2  # one for each tenant: one shared fetch
        other_tenant_is_down(False)
        clock.advance(10)
        verified = await tokens.verify(entra.access_token("nestor"), [API.client_id])
        assert verified.user.issuer == OTHER


async def test_a_new_key_that_one_tenant_could_not_publish_to_us_is_no_verdict_on_its_users(
    local_azure: LocalAzure, other_tenant_is_down: Callable[[bool], None]
) -> None:
    entra, clock = local_azure.entra, FakeClock(1000)
    async with signed_tokens(local_azure, clock) as (keys, tokens):
        await keys.refresh()
        old = entra.access_token("nestor")
        entra.rotate()
        other_tenant_is_down(True)
        assert (await tokens.verify(entra.access_token("alex"), [API.client_id])).user.issuer == HOME
        assert (await tokens.verify(old, [API.client_id])).user.issuer == OTHER
        with pytest.raises(SigningKeysUnavailable):
            await tokens.verify(entra.access_token("nestor"), [API.client_id])


async def test_tokens_whose_issuer_does_not_fit_cause_one_fetch_for_each_cooldown(local_azure: LocalAzure) -> None:
    entra, clock = local_azure.entra, FakeClock(1000)
    async with signed_tokens(local_azure, clock) as (keys, tokens):
        await keys.refresh()
        stranger = replace(USERS["nestor"], tenant_id="00000000-0000-4000-8000-000000000000")
        for forged, fetches in ((entra.access_token(stranger), 1), (entra.access_token("alex", tid=OTHER), 2)):
            for _ in range(30):
                with pytest.raises(InvalidAccessToken):
                    await tokens.verify(forged, [API.client_id])
            assert entra.faults.counts["keys_v2"] == 2 * fetches


async def test_a_key_that_names_one_tenant_as_its_issuer_signs_for_no_other(local_azure: LocalAzure) -> None:
    entra, clock = local_azure.entra, FakeClock(1000)
    published = [{**key.public(), "issuer": f"{entra.url}/{HOME}/v2.0"} for key in entra.keys.published]
    entra.faults.script("keys_v2", Fault(status=200, body={"keys": published}, times=None))
    async with signed_tokens(local_azure, clock) as (_, tokens):
        assert (await tokens.verify(entra.access_token("alex"), [API.client_id])).user.issuer == HOME
        with pytest.raises(InvalidAccessToken):
            await tokens.verify(entra.access_token("nestor"), [API.client_id])
