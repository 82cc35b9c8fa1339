"""The managed identity as an upstream of its own: what its endpoint may answer, and what its SDK may raise."""

from collections.abc import AsyncIterator
from typing import Any

import jwt
import pytest

from local_azure.entra.directory import MANAGED_IDENTITY as IDENTITY
from local_azure.environment import LocalAzure
from local_azure.faults import Fault
from quart_app.credentials import (
    AzureCredential,
    ManagedIdentityError,
    ManagedIdentityRefused,
    ManagedIdentityThrottled,
    ManagedIdentityUnavailable,
    managed_identity,
)
from quart_app.settings import EntraSettings
from upstream.retrying import RetryPolicy

SCOPE = "https://communication.azure.com/.default"
OPERATION = "managed_identity_token"


@pytest.fixture
async def identity(local_azure: LocalAzure, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[AzureCredential]:
    for name, value in local_azure.entra.managed_identity_environment().items():
        monkeypatch.setenv(name, value)
    settings = EntraSettings.model_construct(managed_identity_client_id=IDENTITY.client_id)
    async with managed_identity(settings, RetryPolicy(attempts=1)) as identity:
        yield identity


GOOD = {"access_token": "a.b.c", "expires_on": "4000000000", "resource": "x", "token_type": "Bearer"}


@pytest.mark.parametrize(
    "fault",
    [
        Fault(status=500, body="x", content_type=""),
        Fault(status=500, body="<html>", content_type="text/html"),
        Fault(status=404, body=""),
        Fault(status=410, body={"error": "gone"}),
        Fault(status=307, headers={"Location": "/msi/token"}, body=""),
        Fault(status=200, body="null", content_type="application/json"),
        Fault(status=200, body="<html>", content_type=""),
        Fault(status=200, body=[]),
        Fault(status=200, body={}),
        Fault(status=200, body=b"\xff", content_type="application/json"),
        Fault(status=200, body="[" * 100_000, content_type="application/json"),
        Fault(status=200, body={"access_token": "a.b.c"}),
        Fault(status=200, body={**GOOD, "expires_on": "soon"}),
        Fault(status=200, body={**GOOD, "expires_on": [4]}),
        Fault(status=200, body={"access_token": "a.b.c", "expires_on": "4000000000"}),
        Fault(reset=True),
    ],
)
async def test_an_endpoint_in_trouble_passes(local_azure: LocalAzure, identity: AzureCredential, fault: Fault) -> None:
    local_azure.entra.faults.script(OPERATION, fault)
    with pytest.raises(ManagedIdentityUnavailable) as caught:
        await identity.token(SCOPE)
    assert caught.value.cause is not None
    assert caught.value.cause.status == (fault.status if fault.status != 200 else caught.value.cause.status)
    assert "html" not in str(caught.value.cause)
    assert await identity.token(SCOPE)


@pytest.mark.parametrize("status", [400, 401, 403])
@pytest.mark.parametrize(
    "body", ["", {"statusCode": 400, "message": "No such identity"}, {"error": {"code": 1}}, "<x>"]
)
async def test_a_refusal_names_the_setting_and_quotes_nothing(
    local_azure: LocalAzure, identity: AzureCredential, status: int, body: Any, caplog: pytest.LogCaptureFixture
) -> None:
    local_azure.entra.faults.script(OPERATION, Fault(status=status, body=body, content_type="" if body == "" else None))
    with pytest.raises(ManagedIdentityRefused, match=str(status)) as caught:
        await identity.token(SCOPE)
    assert caught.value.cause is not None
    assert "ENTRA_MANAGED_IDENTITY_CLIENT_ID" in str(caught.value.cause.advice)
    (record,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert (record.name, vars(record)["upstream"]) == ("upstream.calls", "managed_identity")
    assert "No such identity" not in caplog.text


async def test_a_busy_endpoint_says_when_to_come_back(local_azure: LocalAzure, identity: AzureCredential) -> None:
    local_azure.entra.faults.script(OPERATION, Fault(status=429, headers={"Retry-After": "7"}))
    with pytest.raises(ManagedIdentityThrottled) as caught:
        await identity.token(SCOPE)
    assert caught.value.retry_after == 7


async def test_the_azure_sdks_get_the_same_token_with_its_expiry_in_either_form(
    local_azure: LocalAzure, identity: AzureCredential
) -> None:
    issued = await identity.get_token(SCOPE)
    known = await identity.get_token_info(SCOPE)
    assert (issued.token, issued.expires_on) == (known.token, known.expires_on)
    assert jwt.decode(issued.token, options={"verify_signature": False})["exp"] == issued.expires_on
    assert local_azure.entra.faults.counts[OPERATION] == 1


async def test_who_only_uses_it_does_not_close_it(identity: AzureCredential) -> None:
    async with identity as used:
        token = await used.token(SCOPE)
    await used.close()
    assert used is identity
    assert await identity.token("https://graph.microsoft.com/.default") != token


@pytest.mark.parametrize("odd", [AttributeError(), TypeError(), KeyError("x"), RecursionError(), ValueError()])
async def test_nothing_that_the_sdk_raises_leaves_untyped(
    identity: AzureCredential, odd: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never_should(*_: object, **__: object) -> None:
        raise odd

    monkeypatch.setattr("azure.core.pipeline.transport.AioHttpTransport.send", never_should)
    for ask in (identity.get_token, identity.get_token_info):
        with pytest.raises(ManagedIdentityError) as caught:
            await ask(SCOPE)
        assert caught.value.cause is not None
        assert caught.value.cause.code == type(odd).__name__
