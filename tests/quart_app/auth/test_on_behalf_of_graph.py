"""From a caller's access token to a mapping in Graph: MSAL, the Entra stand-in, the Graph store, the Graph stand-in."""

import time
from collections.abc import AsyncIterator
from pathlib import Path

import jwt
import pytest

from local_azure.entra.directory import API
from local_azure.environment import LocalAzure
from local_azure.graph import DirectoryUser
from quart_app.auth.caller import Caller
from quart_app.auth.on_behalf_of.credentials import ClientSecret
from quart_app.auth.on_behalf_of.errors import ConsentRequired
from quart_app.auth.on_behalf_of.tokens import CallerTokens, OnBehalfOf, OnBehalfOfOptions
from storage.graph import open_graph_store
from storage.graph_options import GraphOptions
from storage.mapping import StoreAccessDenied, UserKey
from tests.support.acs_ids import acs_id
from tests.support.running_graph import SEAL_KEYS, RunningGraph, running_graph


@pytest.fixture
async def running(local_azure: LocalAzure, state_directory: Path) -> AsyncIterator[RunningGraph]:
    directory = state_directory / "graph"
    directory.mkdir()
    for name in ("ca.pem", "ca-key.pem"):
        (directory / name).symlink_to(state_directory / name)
    async with running_graph(directory, time.time, local_azure.entra.verify) as running:
        running.users = [
            DirectoryUser(user.tenant_id, user.object_id, user.name) for user in local_azure.entra.users.values()
        ]
        yield running


async def test_a_mapping_is_kept_with_the_callers_own_token(local_azure: LocalAzure, running: RunningGraph) -> None:
    entra = local_azure.entra
    token = entra.access_token("alex")
    said = jwt.decode(token, options={"verify_signature": False})
    alex = Caller(UserKey(said["tid"], said["oid"]), token, said["exp"])
    on_behalf_of = OnBehalfOf(OnBehalfOfOptions(entra.url, API.client_id, ClientSecret(str(API.secret))))
    tokens = CallerTokens(on_behalf_of, (f"{running.url}/User.ReadWrite",), lambda: alex)
    store = await open_graph_store(GraphOptions(SEAL_KEYS, base_url=running.url), tokens)

    assert await store.get(alex.user) is None
    created = await store.create(alex.user, acs_id("alex"))
    assert await store.get(alex.user) == created
    await store.remove(await store.change(created, deleting=True))
    assert await store.get(alex.user) is None
    assert entra.faults.counts["token"] == 1

    entra.rotate()
    entra.retire()
    with pytest.raises(StoreAccessDenied):
        await store.get(alex.user)
    entra.conditions.remove_consent(entra.users["alex"])
    alex = Caller(alex.user, entra.access_token("alex"), alex.expires_at)
    with pytest.raises(ConsentRequired):
        await store.get(alex.user)
    await store.aclose()
    await on_behalf_of.aclose()
