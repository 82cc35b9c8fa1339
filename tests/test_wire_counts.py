"""Exactly one retry layer: how many requests each call really costs when an upstream fails, and how long it takes.

A request that hangs takes the time until the deadline, which passes as soon as the request has arrived.

The parts are those of the service: its own store and ACS client, its retry policy, its deadline. The counts are the
stand-ins'. `make test` prints the table.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import jwt
import pytest
from tenacity import wait_random_exponential

from local_azure.environment import LocalAzure
from local_azure.faults import Fault, Faults
from quart_app.acs.client import AcsOptions, SdkAcsClient
from quart_app.acs.guarded import GuardedAcsClient
from quart_app.acs.interface import AcsError, AcsThrottled
from quart_app.auth.caller import Caller, acting_for
from quart_app.settings import AcsConnectionString, load_settings
from quart_app.stores import open_mapping_store
from storage.mapping import StoreError, StoreThrottled, UserKey
from tests.support.acs_ids import acs_id
from tests.support.held_time import time_running_out
from tests.support.service_process import settings_for
from upstream.deadline import deadline
from upstream.retrying import RetryPolicy

ATTEMPTS = 3
DEADLINE_SECONDS = 0.6  # less than any time limit of an SDK
PATIENCE_SECONDS = 60

FAULTS = {
    "429, Retry-After": Fault(status=429, headers={"Retry-After": "0", "x-ms-retry-after-ms": "20"}, times=None),
    "429": Fault(status=429, times=None),
    "449": Fault(status=449, times=None),
    "503": Fault(status=503, times=None),
    "500": Fault(status=500, times=None),
    "408": Fault(status=408, times=None),
    "reset": Fault(reset=True, times=None),
    "hang": Fault(hang=True, times=None),
}


@dataclass(frozen=True, slots=True)
class Subject:
    """A call of the service, and the operation of the stand-in that it ends in."""

    call: Callable[[], Awaitable[object]]
    faults: Faults
    operation: str
    may_repeat_unknown: bool


def caller(local_azure: LocalAzure) -> Caller:
    token = local_azure.entra.access_token("alex")
    claims = jwt.decode(token, options={"verify_signature": False})
    return Caller(UserKey(claims["tid"], claims["oid"]), token, claims["exp"])


@asynccontextmanager
async def subject(
    name: str, local_azure: LocalAzure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Subject]:
    upstream, _, verb = name.partition(" ")
    retry = RetryPolicy(attempts=ATTEMPTS, back_off=wait_random_exponential(multiplier=0.01, max=0.05))
    storage = upstream if upstream != "acs" else "sqlite"
    for variable, value in settings_for(local_azure, tmp_path, storage).items():
        monkeypatch.setenv(variable, value)
    alex = caller(local_azure)
    async with AsyncExitStack() as stack:
        stack.enter_context(acting_for(alex))
        if upstream == "acs":
            stand_in, connection = local_azure.acs.faults, local_azure.acs.service_environment()
            options = AcsOptions(
                ("voip",), connection_string=AcsConnectionString.parse(connection["ACS_CONNECTION_STRING"])
            )
            acs = GuardedAcsClient(SdkAcsClient(options), retry)
            stack.push_async_callback(acs.aclose)
            identity = await acs.create_identity()
            yield {
                "create": Subject(acs.create_identity, stand_in, "create_identity", False),
                "issue token": Subject(lambda: acs.issue_token(identity), stand_in, "issue_access_token", True),
                "revoke tokens": Subject(lambda: acs.revoke_tokens(identity), stand_in, "revoke_access_tokens", True),
                "delete": Subject(lambda: acs.delete_identity(identity), stand_in, "delete_identity", True),
            }[verb]
            return
        store = await stack.enter_async_context(open_mapping_store(load_settings(None), retry))
        assert await store.get(alex.user) is None  # connections, tokens and metadata are there
        stand_in = (local_azure.cosmos if upstream == "cosmos" else local_azure.graph).faults
        operations = {
            "cosmos": {"get": "read_item", "create": "create_item"},
            "graph": {"get": "get_me", "create": "create_extension"},
        }
        calls: dict[str, Callable[[], Awaitable[object]]] = {
            "get": lambda: store.get(alex.user),
            "create": lambda: store.create(alex.user, acs_id("one")),
        }
        yield Subject(calls[verb], stand_in, operations[upstream][verb], verb == "get")


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize(
    "name",
    [
        "cosmos get",
        "cosmos create",
        "graph get",
        "graph create",
        "acs create",
        "acs issue token",
        "acs revoke tokens",
        "acs delete",
    ],
)
async def test_only_the_retry_policy_repeats_a_call_and_the_deadline_ends_it(
    name: str,
    fault: str,
    local_azure: LocalAzure,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Callable[[str, object], None],
) -> None:
    async with subject(name, local_azure, tmp_path, monkeypatch) as tried:
        before = tried.faults.counts[tried.operation]
        tried.faults.script(tried.operation, FAULTS[fault])
        hangs = fault == "hang"
        clock = asyncio.get_running_loop()
        async with time_running_out(tried.faults, tried.operation, DEADLINE_SECONDS) if hangs else nullcontext():
            started = clock.time()
            with (
                pytest.raises((StoreError, AcsError)) as refusal,
                deadline(DEADLINE_SECONDS if hangs else PATIENCE_SECONDS),
            ):
                await tried.call()
            seconds = clock.time() - started
        requests = tried.faults.counts[tried.operation] - before
    record_property("wire_count", f"{name}|{fault}|{requests}|{seconds:.2f}")
    proves_nothing_happened = isinstance(refusal.value, StoreThrottled | AcsThrottled)
    if hangs:
        assert requests == 1
        assert seconds == pytest.approx(DEADLINE_SECONDS)
    else:
        assert requests == (ATTEMPTS if tried.may_repeat_unknown or proves_nothing_happened else 1)


async def test_the_table_would_show_a_second_retry_layer(local_azure: LocalAzure) -> None:
    """The SDK as it comes sends a failed create four times: the count above can fail."""
    from azure.communication.identity.aio import CommunicationIdentityClient
    from azure.core.exceptions import HttpResponseError

    connection_string = local_azure.acs.service_environment()["ACS_CONNECTION_STRING"]
    local_azure.acs.faults.script("create_identity", FAULTS["503"])
    async with CommunicationIdentityClient.from_connection_string(connection_string, retry_backoff_factor=0) as client:
        with pytest.raises(HttpResponseError):
            await asyncio.wait_for(client.create_user(), PATIENCE_SECONDS)
    assert local_azure.acs.faults.counts["create_identity"] == 4
