"""Users of the local directory: their marks, their deletion, and what the stand-ins make of both."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from azure.communication.identity.aio import CommunicationIdentityClient
from azure.core.exceptions import HttpResponseError

from local_azure.entra.directory import API, BROWSER, COMMAND_LINE, TEAMS, USERS, Application
from local_azure.environment import LocalAzure, Ports
from local_azure.keys import KeyFactory
from local_azure.user_states import RESTORABLE_SECONDS, Mark, NotRestorable
from tests.conftest import FakeClock
from tests.support.entra_client import Browser, error_codes, on_behalf_of, redemption

ALEX, MEGAN = USERS["alex"], USERS["megan"]
NOON = 1_800_000_000.0


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(NOON)


@pytest.fixture
async def azure(state_directory: Path, new_key: KeyFactory, clock: FakeClock) -> AsyncIterator[LocalAzure]:
    async with LocalAzure(state_directory, Ports(0, 0, 0, 0), clock=clock, new_key=new_key) as running:
        yield running


@pytest.fixture
async def http(azure: LocalAzure) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(azure.entra.url) as session:
        yield session


async def graph(azure: LocalAzure, method: str, path: str, token: str, body: Any = None) -> int:
    url = f"{azure.graph.service_environment()['GRAPH_BASE_URL']}/v1.0{path}"
    headers = {"Authorization": f"Bearer {token}"}
    async with aiohttp.ClientSession() as session, session.request(method, url, json=body, headers=headers) as answer:
        return answer.status


# Marks


async def test_marks_are_set_over_http_and_listed(azure: LocalAzure, http: aiohttp.ClientSession) -> None:
    async with http.put("/local/users/megan", json={"directory_role": True, "without_teams": True}) as answer:
        assert answer.status == 204
    async with http.get("/local/users") as answer:
        marks = {user["alias"]: user["marks"] for user in await answer.json()}
    assert marks.pop("megan") == ["directory_role", "without_teams"]
    assert set(map(tuple, marks.values())) == {()}
    assert azure.graph.user_states.has(MEGAN, Mark.DIRECTORY_ROLE)
    async with http.put("/local/users/megan", json={"without_teams": True, "directory_role": False}) as answer:
        assert answer.status == 204
    assert not azure.user_states.has(MEGAN, Mark.DIRECTORY_ROLE)


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [("nobody", "{}", 404), ("megan", '{"shoe_size": true}', 400), ("megan", "[]", 400), ("megan", "{", 400)],
)
async def test_what_is_no_mark_is_refused(http: aiohttp.ClientSession, path: str, body: str, status: int) -> None:
    async with http.put(f"/local/users/{path}", data=body) as answer:
        assert answer.status == status


async def test_the_services_application_cannot_change_a_user_with_a_role(azure: LocalAzure) -> None:
    azure.user_states.mark(MEGAN, Mark.DIRECTORY_ROLE)
    app = azure.entra.app_only_token(API, scope="https://graph.microsoft.com/.default")
    body = {"@odata.type": "microsoft.graph.openTypeExtension", "extensionName": "com.contoso.identityMapping"}
    assert await graph(azure, "POST", f"/users/{MEGAN.object_id}/extensions", app, body) == 403
    assert await graph(azure, "POST", f"/users/{ALEX.object_id}/extensions", app, body) == 201


@pytest.mark.parametrize("client", [BROWSER, COMMAND_LINE])
async def test_a_user_gets_a_token_for_graph_by_any_program_and_writes_with_it(
    azure: LocalAzure, client: Application
) -> None:
    token = azure.entra.graph_token("alex", client=client)
    body = {"@odata.type": "microsoft.graph.openTypeExtension", "extensionName": "com.contoso.identityMapping"}
    assert await graph(azure, "POST", "/me/extensions", token, body) == 201


async def test_a_service_that_asks_for_reading_only_writes_with_what_was_consented(azure: LocalAzure) -> None:
    """Microsoft's samples ask on behalf of the user for `user.read`, and write mappings with the answer."""
    answer = await on_behalf_of(azure.entra.url, azure.entra.access_token("alex"), ["user.read"])
    body = {"@odata.type": "microsoft.graph.openTypeExtension", "extensionName": "com.contoso.identityMapping"}
    assert await graph(azure, "POST", "/me/extensions", answer["access_token"], body) == 201


async def test_a_user_without_teams_is_forbidden_to_exchange(local_azure: LocalAzure) -> None:
    connection_string = local_azure.service_environment()["ACS_CONNECTION_STRING"]
    local_azure.user_states.mark(MEGAN, Mark.WITHOUT_TEAMS)
    async with CommunicationIdentityClient.from_connection_string(connection_string) as client:
        for user in (ALEX, MEGAN):
            token = local_azure.entra.teams_token(user)
            exchanging = client.get_token_for_teams_user(token, TEAMS.client_id, user.object_id)
            if user is ALEX:
                assert (await exchanging).token
            else:
                with pytest.raises(HttpResponseError) as raised:
                    await exchanging
                assert raised.value.status_code == 403


# Deletion


async def test_a_deleted_user_cannot_sign_in_and_gets_no_tokens(azure: LocalAzure, http: aiohttp.ClientSession) -> None:
    browser = Browser(http, azure.entra.url)
    tokens = await browser.sign_in()
    assertion = tokens["access_token"]
    code = (await browser.authorize())["code"]
    azure.user_states.delete(ALEX)
    assert (await browser.authorize())["error"] == "login_required"
    page = await (await browser.authorize_raw(prompt=None)).text()
    assert 'value="megan"' in page
    assert 'value="alex"' not in page
    refresh = {"grant_type": "refresh_token", "client_id": BROWSER.client_id, "refresh_token": tokens["refresh_token"]}
    for form in (redemption(code), refresh):
        assert error_codes((await browser.redeem(form))[1]) == [50034]
    assert error_codes(await on_behalf_of(azure.entra.url, assertion)) == [50034]
    assert await graph(azure, "GET", "/me", azure.entra.graph_token("alex")) == 404
    azure.user_states.restore(ALEX)
    assert "access_token" in await on_behalf_of(azure.entra.url, assertion)
    assert await graph(azure, "GET", "/me", azure.entra.graph_token("alex")) == 200


async def test_a_deleted_user_can_be_restored_for_thirty_days(azure: LocalAzure, clock: FakeClock) -> None:
    states = azure.user_states
    with pytest.raises(NotRestorable):
        states.restore(ALEX)
    states.delete(ALEX)
    clock.advance(RESTORABLE_SECONDS - 1)
    states.delete(ALEX)
    assert states.deleted_at(ALEX) == NOON
    states.restore(ALEX)
    assert not states.is_deleted(ALEX)
    states.delete(ALEX)
    clock.advance(RESTORABLE_SECONDS)
    assert states.deleted_at(ALEX) is None
    assert states.is_deleted(ALEX)
    with pytest.raises(NotRestorable):
        states.restore(ALEX)


async def test_a_purged_user_is_gone_for_good(azure: LocalAzure) -> None:
    azure.user_states.purge(ALEX)
    assert azure.user_states.is_deleted(ALEX)
    assert azure.user_states.deleted_at(ALEX) is None
    with pytest.raises(NotRestorable):
        azure.user_states.restore(ALEX)


async def test_deleting_restoring_and_purging_go_over_http(azure: LocalAzure, http: aiohttp.ClientSession) -> None:
    async def status(method: str, path: str) -> int:
        async with http.request(method, f"/local/users/{path}") as answer:
            return answer.status

    assert await status("POST", "megan/restore") == 409
    assert await status("DELETE", "megan") == 204
    async with http.get("/local/users") as answer:
        assert [user["alias"] for user in await answer.json() if user["deleted"]] == ["megan"]
    assert await status("POST", "megan/restore") == 204
    assert await status("POST", "megan/purge") == 204
    assert await status("POST", "megan/restore") == 409
    assert await status("DELETE", "nobody") == 404
    assert azure.user_states.is_deleted(MEGAN)


async def test_what_became_of_users_survives_a_restart(state_directory: Path, new_key: KeyFactory) -> None:
    async with LocalAzure(state_directory, Ports(0, 0, 0, 0), new_key=new_key) as first:
        first.user_states.delete(MEGAN)
        first.user_states.mark(ALEX, Mark.DIRECTORY_ROLE)
    async with LocalAzure(state_directory, Ports(0, 0, 0, 0), new_key=new_key) as second:
        assert second.user_states.deleted_at(MEGAN) is not None
        assert second.user_states.has(ALEX, Mark.DIRECTORY_ROLE)
