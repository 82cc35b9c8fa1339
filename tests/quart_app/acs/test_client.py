"""The ACS client over the wire: the real SDK against the stand-in, and how many requests each fault costs."""

import asyncio
import contextlib
import itertools
import logging
import os
import shutil
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import replace
from email.utils import formatdate
from pathlib import Path
from typing import Any

import jwt
import pytest
import pytest_asyncio
from azure.core.credentials import AccessTokenInfo, TokenRequestOptions
from azure.core.exceptions import ClientAuthenticationError
from cryptography.hazmat.primitives.asymmetric import rsa
from tenacity import wait_exponential

from local_azure.entra.directory import BROWSER, TEAMS
from local_azure.environment import LocalAzure, Ports
from local_azure.faults import Fault
from local_azure.port_choice import free_port
from quart_app.acs.absence import ProvingAcsClient
from quart_app.acs.client import AcsOptions, SdkAcsClient
from quart_app.acs.guarded import GuardedAcsClient
from quart_app.acs.interface import (
    AcsClient,
    AcsCredentialsRejected,
    AcsError,
    AcsMisconfigured,
    AcsThrottled,
    AcsUnavailable,
    IdentityGone,
    IdentityNotOwned,
    TeamsTokenRefused,
    UnexpectedAnswer,
)
from quart_app.credentials import AzureCredential
from quart_app.identities import IdentityService
from quart_app.settings import AcsConnectionString
from storage.mapping import UserKey
from tests.support.held_time import time_running_out
from tests.support.memory_store import MemoryMappingStore
from upstream.calls import UpstreamCalls
from upstream.deadline import deadline
from upstream.errors import UpstreamError
from upstream.retrying import RetryPolicy

pytestmark = pytest.mark.asyncio(loop_scope="module")

ATTEMPTS = 3
READ_SECONDS = 3.0
GOOD_ID = "8:acs:00000000-0000-4000-8000-00000000000a_00000000-0000-0000-0000-00000000000b"
NOW = 1_800_000_000.0
Use = Callable[[AcsClient, str], Awaitable[object]]


async def create(communication: AcsClient, _: str) -> object:
    return await communication.create_identity()


async def delete(communication: AcsClient, acs_user_id: str) -> object:
    await communication.delete_identity(acs_user_id)
    return None


async def issue(communication: AcsClient, acs_user_id: str) -> object:
    return await communication.issue_token(acs_user_id)


async def exchange(communication: AcsClient, _: str) -> object:
    return await communication.exchange_teams_token("token", TEAMS.client_id, "00000000-0000-0000-0000-000000000001")


OPERATIONS: dict[str, Use] = {
    "create_identity": create,
    "delete_identity": delete,
    "issue_access_token": issue,
    "exchange_teams_token": exchange,
}


class World:
    """The stand-in, a client for it, and the waits between its attempts, which take no time."""

    def __init__(self, local_azure: LocalAzure) -> None:
        self.local_azure = local_azure
        self.acs = local_azure.acs
        self.waits: list[float] = []
        self.options = AcsOptions(
            token_scopes=("chat", "voip"),
            connection_string=AcsConnectionString.parse(local_azure.acs.service_environment()["ACS_CONNECTION_STRING"]),
        )

    @asynccontextmanager
    async def client(self, options: AcsOptions | None = None) -> AsyncIterator[AcsClient]:
        async def wait(seconds: float) -> None:
            self.waits.append(seconds)

        retry = RetryPolicy(attempts=ATTEMPTS, back_off=wait_exponential(multiplier=0.5), sleep=wait)
        client = SdkAcsClient(options or self.options, clock=lambda: NOW)
        async with contextlib.aclosing(ProvingAcsClient(GuardedAcsClient(client, retry), canaries=False)) as proving:
            yield proving

    def time_running_out(self, operation: str, name: str) -> AbstractAsyncContextManager[None]:
        """Let time pass while a request hangs, and not at all for the other faults of `FAULTS`."""
        return time_running_out(self.acs.faults, operation, READ_SECONDS) if name == "hang" else nullcontext()

    def fault(self, operation: str, fault: Fault) -> None:
        self.acs.faults.script(operation, fault)

    @property
    def counts(self) -> dict[str, int]:
        return dict(self.acs.faults.counts)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(
    tmp_path_factory: pytest.TempPathFactory, signing_keys: list[rsa.RSAPrivateKey]
) -> AsyncIterator[LocalAzure]:
    """Stand-ins for all tests of this module: starting them for each would take most of the time."""
    directory = tmp_path_factory.mktemp("communication") / "local-azure"
    shutil.copytree(Path(os.environ["SSL_CERT_FILE"]).parent, directory)
    keys = itertools.cycle(signing_keys)
    async with LocalAzure(directory, Ports(0, 0, 0, 0), new_key=lambda: next(keys)) as local_azure:
        yield local_azure


@pytest.fixture
def world(running: LocalAzure) -> World:
    for acs_user_id in running.acs.all_identities():
        running.acs.forget(acs_user_id)
    running.acs.faults.clear()
    running.acs.faults.counts.clear()
    running.acs.faults.calls.clear()
    return World(running)


@pytest_asyncio.fixture(loop_scope="module")
async def communication(world: World) -> AsyncIterator[AcsClient]:
    async with world.client() as client:
        yield client


class TestOperations:
    async def test_an_identity_lives_from_create_to_delete(self, world: World, communication: AcsClient) -> None:
        acs_user_id = await communication.create_identity()
        assert world.acs.live_identities() == [acs_user_id]
        await communication.delete_identity(acs_user_id)
        assert world.acs.live_identities() == []

    async def test_deleting_what_is_gone_is_success(self, world: World, communication: AcsClient) -> None:
        acs_user_id = await communication.create_identity()
        await communication.delete_identity(acs_user_id)
        await communication.delete_identity(acs_user_id)
        assert world.counts["delete_identity"] == 2

    async def test_a_token_has_the_configured_scopes_and_lifetime(self, world: World) -> None:
        async with world.client(replace(world.options, token_scopes=("voip",), token_lifetime_minutes=90)) as client:
            acs_user_id = await client.create_identity()
            issued = await client.issue_token(acs_user_id)
        claims = jwt.decode(issued.token, options={"verify_signature": False})
        assert f"8:{claims['skypeid']}" == acs_user_id
        assert claims["acsScope"] == "voip"
        assert claims["exp"] - claims["iat"] == 90 * 60
        assert issued.expires_on.startswith("20")
        assert issued.expires_on.endswith("+00:00")

    async def test_no_token_for_a_deleted_identity(self, communication: AcsClient) -> None:
        acs_user_id = await communication.create_identity()
        await communication.delete_identity(acs_user_id)
        with pytest.raises(IdentityGone):
            await communication.issue_token(acs_user_id)

    @pytest.mark.parametrize("status", [400, 404, 410])
    async def test_a_deleted_identity_is_recognised_by_its_message_whatever_the_status(
        self, world: World, communication: AcsClient, status: int
    ) -> None:
        body = {"error": {"code": "Whatever", "message": "Provided identity doesn't exist."}}
        world.fault("issue_access_token", Fault(status=status, body=body))
        with pytest.raises(IdentityGone):
            await communication.issue_token("8:acs:1_2")

    @pytest.mark.parametrize("use", [issue, delete])
    async def test_another_resources_identity_is_told_apart_from_a_refused_credential(
        self, world: World, communication: AcsClient, use: Use
    ) -> None:
        with pytest.raises(IdentityNotOwned):
            await use(communication, world.acs.foreign_id())

    @pytest.mark.parametrize("operation", OPERATIONS)
    async def test_a_refused_credential_is_reported_and_not_repeated(
        self, world: World, communication: AcsClient, operation: str
    ) -> None:
        world.acs.rotate_access_key()
        with pytest.raises(AcsCredentialsRejected):
            await OPERATIONS[operation](communication, "8:acs:1_2")
        assert world.counts == {operation: 1}

    async def test_a_forbidden_call_means_the_credential_too(self, world: World, communication: AcsClient) -> None:
        world.fault("create_identity", Fault(status=403, body={"error": {"code": "Forbidden", "message": "No."}}))
        with pytest.raises(AcsCredentialsRejected):
            await communication.create_identity()


class TestTeamsExchange:
    async def test_a_teams_users_token_is_exchanged(self, world: World, communication: AcsClient) -> None:
        user = world.local_azure.entra.users["megan"]
        teams_token = world.local_azure.entra.teams_token(user)
        issued = await communication.exchange_teams_token(teams_token, TEAMS.client_id, user.object_id)
        assert world.acs.verify_token(issued.token)["skypeid"] == f"orgid:{user.object_id}"

    @pytest.mark.parametrize("part", ["token", "client", "user"])
    async def test_the_part_that_is_wrong_is_named(self, world: World, communication: AcsClient, part: str) -> None:
        megan, other = world.local_azure.entra.users["megan"], world.local_azure.entra.users["zoe"]
        token = "garbage" if part == "token" else world.local_azure.entra.teams_token(megan)
        client = BROWSER if part == "client" else TEAMS
        user = other if part == "user" else megan
        with pytest.raises(TeamsTokenRefused) as caught:
            await communication.exchange_teams_token(token, client.client_id, user.object_id)
        assert caught.value.part == part

    @pytest.mark.parametrize(("target", "part"), [("AppId", "client"), ("appId", "client"), ("UserId", "user")])
    async def test_a_missing_field_is_named_like_a_wrong_one(
        self, world: World, communication: AcsClient, target: str, part: str
    ) -> None:
        body = {"error": {"code": "ValidationError", "message": f"The {target} field is required.", "target": target}}
        world.fault("exchange_teams_token", Fault(status=400, body=body))
        with pytest.raises(TeamsTokenRefused) as caught:
            await exchange(communication, "")
        assert caught.value.part == part


THROTTLED = Fault(status=429, times=None)
TOLD_TO_WAIT = Fault(status=429, headers={"Retry-After": "2"}, times=None)
FAULTS = {
    "429": THROTTLED,
    "429 Retry-After": TOLD_TO_WAIT,
    "503": Fault(status=503, times=None),
    "500": Fault(status=500, times=None),
    "408": Fault(status=408, times=None),
    "reset": Fault(reset=True, times=None),
    "dropped answer": Fault(drop_answer=True, times=None),
    "hang": Fault(hang=True, times=None),
}


class TestWireCounts:
    """One retry layer: what is repeated is sent exactly as often as the policy says."""

    @pytest.mark.parametrize("name", FAULTS)
    async def test_creation_is_sent_again_only_when_nothing_was_made(self, world: World, name: str) -> None:
        world.fault("create_identity", FAULTS[name])
        throttled = name.startswith("429")
        options = replace(world.options, mint_seconds=READ_SECONDS)
        async with world.client(options) as client, world.time_running_out("create_identity", name):
            with pytest.raises(AcsThrottled if throttled else AcsUnavailable) as caught:
                await client.create_identity()
        assert world.counts == {"create_identity": ATTEMPTS if throttled else 1}
        assert len(world.acs.live_identities()) == (1 if name == "dropped answer" else 0)
        if isinstance(caught.value, AcsUnavailable):
            assert not caught.value.nothing_happened

    @pytest.mark.parametrize("name", FAULTS)
    @pytest.mark.parametrize("operation", ["delete_identity", "issue_access_token", "exchange_teams_token"])
    async def test_what_may_be_repeated_is_sent_as_often_as_the_policy_says(
        self, world: World, name: str, operation: str
    ) -> None:
        throttled = name.startswith("429")
        async with world.client(replace(world.options, read_seconds=READ_SECONDS)) as client:
            acs_user_id = await client.create_identity()
            world.acs.faults.counts.clear()
            world.fault(operation, FAULTS[name])
            async with world.time_running_out(operation, name):
                with pytest.raises(AcsThrottled if throttled else AcsUnavailable):
                    await OPERATIONS[operation](client, acs_user_id)
        assert world.counts == {operation: ATTEMPTS}

    async def test_a_throttled_creation_succeeds_later_and_makes_one_identity(
        self, world: World, communication: AcsClient
    ) -> None:
        world.fault("create_identity", replace(TOLD_TO_WAIT, times=2))
        acs_user_id = await communication.create_identity()
        assert world.acs.live_identities() == [acs_user_id]
        assert world.waits == [2, 2]

    async def test_a_deletion_whose_answer_was_lost_succeeds(self, world: World, communication: AcsClient) -> None:
        acs_user_id = await communication.create_identity()
        world.fault("delete_identity", Fault(drop_answer=True))
        await communication.delete_identity(acs_user_id)
        assert world.acs.live_identities() == []
        assert world.counts["delete_identity"] == 2

    @pytest.mark.parametrize(
        ("headers", "waits"),
        [
            ({"Retry-After": "2"}, [2.0, 2.0]),
            ({"Retry-After": formatdate(NOW + 7, usegmt=True)}, [7.0, 7.0]),
            ({"Retry-After": formatdate(NOW - 7, usegmt=True)}, [0.0, 0.0]),
            ({"x-ms-retry-after-ms": "150", "Retry-After": "1"}, [0.15, 0.15]),
            ({"Retry-After": "soon"}, [0.5, 1.0]),
            ({}, [0.5, 1.0]),
        ],
    )
    @pytest.mark.parametrize("status", [429, 503])
    async def test_the_wait_is_what_acs_says_or_else_grows(
        self, world: World, communication: AcsClient, status: int, headers: dict[str, str], waits: list[float]
    ) -> None:
        world.fault("issue_access_token", Fault(status=status, headers=headers, times=None))
        with pytest.raises((AcsThrottled, AcsUnavailable)) as caught:
            await communication.issue_token("8:acs:1_2")
        assert world.waits == waits
        assert isinstance(caught.value, AcsThrottled | AcsUnavailable)
        assert caught.value.retry_after == (waits[0] if waits[0] != 0.5 else None)

    @pytest.mark.parametrize("operation", OPERATIONS)
    async def test_without_a_connection_everything_is_repeated_and_nothing_happened(
        self, world: World, operation: str
    ) -> None:
        nobody = AcsConnectionString(f"https://localhost:{free_port()}", "a2V5")
        options = replace(world.options, connection_string=nobody)
        async with world.client(options) as client:
            with pytest.raises(AcsUnavailable) as caught:
                await OPERATIONS[operation](client, "8:acs:1_2")
        assert caught.value.nothing_happened
        assert len(world.waits) == ATTEMPTS - 1

    @pytest.mark.parametrize("operation", OPERATIONS)
    async def test_the_deadline_ends_a_call_that_hangs(
        self, world: World, communication: AcsClient, operation: str
    ) -> None:
        world.fault(operation, Fault(hang=True, times=None))
        async with time_running_out(world.acs.faults, operation, 3):
            with deadline(3), pytest.raises(AcsUnavailable):
                await OPERATIONS[operation](communication, "8:acs:1_2")
        assert world.counts == {operation: 1}

    async def test_after_the_deadline_nothing_is_sent(self, world: World, communication: AcsClient) -> None:
        with deadline(-1), pytest.raises(AcsUnavailable) as caught:
            await communication.create_identity()
        assert caught.value.nothing_happened
        assert world.counts == {}


class TestUnexpectedAnswers:
    @pytest.mark.parametrize(
        ("operation", "fault"),
        [
            ("create_identity", Fault(status=201, body={})),
            ("create_identity", Fault(status=404, body={"error": {"code": "NotFound", "message": "?"}})),
            ("create_identity", Fault(status=418, body={"error": {"code": "Teapot", "message": "?"}})),
            ("delete_identity", Fault(status=400, body={"error": {"code": "Odd", "message": "?"}})),
            ("issue_access_token", Fault(status=200, body={})),
            ("exchange_teams_token", Fault(status=400, body={"error": {"code": "ValidationError", "message": "?"}})),
        ],
    )
    async def test_they_are_reported_as_such_and_not_repeated(
        self, world: World, communication: AcsClient, operation: str, fault: Fault
    ) -> None:
        world.fault(operation, replace(fault, times=None))
        with pytest.raises(UnexpectedAnswer) as caught:
            await OPERATIONS[operation](communication, "8:acs:1_2")
        assert caught.value.status in (fault.status, None)
        assert world.counts == {operation: 1}

    async def test_redirects_are_not_followed(self, world: World, communication: AcsClient) -> None:
        location = {
            "Location": f"{world.acs.service_environment()['ACS_CONNECTION_STRING'].split(';')[0][9:]}elsewhere"
        }
        world.fault("create_identity", Fault(status=307, headers=location))
        with pytest.raises(AcsUnavailable):
            await communication.create_identity()
        assert world.counts == {"create_identity": 1}

    @pytest.mark.parametrize(
        "fault",
        [
            Fault(status=201, body="not JSON", content_type="application/json"),
            Fault(status=200, body=""),
            Fault(status=404, body="<html>"),
            Fault(status=401, body={}),
            Fault(status=403, body={"error": {"code": {"no": "text"}}}),
            Fault(status=418, body=[]),
        ],
    )
    @pytest.mark.parametrize("operation", OPERATIONS)
    async def test_what_is_not_in_acss_own_form_is_passing_trouble(
        self, world: World, communication: AcsClient, operation: str, fault: Fault
    ) -> None:
        world.fault(operation, replace(fault, times=None))
        with pytest.raises(AcsUnavailable) as caught:
            await OPERATIONS[operation](communication, "8:acs:1_2")
        assert isinstance(caught.value, AcsUnavailable)
        assert not caught.value.nothing_happened
        assert world.counts == {operation: 1 if operation == "create_identity" else ATTEMPTS}

    @pytest.mark.parametrize(
        "answer",
        [
            {"identity": {}},
            {"identity": {"id": None}},
            {"identity": {"id": 8}},
            {"identity": {"id": ""}},
            {"identity": {"id": " "}},
            {"identity": {"id": "8:orgid:00000000-0000-0000-0000-000000000001"}},
            {"identity": {"id": "8:acs:1_2"}},
            {"identity": {"id": f"{GOOD_ID}/../x"}},
            {"identity": {"id": f"{GOOD_ID}?x"}},
            {"identity": {"id": f"{GOOD_ID}\n"}},
            {"identity": {"id": [GOOD_ID]}},
            {"identity": None},
            {"identity": []},
            {},
            [],
            "null",
            "true",
            "7",
        ],
    )
    async def test_an_identity_is_taken_only_with_the_id_of_one(
        self, world: World, communication: AcsClient, answer: Any
    ) -> None:
        world.fault("create_identity", Fault(status=201, body=answer, content_type="application/json"))
        with pytest.raises(UnexpectedAnswer):
            await communication.create_identity()
        assert world.counts == {"create_identity": 1}
        assert (await communication.create_identity()).startswith("8:acs:")

    @pytest.mark.parametrize(
        "answer",
        [
            {"token": "a.b.c"},
            {"token": "", "expiresOn": "2026-11-26T05:45:00+00:00"},
            {"token": None, "expiresOn": "2026-11-26T05:45:00+00:00"},
            {"token": ["a.b.c"], "expiresOn": "2026-11-26T05:45:00+00:00"},
            {"token": "a b", "expiresOn": "2026-11-26T05:45:00+00:00"},
            {"token": "a.b.c\r\nX: y", "expiresOn": "2026-11-26T05:45:00+00:00"},
            {"token": "a" * 70_000, "expiresOn": "2026-11-26T05:45:00+00:00"},
            {"token": "a.b.c", "expiresOn": "tomorrow"},
            {"token": "a.b.c", "expiresOn": "2026-11-26T05:45:00"},
            {"token": "a.b.c", "expiresOn": 1_800_000_000},
            {"token": "a.b.c", "expiresOn": {"at": "2026-11-26T05:45:00+00:00"}},
            {"token": "a.b.c", "expiresOn": "2026-11-26T05:45:00+00:00" + "0" * 100},
        ],
    )
    @pytest.mark.parametrize("use", [issue, exchange])
    async def test_a_token_is_taken_only_with_the_time_at_which_it_expires(
        self, world: World, communication: AcsClient, use: Use, answer: Any
    ) -> None:
        operation = "issue_access_token" if use is issue else "exchange_teams_token"
        world.fault(operation, Fault(status=200, body=answer))
        with pytest.raises(UnexpectedAnswer):
            await use(communication, "8:acs:1_2")
        assert world.counts == {operation: 1}

    @pytest.mark.parametrize("written", ["2022-11-16T09:48:02.7233445+00:00", "2022-11-16T09:48:02Z"])
    async def test_a_time_stays_as_acs_wrote_it(self, world: World, communication: AcsClient, written: str) -> None:
        world.fault("issue_access_token", Fault(status=200, body={"token": "token", "expiresOn": written}))
        assert (await communication.issue_token("8:acs:1_2")).expires_on == written

    @pytest.mark.parametrize(
        "odd", [AttributeError("x"), TypeError("x"), KeyError("x"), RecursionError(), ValueError()]
    )
    @pytest.mark.parametrize("operation", OPERATIONS)
    async def test_nothing_that_the_sdk_raises_leaves_untyped(
        self, world: World, communication: AcsClient, operation: str, odd: Exception, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def never_should(*_: object, **__: object) -> None:
            raise odd

        monkeypatch.setattr("azure.core.pipeline.transport.AioHttpTransport.send", never_should)
        with pytest.raises(AcsError) as caught:
            await OPERATIONS[operation](communication, "8:acs:1_2")
        assert caught.value.cause is not None
        assert caught.value.cause.code == type(odd).__name__

    async def test_settings_that_acs_does_not_take_are_the_operators(
        self, world: World, communication: AcsClient
    ) -> None:
        body = {"error": {"code": "ValidationError", "message": "?", "target": "Scopes"}}
        world.fault("issue_access_token", Fault(status=400, body=body))
        with pytest.raises(AcsMisconfigured) as caught:
            await communication.issue_token("8:acs:1_2")
        assert caught.value.cause is not None
        assert "ACS_TOKEN_SCOPES" in str(caught.value.cause.advice)


class TestPrivacy:
    @pytest.mark.parametrize("fault", [Fault(status=500), Fault(reset=True), Fault(status=418, body="<html>"), Fault()])
    @pytest.mark.parametrize("operation", ["delete_identity", "issue_access_token"])
    async def test_no_id_reaches_a_log_or_a_traceback(
        self, world: World, operation: str, fault: Fault, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.DEBUG, "azure")
        caplog.set_level(logging.DEBUG, "aiohttp.client")
        caplog.set_level(logging.DEBUG, "upstream")
        text = ""
        async with world.client() as client:
            acs_user_id = await client.create_identity()
            world.fault(operation, replace(fault, times=None))
            try:
                await OPERATIONS[operation](client, acs_user_id)
            except AcsError as error:
                text = "".join(traceback.format_exception(error))
        records = " ".join(str(vars(record)) for record in caplog.records if record.name != "aiohttp.access")
        assert acs_user_id.removeprefix("8:acs:") not in records + text
        assert fault == Fault() or "upstream.calls" in records

    async def test_cookies_are_not_kept(self, world: World, communication: AcsClient) -> None:
        world.fault("create_identity", Fault(status=429, headers={"Set-Cookie": "a=b; Path=/"}))
        await communication.create_identity()
        assert [call.headers.get("Cookie") for call in world.acs.faults.calls] == [None, None]

    async def test_secrets_have_no_representation(self) -> None:
        options = AcsOptions(("chat",), connection_string=AcsConnectionString("https://x", "c2VjcmV0"))
        assert "c2VjcmV0" not in repr(options)


class StaticCredential:
    """Always has the same token, or fails."""

    def __init__(self, token: str | None) -> None:
        self._token = token

    async def get_token_info(self, *scopes: str, options: TokenRequestOptions | None = None) -> AccessTokenInfo:
        if self._token is None:
            raise ClientAuthenticationError("AADSTS7000215: invalid client secret")
        assert scopes == ("https://communication.azure.com//.default",)
        return AccessTokenInfo(self._token, 4_000_000_000)


class NoToken(UpstreamError):
    """The credential gives no token."""

    upstream = "sign_in"


def credential_with(token: str | None) -> AzureCredential:
    calls = UpstreamCalls("sign_in", lambda begun: NoToken())
    return AzureCredential(StaticCredential(token), calls, lambda error: NoToken())


class TestCredentials:
    def options(self, world: World, token: str | None) -> AcsOptions:
        endpoint = world.acs.service_environment()["ACS_CONNECTION_STRING"].split(";")[0].removeprefix("endpoint=")
        return AcsOptions(("chat",), endpoint=endpoint, credential=credential_with(token))

    async def test_an_entra_token_works_instead_of_a_key(self, world: World) -> None:
        token = world.local_azure.entra.managed_identity_token("https://communication.azure.com")
        async with world.client(self.options(world, token)) as client:
            acs_user_id = await client.create_identity()
        assert world.acs.live_identities() == [acs_user_id]

    async def test_a_token_that_acs_does_not_take_is_reported(self, world: World) -> None:
        async with world.client(self.options(world, "garbage")) as client:
            with pytest.raises(AcsCredentialsRejected):
                await client.create_identity()

    async def test_a_credential_that_gets_no_token_is_an_upstream_of_its_own_and_acs_is_not_asked(
        self, world: World
    ) -> None:
        async with world.client(self.options(world, None)) as client:
            with pytest.raises(NoToken):
                await client.create_identity()
        assert world.counts == {}


class TestOptions:
    @pytest.mark.parametrize(
        "wrong",
        [
            {"token_scopes": ()},
            {"token_lifetime_minutes": 59},
            {"token_lifetime_minutes": 1441},
            {"connection_string": None},
            {"connection_string": None, "endpoint": "https://x"},
            {"endpoint": "https://x", "credential": credential_with("")},
        ],
    )
    async def test_wrong_ones_are_refused(self, wrong: dict[str, Any]) -> None:
        good: dict[str, Any] = {
            "token_scopes": ("chat",),
            "connection_string": AcsConnectionString("https://x", "a2V5"),
        }
        AcsOptions(**good)
        with pytest.raises(ValueError, match=r"Pass|lifetime"):
            AcsOptions(**(good | wrong))

    async def test_a_proxy_is_used_only_if_one_was_set_at_the_start(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
            monkeypatch.delenv(name.upper(), raising=False)
        proxy = f"http://127.0.0.1:{free_port()}"
        async with world.client() as without:
            monkeypatch.setenv("HTTPS_PROXY", proxy)
            await without.create_identity()
        async with world.client() as through_the_proxy:
            with pytest.raises(AcsUnavailable) as caught:
                await through_the_proxy.create_identity()
            assert caught.value.nothing_happened


async def test_200_simultaneous_requests_for_a_new_user_leave_one_live_identity(
    world: World, communication: AcsClient
) -> None:
    service = IdentityService(MemoryMappingStore(), communication)
    user = UserKey("tenant", "alice")
    identities = await asyncio.gather(*(service.get_or_create(user) for _ in range(200)))
    assert {identity.acs_user_id for identity in identities} == set(world.acs.live_identities())
    assert world.counts == {"create_identity": 1}
    assert sum(identity.created for identity in identities) == 1
    await service.aclose()


async def test_200_simultaneous_requests_over_four_processes_leave_one_live_identity(
    world: World, communication: AcsClient
) -> None:
    store, user = MemoryMappingStore(), UserKey("tenant", "alice")
    services = [IdentityService(store, communication) for _ in range(4)]
    identities = await asyncio.gather(*(services[number % 4].get_or_create(user) for number in range(200)))
    assert {identity.acs_user_id for identity in identities} == set(world.acs.live_identities())
    assert len(world.acs.live_identities()) == 1
    assert sum(identity.created for identity in identities) == 1
    for service in services:
        await service.aclose()
