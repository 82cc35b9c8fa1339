"""The Python client against the real service and the stand-ins, and in trouble."""

import asyncio
import base64
import json
import time

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from azure.communication.chat.aio import ChatClient

from acs_auth_client import AcsAuthError
from local_azure.certificates import LocalAuthority
from local_azure.entra.directory import USERS
from local_azure.environment import LocalAzure
from local_azure.faults import Fault
from tests.clients.conftest import Client, Service, SignedIn
from tests.clients.moved_time import MovedTime, eventually, passing
from tests.clients.scripted_service import refusal, scripted

OUTAGE = Fault(status=503, headers={"Retry-After": "60"}, times=None)  # longer than the service waits itself
MINUTE = 60.0
HOUR = 60 * MINUTE


def issued(local_azure: LocalAzure) -> int:
    """How many tokens of ACS identities ACS was asked for."""
    return local_azure.acs.faults.counts["issue_access_token"]


async def test_a_user_gets_an_acs_identity_with_the_first_token(
    service: Service, client: Client, local_azure: LocalAzure
) -> None:
    async with service() as address, await client(address) as tokens:
        token = await tokens.get()
        assert [tokens.user_id] == local_azure.acs.live_identities()
        assert token.expires_at - time.time() == pytest.approx(HOUR, abs=1)
        assert token.token not in repr(token)


async def test_twenty_callers_at_once_cause_one_request(
    service: Service, client: Client, local_azure: LocalAzure, moved: MovedTime
) -> None:
    async with service() as address, await client(address) as tokens:
        credential = await tokens.credential()
        moved.leap(2 * HOUR)
        given = await asyncio.gather(*(credential.get_token() for _ in range(20)))
    assert len({each.token for each in given}) == 1
    assert issued(local_azure) == 2


async def test_a_caller_who_gives_up_leaves_the_others_their_token(service: Service, client: Client) -> None:
    async with service() as address, await client(address) as tokens:
        impatient, patient = asyncio.create_task(tokens.get()), asyncio.create_task(tokens.get())
        await eventually(lambda: tokens.renewing)
        impatient.cancel()
        assert (await patient).token
        assert impatient.cancelled()


async def test_the_chat_client_sends_the_token_and_after_its_end_another_one(
    service: Service, client: Client, local_azure: LocalAzure, moved: MovedTime
) -> None:
    sent: list[str] = []

    async def create_thread(request: web.Request) -> web.Response:
        sent.append(request.headers["Authorization"].removeprefix("Bearer "))
        local_azure.acs.verify_token(sent[-1])
        thread = {
            "id": "19:t",
            "topic": "t",
            "createdOn": "2026-11-26T12:00:00Z",
            "createdByCommunicationIdentifier": {},
        }
        return web.json_response({"chatThread": thread}, status=201)

    chat_service = web.Application()
    chat_service.router.add_post("/chat/threads", create_thread)
    authority = LocalAuthority(local_azure.authority.certificate_path.parent)
    chat_server = TestServer(chat_service, scheme="https", host="localhost")
    await chat_server.start_server(ssl=authority.server_context())
    async with (
        chat_server,
        service() as address,
        await client(address) as tokens,
        ChatClient(str(chat_server.make_url("/")), await tokens.credential()) as chat,
    ):
        await chat.create_chat_thread("t")
        await chat.create_chat_thread("t")
        moved.leap(56 * MINUTE)  # less than the five minutes are left at which azure-core asks again
        await chat.create_chat_thread("t")
        await eventually(lambda: not tokens.renewing)
        moved.leap(5 * MINUTE)
        await chat.create_chat_thread("t")
    assert sent[0] == sent[1] != sent[3]


async def test_a_throttled_service_is_asked_again_after_the_time_in_retry_after(
    service: Service, client: Client, local_azure: LocalAzure, moved: MovedTime
) -> None:
    async with service() as address, await client(address) as tokens:
        await tokens.get()
        moved.leap(2 * HOUR)
        local_azure.acs.faults.script("issue_access_token", Fault(status=429, headers={"Retry-After": "20"}))
        waited = await passing(tokens.get(), moved)
    assert 20 <= waited <= 23
    assert issued(local_azure) == 3


async def test_a_caller_who_sends_too_many_requests_waits_and_is_told_after_half_a_minute(
    client: Client, moved: MovedTime
) -> None:
    async with (
        scripted(429, refusal("too_many_requests"), {"Retry-After": "12"}) as script,
        await client(script.address) as tokens,
    ):
        with pytest.raises(AcsAuthError) as caught:
            await passing(tokens.get(), moved)
    assert (caught.value.error, caught.value.status) == ("too_many_requests", 429)
    assert [round(later - earlier) for earlier, later in zip(script.times, script.times[1:], strict=False)] == [13, 13]


@pytest.mark.parametrize(("status", "body"), [(502, "<html>Bad gateway</html>"), (504, ""), (500, {"oops": 1})])
async def test_an_error_page_of_a_proxy_is_passing_trouble(
    status: int, body: object, client: Client, moved: MovedTime
) -> None:
    async with scripted(status, body) as script, await client(script.address) as tokens:
        with pytest.raises(AcsAuthError) as caught:
            await passing(tokens.get(), moved)
    assert caught.value.error == "unexpected_answer"
    assert len(script.requests) >= 3


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (500, refusal("internal_error"), "internal_error"),
        (403, refusal("consent_required"), "consent_required"),
        (409, refusal("identity_gone"), "identity_gone"),
        (200, {"hello": "world"}, "unexpected_answer"),
        (201, {"token": "t", "expiresOn": "soon"}, "unexpected_answer"),
        (201, {"token": "t", "expiresOn": "2026-11-26T11:59:59.0000000+00:00"}, "clock_wrong"),
        (302, "", "unexpected_answer"),
    ],
)
async def test_what_a_repeat_cannot_cure_is_told_at_once(status: int, body: object, error: str, client: Client) -> None:
    async with scripted(status, body) as script, await client(script.address) as tokens:
        with pytest.raises(AcsAuthError) as caught:
            await tokens.get()
    assert caught.value.error == error
    assert len(script.requests) == 1


async def test_an_outage_that_the_held_token_outlives_goes_unnoticed(
    service: Service, client: Client, local_azure: LocalAzure, moved: MovedTime
) -> None:
    async with service() as address, await client(address) as tokens:
        await tokens.get()
        local_azure.acs.faults.script("issue_access_token", OUTAGE)
        for _ in range(55):
            await moved.advance(MINUTE)
            assert (await tokens.get()).expires_at - time.time() >= 5 * MINUTE
        assert tokens.renewing
        local_azure.acs.faults.clear()
        await passing(eventually(lambda: not tokens.renewing), moved)
        assert (await tokens.get()).expires_at - time.time() > 50 * MINUTE


async def test_an_outage_longer_than_the_token_is_told_and_a_renewal_follows_by_itself(
    service: Service, client: Client, local_azure: LocalAzure, moved: MovedTime
) -> None:
    async with service() as address, await client(address) as tokens:
        await tokens.get()
        local_azure.acs.faults.script("issue_access_token", OUTAGE)
        moved.leap(HOUR)
        with pytest.raises(AcsAuthError) as caught:
            await passing(tokens.get(), moved)
        assert caught.value.error == "service_unavailable"
        local_azure.acs.faults.clear()
        before = issued(local_azure)
        await moved.advance(3 * MINUTE, quiet=lambda: not tokens.renewing)
        assert issued(local_azure) == before + 1
        assert (await tokens.get()).expires_at > time.time()


async def test_a_claims_challenge_is_answered_with_the_claims(
    service: Service, client: Client, local_azure: LocalAzure
) -> None:
    local_azure.entra.conditions.require_multi_factor(USERS["pradeep"])
    async with service(STORAGE_BACKEND="graph") as address, await client(address, "pradeep") as tokens:
        assert (await tokens.get()).token


async def test_where_entra_id_wants_to_see_the_user_the_sign_in_gets_the_claims(
    service: Service, client: Client, local_azure: LocalAzure, signed_in: list[SignedIn]
) -> None:
    local_azure.entra.conditions.require_multi_factor(USERS["pradeep"])
    interaction = {"error": "interaction_required", "error_description": "AADSTS50076", "error_codes": [50076]}
    faults = [Fault(times=2), Fault(status=400, body=interaction)]  # after the device's code and on-behalf-of
    local_azure.entra.faults.script("token", *faults)
    async with service(STORAGE_BACKEND="graph") as address, await client(address, "pradeep") as tokens:
        assert (await tokens.get()).token
    first, second = signed_in[0].asked
    assert first is None
    assert json.loads(second or "")["access_token"]["polids"]["essential"]


@pytest.mark.parametrize(
    ("error", "challenge"),
    [
        (
            "insufficient_claims",
            base64.b64encode(b'{"access_token":{"acrs":{"essential":true,"value":"c1"}}}').decode(),
        ),
        ("invalid_token", None),
    ],
)
async def test_a_refused_token_is_replaced_once(
    error: str, challenge: str | None, client: Client, local_azure: LocalAzure
) -> None:
    parameters = f'Bearer error="{error}"' + (f', claims="{challenge}"' if challenge else "")
    async with (
        scripted(401, refusal(error), {"WWW-Authenticate": parameters}) as script,
        await client(script.address) as tokens,
    ):
        with pytest.raises(AcsAuthError) as caught:
            await tokens.get()
    assert caught.value.error == error
    assert len(script.requests) == 2
    assert local_azure.entra.faults.counts["token"] == 2  # the sign-in, and one past MSAL's cache


async def test_a_user_who_does_not_sign_in_gets_no_token(client: Client, signed_in: list[SignedIn]) -> None:
    async with await client("http://127.0.0.1:1") as tokens:
        signed_in[0].declines = True
        with pytest.raises(AcsAuthError) as caught:
            await tokens.get()
    assert caught.value.error == "sign_in_failed"


@pytest.mark.parametrize(
    ("status", "body", "told"),
    [
        (204, "", None),
        (404, refusal("identity_not_found"), None),
        (404, refusal("not_found"), "sign_out_not_offered"),
        (405, refusal("method_not_allowed"), "sign_out_not_offered"),
        (409, refusal("identity_gone"), "identity_gone"),
    ],
)
async def test_signing_out_everywhere(status: int, body: object, told: str | None, client: Client) -> None:
    async with scripted(status, body) as script, await client(script.address) as tokens:
        try:
            await tokens.sign_out_everywhere()
            outcome = None
        except AcsAuthError as error:
            outcome = error.error
        assert outcome == told
        assert script.requests == ["DELETE /api/token"]
        with pytest.raises(AcsAuthError, match="not after the sign-out"):
            await tokens.get()


async def test_whoever_waits_when_the_client_closes_is_told_so(client: Client, moved: MovedTime) -> None:
    async with scripted(503, refusal("service_unavailable")) as script, await client(script.address) as tokens:
        waiting = asyncio.create_task(tokens.get())
        await eventually(lambda: bool(script.requests))
    with pytest.raises(AcsAuthError) as caught:
        await waiting
    assert caught.value.error == "closed"
