"""The ACS Identity stand-in as Microsoft's own SDK sees it, with tokens of a scripted Entra ID."""

import asyncio
import base64
import hashlib
import hmac
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp
import jwt
import pytest
from aiohttp import web
from azure.communication.identity import CommunicationIdentityClient as SyncClient
from azure.communication.identity import CommunicationUserIdentifier
from azure.communication.identity.aio import CommunicationIdentityClient
from azure.core.credentials import AccessToken, AzureKeyCredential
from azure.core.exceptions import ClientAuthenticationError, HttpResponseError, ResourceNotFoundError
from yarl import URL

from local_azure.acs import IDENTITY_OPERATIONS, Acs, DeletedIdentityAnswer, TokenStatus
from local_azure.certificates import LocalAuthority
from local_azure.environment import LocalAzure, Ports
from local_azure.faults import Fault
from local_azure.keys import KeyFactory
from local_azure.state import State
from local_azure.user_states import Mark, UserKey
from tests.conftest import FakeClock

TENANT = "11111111-1111-4111-8111-111111111111"
USER = "22222222-2222-4222-8222-222222222222"
OTHER_USER = "33333333-3333-4333-8333-333333333333"
CLIENT = "44444444-4444-4444-8444-444444444444"
OTHER_CLIENT = "55555555-5555-4555-8555-555555555555"


@dataclass
class Running:
    """An ACS stand-in that listens, and what it runs on."""

    acs: Acs
    url: str
    clock: FakeClock
    entra_tokens: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def connection_string(self) -> str:
        return self.acs.service_environment()["ACS_CONNECTION_STRING"]


@pytest.fixture
async def running(state_directory: Path, new_key: KeyFactory) -> AsyncIterator[Running]:
    entra_tokens: dict[str, dict[str, Any]] = {}
    clock = FakeClock(datetime.now(UTC).timestamp())
    state = State(state_directory)
    site_context = LocalAuthority(state_directory).server_context()
    # The address is needed before the application that listens on it: a first site reserves the port.
    placeholder = web.AppRunner(web.Application())
    await placeholder.setup()
    await web.TCPSite(placeholder, "127.0.0.1", 0).start()
    port = placeholder.addresses[0][1]
    await placeholder.cleanup()
    url = f"https://localhost:{port}"
    acs = Acs(state, url, clock=clock, new_key=new_key, verify=entra_tokens.get)
    runner = web.AppRunner(acs.application(), shutdown_timeout=0.5)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, ssl_context=site_context).start()
    yield Running(acs, url, clock, entra_tokens)
    acs.faults.release()
    await runner.cleanup()
    state.close()


@pytest.fixture
async def client(running: Running) -> AsyncIterator[CommunicationIdentityClient]:
    async with CommunicationIdentityClient.from_connection_string(running.connection_string, retry_total=0) as client:
        yield client


class EntraCredential:
    """A credential of azure-identity's kind that always has the same token."""

    def __init__(self, token: str) -> None:
        self._token = token
        self.scopes: tuple[str, ...] = ()

    async def get_token(self, *scopes: str, **_: Any) -> AccessToken:
        self.scopes = scopes
        return AccessToken(self._token, int(datetime.now(UTC).timestamp()) + 3600)

    async def close(self) -> None:
        """Nothing to close."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        """Nothing to close."""


def error_of(raised: pytest.ExceptionInfo[HttpResponseError]) -> tuple[int | None, str | None, str | None, str | None]:
    """Status, code, message and target of the error as the SDK reads it."""
    error = raised.value.error
    assert error is not None
    return raised.value.status_code, error.code, error.message, error.target


def user(identity: str) -> CommunicationUserIdentifier:
    return CommunicationUserIdentifier(identity)


# Identities and their ids


async def test_creating_a_user_mints_a_live_identity(running: Running, client: CommunicationIdentityClient) -> None:
    created = await client.create_user()
    assert running.acs.live_identities() == [created.properties["id"]]


async def test_creating_twice_mints_two_identities(running: Running, client: CommunicationIdentityClient) -> None:
    ids = [(await client.create_user()).properties["id"] for _ in range(2)]
    assert running.acs.live_identities() == ids
    assert len(set(ids)) == 2


async def test_an_id_names_the_resource_and_a_time_in_hex(client: CommunicationIdentityClient) -> None:
    identity = (await client.create_user()).properties["id"]
    guid = "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"
    assert re.fullmatch(f"8:acs:{guid}_{guid}", identity)


async def test_an_id_counts_the_milliseconds_that_recorded_ids_count(
    running: Running, client: CommunicationIdentityClient
) -> None:
    running.clock.now = datetime.now(UTC).timestamp()
    first = (await client.create_user()).properties["id"].split("_")[1]
    running.clock.advance(60)
    second = (await client.create_user()).properties["id"].split("_")[1]
    assert int(second.replace("-", "")[:16], 16) - int(first.replace("-", "")[:16], 16) == 60_000
    # 8:acs:…_0000000f-576f-4c90-… was recorded on 2022-02-01 at 23:10:21 UTC.
    recorded = datetime(2022, 2, 1, 23, 10, 21, tzinfo=UTC).timestamp()
    elapsed = running.clock.now - recorded
    assert int(second.replace("-", "")[:16], 16) == pytest.approx(0x0000000F576F4C90 + elapsed * 1000, abs=1000)


async def test_deleting_a_user_ends_its_life(running: Running, client: CommunicationIdentityClient) -> None:
    created = await client.create_user()
    await client.delete_user(created)
    assert running.acs.live_identities() == []
    assert running.acs.all_identities() == [created.properties["id"]]


async def test_the_list_of_identities_is_open_to_local_tools(
    running: Running, client: CommunicationIdentityClient
) -> None:
    kept = (await client.create_user()).properties["id"]
    deleted = await client.create_user()
    await client.delete_user(deleted)
    async with aiohttp.ClientSession() as session, session.get(f"{running.url}/local/identities") as response:
        assert await response.json() == {"live": [kept], "all": [kept, deleted.properties["id"]]}


@pytest.mark.parametrize("operation", ["get_token", "revoke_tokens", "delete_user"])
@pytest.mark.parametrize("loss", ["deleted", "forgotten"])
async def test_a_deleted_identity_is_not_found(
    running: Running, client: CommunicationIdentityClient, operation: str, loss: str
) -> None:
    created = await client.create_user()
    if loss == "deleted":
        await client.delete_user(created)
    else:
        running.acs.forget(created.properties["id"])
    arguments = (created, ["chat"]) if operation == "get_token" else (created,)
    with pytest.raises(ResourceNotFoundError) as raised:
        await getattr(client, operation)(*arguments)
    assert error_of(raised) == (404, "IdentityNotFound", "Provided identity doesn't exist.", None)


ANSWERS = [
    DeletedIdentityAnswer(404, "ResourceNotFound", "Identity not found."),
    DeletedIdentityAnswer(401, "IdentityNotOwned", "Provided identity doesn't belong to the resource."),
    DeletedIdentityAnswer(400, "InvalidIdentity", "Provided identity doesn't exist."),
]


async def refusals(client: CommunicationIdentityClient, identity: CommunicationUserIdentifier) -> list[Any]:
    """The errors of every operation on an identity."""
    found = []
    for call in (lambda: client.get_token(identity, ["chat"]), lambda: client.revoke_tokens(identity)):
        with pytest.raises(HttpResponseError) as raised:
            await call()
        found.append(error_of(raised))
    with pytest.raises(HttpResponseError) as raised:
        await client.delete_user(identity)
    return [*found, error_of(raised)]


@pytest.mark.parametrize("answer", ANSWERS)
async def test_the_answer_for_a_deleted_identity_can_be_chosen(
    running: Running, client: CommunicationIdentityClient, answer: DeletedIdentityAnswer
) -> None:
    deleted = await client.create_user()
    await client.delete_user(deleted)
    running.acs.deleted_identities.answer = answer
    assert await refusals(client, deleted) == [(answer.status, answer.code, answer.message, None)] * 3
    foreign = await refusals(client, user(running.acs.foreign_id()))
    assert foreign == [(401, "IdentityNotOwned", "Provided identity doesn't belong to the resource.", None)] * 3
    await client.get_token(await client.create_user(), ["chat"])


async def test_the_answer_for_a_deleted_identity_can_be_chosen_at_the_start(
    state_directory: Path, new_key: KeyFactory
) -> None:
    async with LocalAzure(
        state_directory, Ports(0, 0, 0, 0), new_key=new_key, deleted_identity=ANSWERS[0]
    ) as local_azure:
        given = local_azure.service_environment()["ACS_CONNECTION_STRING"]
        async with CommunicationIdentityClient.from_connection_string(given, retry_total=0) as client:
            deleted = await client.create_user()
            await client.delete_user(deleted)
            assert (await refusals(client, deleted))[0][:2] == (404, "ResourceNotFound")


async def test_the_answer_for_a_deleted_identity_can_be_chosen_over_http(
    running: Running, client: CommunicationIdentityClient
) -> None:
    deleted = await client.create_user()
    await client.delete_user(deleted)
    url = f"{running.url}/local/deleted-identity"
    async with aiohttp.ClientSession() as session:
        await session.put(url, json={"status": 401, "code": "Gone"})
        assert (await refusals(client, deleted))[0] == (401, "Gone", "Provided identity doesn't exist.", None)
        async with session.get(url) as answer:
            assert (await answer.json())["status"] == 401
        await session.delete(url)
        assert (await refusals(client, deleted))[0][:2] == (404, "IdentityNotFound")


@pytest.mark.parametrize("body", ["{", "[]", '{"status": 200}', '{"status": "404"}', '{"code": 1}', '{"other": 1}'])
async def test_what_is_no_answer_for_a_deleted_identity_is_refused(running: Running, body: str) -> None:
    async with aiohttp.ClientSession() as session:
        answer = await session.put(f"{running.url}/local/deleted-identity", data=body)
        assert answer.status == 400
    assert running.acs.deleted_identities.answer == DeletedIdentityAnswer()


async def test_another_server_may_know_no_identity_at_all(
    running: Running, client: CommunicationIdentityClient
) -> None:
    created = await client.create_user()
    body = {"error": {"code": "ResourceNotFound", "message": "Resource not found"}}
    for operation in IDENTITY_OPERATIONS:
        running.acs.faults.script(operation, Fault(status=404, body=body, times=None))
    assert await refusals(client, created) == [(404, "ResourceNotFound", "Resource not found", None)] * 3
    assert running.acs.live_identities() == [created.properties["id"]]


@pytest.mark.parametrize("operation", ["get_token", "revoke_tokens", "delete_user"])
async def test_an_identity_of_another_resource_is_401_not_403(
    running: Running, client: CommunicationIdentityClient, operation: str
) -> None:
    foreign = user(running.acs.foreign_id())
    arguments = (foreign, ["chat"]) if operation == "get_token" else (foreign,)
    with pytest.raises(ClientAuthenticationError) as raised:
        await getattr(client, operation)(*arguments)
    message = "Provided identity doesn't belong to the resource."
    assert error_of(raised) == (401, "IdentityNotOwned", message, None)


async def test_a_made_up_id_is_not_owned(client: CommunicationIdentityClient) -> None:
    with pytest.raises(ClientAuthenticationError) as raised:
        await client.delete_user(user("nobody"))
    assert error_of(raised)[1] == "IdentityNotOwned"


# Access tokens


async def test_a_token_holds_the_claims_of_a_real_one(running: Running, client: CommunicationIdentityClient) -> None:
    identity = (await client.create_user()).properties["id"]
    token = (await client.get_token(user(identity), ["chat", "voip"])).token
    claims = running.acs.verify_token(token)
    now = int(running.clock.now)
    resource_id = identity.removeprefix("8:acs:").split("_")[0]
    assert claims == {
        "skypeid": identity.removeprefix("8:"),
        "scp": 1792,
        "csi": str(now),
        "exp": now + 86_400,
        "rgn": "amer",
        "acsScope": "chat,voip",
        "resourceId": resource_id,
        "resourceLocation": "unitedstates",
        "iat": now,
    }


async def test_a_tokens_header_names_its_key_twice(client: CommunicationIdentityClient) -> None:
    _, token = await client.create_user_and_token(["chat"])
    header = jwt.get_unverified_header(token.token)
    assert header.keys() == {"alg", "kid", "x5t", "typ"}
    assert (header["alg"], header["typ"]) == ("RS256", "JWT")
    assert bytes.fromhex(header["kid"]) == base64.urlsafe_b64decode(header["x5t"] + "=")


async def test_expiry_is_a_string_with_seven_fractional_digits(
    running: Running, client: CommunicationIdentityClient
) -> None:
    running.clock.now = int(running.clock.now) + 0.5
    _, token = await client.create_user_and_token(["chat"], token_expires_in=timedelta(hours=1))
    expires_on: Any = token.expires_on  # the SDK's type says int, which it is not
    expected = datetime.fromtimestamp(int(running.clock.now) + 3600, UTC)
    assert expires_on == f"{expected:%Y-%m-%dT%H:%M:%S}.5000000+00:00"


async def test_the_lifetime_is_24_hours_unless_asked_otherwise(
    running: Running, client: CommunicationIdentityClient
) -> None:
    created = await client.create_user()
    day = running.acs.verify_token((await client.get_token(created, ["chat"])).token)
    hour = await client.get_token(created, ["chat"], token_expires_in=timedelta(minutes=60))
    assert day["exp"] - day["iat"] == 24 * 3600
    assert (claims := running.acs.verify_token(hour.token))["exp"] - claims["iat"] == 3600


@pytest.mark.parametrize("minutes", [0, 59, 1441])
@pytest.mark.parametrize("operation", ["create", "issue"])
async def test_a_lifetime_outside_the_range_is_refused_and_nothing_is_made(
    running: Running, client: CommunicationIdentityClient, minutes: int, operation: str
) -> None:
    lifetime = timedelta(minutes=minutes)
    created = await client.create_user()
    calls: dict[str, Callable[[], Awaitable[Any]]] = {
        "create": lambda: client.create_user_and_token(["chat"], token_expires_in=lifetime),
        "issue": lambda: client.get_token(created, ["chat"], token_expires_in=lifetime),
    }
    with pytest.raises(HttpResponseError) as raised:
        await calls[operation]()
    message = f"ExpiresInMinutes value {minutes} is invalid. Value must be within the [60, 1440] interval."
    assert error_of(raised) == (400, "ValidationError", message, "ExpiresInMinutes")
    assert running.acs.all_identities() == [created.properties["id"]]


@pytest.mark.parametrize("scopes", [None, []])
async def test_issuing_needs_scopes(client: CommunicationIdentityClient, scopes: Any) -> None:
    created = await client.create_user()
    with pytest.raises(HttpResponseError) as raised:
        await client.get_token(created, scopes)
    assert error_of(raised) == (400, "ValidationError", "Scopes: The Scopes field is required.", "Scopes")


async def test_an_unknown_scope_is_refused(client: CommunicationIdentityClient) -> None:
    created = await client.create_user()
    with pytest.raises(HttpResponseError) as raised:
        await client.get_token(created, ["chat", "telepathy"])
    assert error_of(raised)[:2] == (400, "ValidationError")


@pytest.mark.parametrize("scope", ["chat", "voip", "chat.join", "chat.join.limited", "voip.join"])
async def test_every_published_scope_is_granted(
    running: Running, client: CommunicationIdentityClient, scope: str
) -> None:
    _, token = await client.create_user_and_token([scope])
    assert running.acs.verify_token(token.token)["acsScope"] == scope


async def test_creating_with_nulls_gives_an_identity_without_a_token(client: CommunicationIdentityClient) -> None:
    body: Any = {"createTokenWithScopes": None, "expiresInMinutes": None}
    answer = await client._identity_service_client.communication_identity.create(body=body)
    assert answer.identity.id
    assert answer.access_token is None


async def test_revoked_tokens_are_good_no_more_and_later_ones_are(
    running: Running, client: CommunicationIdentityClient
) -> None:
    created = await client.create_user()
    old = (await client.get_token(created, ["chat"])).token
    running.acs.verify_token(old)
    await client.revoke_tokens(created)
    running.clock.advance(1)
    new = (await client.get_token(created, ["chat"])).token
    with pytest.raises(jwt.InvalidTokenError):
        running.acs.verify_token(old)
    running.acs.verify_token(new)


async def test_what_became_of_a_token_is_told(running: Running, client: CommunicationIdentityClient) -> None:
    created = await client.create_user()
    revoked = (await client.get_token(created, ["chat"])).token
    await client.revoke_tokens(created)
    good = (await client.get_token(created, ["chat"])).token
    short = (await client.get_token(created, ["voip"], token_expires_in=timedelta(hours=1))).token
    assert good != revoked
    running.acs.verify_token(good)
    other, others = await client.create_user_and_token(["chat"])
    await client.delete_user(other)
    assert running.acs.token_status(others.token) is TokenStatus.REVOKED
    running.clock.advance(2 * 3600)
    statuses = {}
    async with aiohttp.ClientSession() as session:
        for token in (revoked, good, short, "garbage"):
            async with session.post(f"{running.url}/local/token-status", json={"token": token}) as answer:
                statuses[token] = (await answer.json())["status"]
    assert statuses == {revoked: "revoked", good: "good", short: "expired", "garbage": "unknown"}


async def test_expired_and_revoked_tokens_are_forgotten_after_a_day(
    running: Running, client: CommunicationIdentityClient
) -> None:
    created, token = await client.create_user_and_token(["chat"])
    await client.revoke_tokens(created)
    running.clock.advance(2 * 24 * 3600)
    running.acs._identities.remember_token("another", created.properties["id"], int(running.clock.now) + 60)
    assert running.acs.token_status(token.token) is TokenStatus.UNKNOWN


async def test_deleting_a_user_revokes_its_tokens_and_nobody_elses(
    running: Running, client: CommunicationIdentityClient
) -> None:
    deleted, token = await client.create_user_and_token(["chat"])
    _, other_token = await client.create_user_and_token(["chat"])
    await client.delete_user(deleted)
    with pytest.raises(jwt.InvalidTokenError):
        running.acs.verify_token(token.token)
    running.acs.verify_token(other_token.token)


async def test_an_expired_token_is_not_good(running: Running, client: CommunicationIdentityClient) -> None:
    _, token = await client.create_user_and_token(["chat"], token_expires_in=timedelta(hours=1))
    running.clock.advance(3599)
    running.acs.verify_token(token.token)
    running.clock.advance(1)
    with pytest.raises(jwt.InvalidTokenError):
        running.acs.verify_token(token.token)


# Who may call


async def test_a_wrong_key_is_denied(running: Running) -> None:
    credential = AzureKeyCredential(base64.b64encode(b"not the key").decode())
    async with CommunicationIdentityClient(running.url, credential, retry_total=0) as client:
        with pytest.raises(ClientAuthenticationError) as raised:
            await client.create_user()
    assert error_of(raised) == (401, "Denied", "Denied by the resource provider.", None)
    assert running.acs.all_identities() == []


async def test_a_rotated_key_is_denied_and_the_new_one_is_not(
    running: Running, client: CommunicationIdentityClient
) -> None:
    await client.create_user()
    running.acs.rotate_access_key()
    with pytest.raises(ClientAuthenticationError) as raised:
        await client.create_user()
    assert error_of(raised)[1] == "Denied"
    async with CommunicationIdentityClient.from_connection_string(running.connection_string) as renewed:
        await renewed.create_user()


async def test_the_slash_that_ends_a_connection_strings_endpoint_is_not_signed(running: Running) -> None:
    assert f"endpoint={running.url}/;accesskey=" in running.connection_string
    async with CommunicationIdentityClient.from_connection_string(running.connection_string) as client:
        await client.create_user()


async def test_the_slash_that_ends_an_endpoint_of_its_own_is_signed_and_denied(running: Running) -> None:
    credential = AzureKeyCredential(running.connection_string.split("accesskey=")[1])
    async with CommunicationIdentityClient(f"{running.url}/", credential, retry_total=0) as client:
        with pytest.raises(ClientAuthenticationError) as raised:
            await client.create_user()
    assert error_of(raised)[1] == "Denied"


async def test_a_connection_string_with_http_is_called_over_https(running: Running) -> None:
    plain = running.connection_string.replace("https://", "http://")
    async with CommunicationIdentityClient.from_connection_string(plain) as client:
        await client.create_user()


async def test_the_async_client_sends_bare_colons_and_the_sync_one_encodes_them(running: Running) -> None:
    async with CommunicationIdentityClient.from_connection_string(running.connection_string) as client:
        created = await client.create_user()
        await client.get_token(created, ["chat"])

    def use_sync_client() -> None:
        client = SyncClient.from_connection_string(running.connection_string)
        with client._identity_service_client:
            client.get_token(created, ["chat"])
            client.revoke_tokens(created)
            client.delete_user(created)

    await asyncio.to_thread(use_sync_client)
    bare = created.properties["id"]
    encoded = bare.replace(":", "%3A")
    query = "?api-version=2023-10-01"
    assert [call.path for call in running.acs.faults.calls][1:] == [
        f"/identities/{bare}/:issueAccessToken{query}",
        f"/identities/{encoded}/:issueAccessToken{query}",
        f"/identities/{encoded}/:revokeAccessTokens{query}",
        f"/identities/{encoded}{query}",
    ]
    assert running.acs.live_identities() == []


@pytest.mark.parametrize("seconds", [-301, 301])
async def test_a_date_more_than_five_minutes_off_is_denied(
    running: Running, client: CommunicationIdentityClient, seconds: int
) -> None:
    running.clock.advance(seconds)
    with pytest.raises(ClientAuthenticationError) as raised:
        await client.create_user()
    status, code, message, _ = error_of(raised)
    assert (status, code) == (401, "Denied")
    assert "5 minutes" in str(message)


@pytest.mark.parametrize("seconds", [-290, 290])
async def test_a_date_within_five_minutes_is_accepted(
    running: Running, client: CommunicationIdentityClient, seconds: int
) -> None:
    running.clock.advance(seconds)
    await client.create_user()


async def test_a_body_other_than_the_signed_one_is_denied(
    running: Running, client: CommunicationIdentityClient
) -> None:
    await client.create_user()
    signed = running.acs.faults.calls[-1].headers
    names = ("Authorization", "x-ms-date", "x-ms-content-sha256")
    headers = {name: signed[name] for name in names}
    url = f"{running.url}/identities?api-version=2023-10-01"
    async with aiohttp.ClientSession() as session:
        async with session.post(url, headers=headers) as same:
            assert same.status == 201
        async with session.post(url, headers=headers, data=b"{}") as tampered:
            assert tampered.status == 401
        async with session.post(f"{url}&x=1", headers=headers) as elsewhere:
            assert elsewhere.status == 401
        async with session.delete(url, headers=headers) as other_verb:
            assert other_verb.status == 401
        async with session.post(url, headers=headers | {"x-ms-content-sha256": "other"}) as other_hash:
            assert other_hash.status == 401


@pytest.mark.parametrize(("target", "status"), [("x=%7E", 201), ("x=~", 401)])
async def test_the_request_target_is_signed_as_it_is_written(running: Running, target: str, status: int) -> None:
    path = "/identities?api-version=2023-10-01&"
    date = format_datetime(datetime.fromtimestamp(running.clock.now, UTC), usegmt=True)
    content_hash = base64.b64encode(hashlib.sha256().digest()).decode()
    signed = f"POST\n{path}x=%7E\n{date};{running.url.removeprefix('https://')};{content_hash}"
    key = base64.b64decode(running.connection_string.split("accesskey=")[1])
    signature = base64.b64encode(hmac.digest(key, signed.encode(), "sha256")).decode()
    headers = {
        "Authorization": f"HMAC-SHA256 SignedHeaders=x-ms-date;host;x-ms-content-sha256&Signature={signature}",
        "x-ms-date": date,
        "x-ms-content-sha256": content_hash,
    }
    url = URL(f"{running.url}{path}{target}", encoded=True)
    async with aiohttp.ClientSession() as session, session.post(url, headers=headers) as response:
        assert response.status == status


async def test_a_request_without_a_credential_is_denied(running: Running) -> None:
    async with aiohttp.ClientSession() as session:
        for path in ("/identities", "/nowhere"):
            async with session.post(f"{running.url}{path}?api-version=2023-10-01") as response:
                assert response.status == 401
                error = {"code": "Denied", "message": "Denied by the resource provider."}
                assert await response.json() == {"error": error}


@pytest.mark.parametrize("audience", ["https://communication.azure.com", "https://communication.azure.com/"])
async def test_an_entra_token_for_acs_is_accepted(running: Running, audience: str) -> None:
    running.entra_tokens["app-token"] = {"aud": audience, "exp": running.clock.now + 60}
    credential = EntraCredential("app-token")
    async with CommunicationIdentityClient(running.url, credential) as client:
        await client.create_user()
    assert credential.scopes == ("https://communication.azure.com//.default",)
    assert "x-ms-date" not in running.acs.faults.calls[-1].headers


@pytest.mark.parametrize(
    "claims",
    [None, {"aud": "https://graph.microsoft.com", "exp": 1e12}, {"aud": "https://communication.azure.com", "exp": 1}],
    ids=["not signed by Entra", "for another audience", "expired"],
)
async def test_any_other_entra_token_is_denied(running: Running, claims: dict[str, Any] | None) -> None:
    if claims is not None:
        running.entra_tokens["app-token"] = claims
    async with CommunicationIdentityClient(running.url, EntraCredential("app-token"), retry_total=0) as client:
        with pytest.raises(ClientAuthenticationError) as raised:
            await client.create_user()
    assert error_of(raised)[:2] == (401, "Denied")


# Versions and headers


async def test_an_unknown_api_version_is_refused(running: Running) -> None:
    version = "2020-07-20-preview2"
    async with CommunicationIdentityClient.from_connection_string(
        running.connection_string, api_version=version, retry_total=0
    ) as client:
        with pytest.raises(HttpResponseError) as raised:
            await client.create_user()
    message = (
        f"The HTTP resource that matches the request URI '{running.url}/identities' "
        f"does not support the API version '{version}'."
    )
    assert error_of(raised) == (400, "UnsupportedApiVersion", message, None)


@pytest.mark.parametrize(
    "version", ["2021-03-07", "2022-06-01", "2022-10-01", "2023-10-01", "2025-06-30", "2026-09-23"]
)
async def test_every_published_version_is_served(running: Running, version: str, teams_token: str) -> None:
    async with CommunicationIdentityClient.from_connection_string(
        running.connection_string, api_version=version
    ) as client:
        created, _ = await client.create_user_and_token(["chat"])
        await client.get_token(created, ["voip"])
        await client.revoke_tokens(created)
        await client.delete_user(created)
        await client.get_token_for_teams_user(teams_token, CLIENT, USER)
    assert all(f"api-version={version}" in call.path for call in running.acs.faults.calls)


async def test_answers_carry_the_headers_of_the_real_service(client: CommunicationIdentityClient) -> None:
    answers: list[Any] = []
    created = await client.create_user(raw_response_hook=answers.append)
    await client.delete_user(created, raw_response_hook=answers.append)
    made, removed = (answer.http_response.headers for answer in answers)
    assert made["Content-Type"] == "application/json; charset=utf-8"
    assert made["api-supported-versions"].endswith("2022-10-01, 2023-10-01, 2025-06-30, 2026-09-23")
    assert re.fullmatch(r"[A-Za-z0-9+/]{22}\.0", made["MS-CV"])
    assert re.fullmatch(r"\d+ms", made["X-Processing-Time"])
    assert made["x-ms-client-request-id"] == answers[0].http_request.headers["x-ms-client-request-id"]
    assert {"Request-Context", "X-Cache", "X-Azure-Ref"} <= made.keys()
    assert answers[1].http_response.status_code == 204
    assert "Content-Type" not in removed
    assert "Content-Length" not in removed


async def test_some_errors_do_not_tell_the_versions(client: CommunicationIdentityClient) -> None:
    created = await client.create_user()
    with pytest.raises(HttpResponseError) as required:
        await client.get_token(created, [])
    with pytest.raises(HttpResponseError) as range_error:
        await client.get_token(created, ["chat"], token_expires_in=timedelta(minutes=1))
    with pytest.raises(HttpResponseError) as token_error:
        await client.get_token_for_teams_user("garbage", CLIENT, USER)
    answers: list[Any] = [raised.value.response for raised in (required, range_error, token_error)]
    told = ["api-supported-versions" in answer.headers for answer in answers]
    assert told == [False, True, False]


# Teams users


@pytest.fixture
def teams_token(running: Running) -> str:
    running.entra_tokens["teams-token"] = {
        "aud": "https://auth.msft.communication.azure.com",
        "scp": "Teams.ManageCalls Teams.ManageChats",
        "azp": CLIENT,
        "oid": USER,
        "tid": TENANT,
        "exp": int(running.clock.now) + 4000,
    }
    return "teams-token"


async def test_a_teams_token_is_exchanged_for_one_that_expires_with_it(
    running: Running, client: CommunicationIdentityClient, teams_token: str
) -> None:
    token = await client.get_token_for_teams_user(teams_token, CLIENT, USER)
    claims = running.acs.verify_token(token.token)
    assert claims["skypeid"] == f"orgid:{USER}"
    assert claims["tid"] == TENANT
    assert claims["exp"] == int(running.clock.now) + 4000
    expires_on: Any = token.expires_on
    assert datetime.fromisoformat(expires_on).timestamp() == claims["exp"]


async def test_a_version_1_token_names_its_client_in_another_claim(
    running: Running, client: CommunicationIdentityClient, teams_token: str
) -> None:
    claims = running.entra_tokens[teams_token]
    claims["appid"] = claims.pop("azp")
    await client.get_token_for_teams_user(teams_token, CLIENT, USER)


async def test_exchanging_mints_no_identity(
    running: Running, client: CommunicationIdentityClient, teams_token: str
) -> None:
    await client.get_token_for_teams_user(teams_token, CLIENT, USER)
    assert running.acs.all_identities() == []


async def test_users_without_teams_are_forbidden_to_exchange(
    running: Running, client: CommunicationIdentityClient, teams_token: str
) -> None:
    running.acs.user_states.mark(UserKey(TENANT, USER), Mark.WITHOUT_TEAMS)
    with pytest.raises(HttpResponseError) as raised:
        await client.get_token_for_teams_user(teams_token, CLIENT, USER)
    assert error_of(raised)[:2] == (403, "Forbidden")
    with pytest.raises(HttpResponseError) as raised:
        await client.get_token_for_teams_user(teams_token, OTHER_CLIENT, USER)
    assert raised.value.status_code == 400
    running.acs.user_states.clear_marks(UserKey(TENANT, USER))
    await client.get_token_for_teams_user(teams_token, CLIENT, USER)


@pytest.mark.parametrize("token", ["", "invalid"])
@pytest.mark.parametrize("user_id", ["", "invalid", USER])
async def test_the_teams_token_is_checked_before_anything_else(
    client: CommunicationIdentityClient, token: str, user_id: str
) -> None:
    with pytest.raises(ClientAuthenticationError) as raised:
        await client.get_token_for_teams_user(token, "", user_id)
    assert error_of(raised) == (401, "InvalidAccessToken", "Provided access token is not valid.", None)


async def test_an_expired_teams_token_is_not_valid(
    running: Running, client: CommunicationIdentityClient, teams_token: str
) -> None:
    running.entra_tokens[teams_token]["exp"] = int(running.clock.now)
    with pytest.raises(ClientAuthenticationError) as raised:
        await client.get_token_for_teams_user(teams_token, CLIENT, USER)
    assert error_of(raised)[:2] == (401, "InvalidAccessToken")


@pytest.mark.parametrize("change", [{"aud": "https://graph.microsoft.com"}, {"scp": "User.Read"}, {"scp": None}])
async def test_a_token_for_something_else_is_not_a_teams_token(
    running: Running, client: CommunicationIdentityClient, teams_token: str, change: dict[str, Any]
) -> None:
    running.entra_tokens[teams_token] |= change
    with pytest.raises(ClientAuthenticationError) as raised:
        await client.get_token_for_teams_user(teams_token, CLIENT, USER)
    assert error_of(raised)[:2] == (401, "InvalidAccessToken")


@pytest.mark.parametrize(
    ("client_id", "user_id", "message", "target"),
    [
        ("", "invalid", "AppId: The AppId field is required.", "AppId"),
        ("invalid", "invalid", "Provided AppId has invalid format.", "appId"),
        (OTHER_CLIENT, "invalid", "AAD application is not the expected one.", "appId"),
        (CLIENT, "", "UserId: The UserId field is required.", "UserId"),
        (CLIENT, "invalid", "Provided UserId has invalid format.", "userId"),
        (CLIENT, OTHER_USER, "Provided AAD token issued for unexpected user.", "userId"),
    ],
)
async def test_the_client_is_checked_before_the_user(
    client: CommunicationIdentityClient, teams_token: str, client_id: str, user_id: str, message: str, target: str
) -> None:
    with pytest.raises(HttpResponseError) as raised:
        await client.get_token_for_teams_user(teams_token, client_id, user_id)
    assert error_of(raised) == (400, "ValidationError", message, target)


# What only a raw client can send


@pytest.mark.parametrize("body", [b"{", b"[]", b'"chat"', b"\xff"])
async def test_a_body_that_is_not_a_json_object_is_refused(running: Running, body: bytes) -> None:
    running.entra_tokens["app-token"] = {"aud": "https://communication.azure.com", "exp": running.clock.now + 60}
    headers = {"Authorization": "Bearer app-token"}
    context = ssl.create_default_context()
    async with (
        aiohttp.ClientSession(headers=headers) as session,
        session.post(f"{running.url}/identities?api-version=2023-10-01", data=body, ssl=context) as response,
    ):
        assert response.status == 400
        assert (await response.json())["error"]["code"] == "ValidationError"


async def test_the_api_version_must_be_said(running: Running) -> None:
    running.entra_tokens["app-token"] = {"aud": "https://communication.azure.com", "exp": running.clock.now + 60}
    headers = {"Authorization": "Bearer app-token"}
    async with aiohttp.ClientSession(headers=headers) as session, session.post(f"{running.url}/identities") as response:
        assert response.status == 400
        assert (await response.json())["error"]["code"] == "ApiVersionUnspecified"
