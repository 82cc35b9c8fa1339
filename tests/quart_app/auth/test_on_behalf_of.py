"""Tokens on behalf of callers, with the real MSAL against the Entra stand-in."""

import asyncio
import dataclasses
import json
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from tenacity import wait_exponential

from local_azure.entra.conditions import MULTI_FACTOR_CHALLENGE
from local_azure.entra.directory import API, HOME_TENANT, MANAGED_IDENTITY, OTHER_TENANT
from local_azure.environment import LocalAzure
from local_azure.faults import Fault
from quart_app.auth.caller import Caller
from quart_app.auth.on_behalf_of.credentials import ClientSecret, FederatedCredential, client_credential
from quart_app.auth.on_behalf_of.errors import (
    AssertionRefused,
    CallerNotAllowed,
    CallerNotFound,
    ClaimsChallengeRequired,
    ConsentRequired,
    InteractionRequired,
    OnBehalfOfCredentialsRejected,
    OnBehalfOfMisconfigured,
    OnBehalfOfThrottled,
    OnBehalfOfUnavailable,
    OnBehalfOfUnexpectedAnswer,
)
from quart_app.auth.on_behalf_of.refusals import SPREADING_SECONDS
from quart_app.auth.on_behalf_of.tokens import CallerTokens, OnBehalfOf, OnBehalfOfOptions
from quart_app.credentials import ManagedIdentityRefused, managed_identity
from quart_app.settings import ClientCertificate, EntraSettings
from storage.mapping import UserKey
from tests.conftest import FakeClock
from upstream.errors import Cause
from upstream.retrying import RetryPolicy

SCOPES = ("https://graph.microsoft.com/User.ReadWrite",)
Open = Callable[..., OnBehalfOf]
ONE_ATTEMPT = RetryPolicy(attempts=1)


@pytest.fixture
async def open_on_behalf_of(local_azure: LocalAzure) -> AsyncIterator[Open]:
    opened: list[OnBehalfOf] = []

    def new(clock: Callable[[], float] = time.time, retry: RetryPolicy = ONE_ATTEMPT, **changes: Any) -> OnBehalfOf:
        settings = OnBehalfOfOptions(local_azure.entra.url, API.client_id, ClientSecret(str(API.secret)), threads=4)
        opened.append(OnBehalfOf(dataclasses.replace(settings, **changes), retry, clock=clock))
        return opened[-1]

    yield new
    local_azure.entra.faults.release()
    for one in opened:
        await one.aclose()


@pytest.fixture
async def on_behalf_of(open_on_behalf_of: Open) -> OnBehalfOf:
    return open_on_behalf_of()


def caller(local_azure: LocalAzure, alias: str = "alex", **claims: Any) -> Caller:
    token = local_azure.entra.access_token(alias, **claims)
    said = jwt.decode(token, options={"verify_signature": False})
    return Caller(UserKey(said["tid"], said["oid"]), token, said["exp"])


def claims_of(token: str) -> dict[str, Any]:
    said: dict[str, Any] = jwt.decode(token, options={"verify_signature": False})
    return said


def token_requests(local_azure: LocalAzure) -> int:
    return local_azure.entra.faults.counts["token"]


async def test_the_token_acts_for_the_caller_towards_the_asked_api(
    local_azure: LocalAzure, on_behalf_of: OnBehalfOf
) -> None:
    alex = caller(local_azure)
    said = claims_of(await on_behalf_of.access_token(alex, SCOPES))
    assert (said["tid"], said["oid"]) == (alex.user.issuer, alex.user.subject)
    assert (said["aud"], said["scp"]) == ("https://graph.microsoft.com", "User.ReadWrite")


async def test_a_token_is_asked_for_once_per_caller_token_and_scopes(
    local_azure: LocalAzure, on_behalf_of: OnBehalfOf
) -> None:
    alex, again = caller(local_azure), caller(local_azure)
    first = await on_behalf_of.access_token(alex, SCOPES)
    assert await on_behalf_of.access_token(alex, SCOPES) == first
    assert token_requests(local_azure) == 1
    await on_behalf_of.access_token(again, SCOPES)
    await on_behalf_of.access_token(alex, ("https://graph.microsoft.com/User.Read",))
    assert token_requests(local_azure) == 3


async def test_callers_never_get_each_others_tokens(local_azure: LocalAzure, on_behalf_of: OnBehalfOf) -> None:
    callers = [caller(local_azure, alias) for alias in ("alex", "megan", "pradeep", "zoe")] * 5
    tokens = await asyncio.gather(*(on_behalf_of.access_token(one, SCOPES) for one in callers))
    assert [claims_of(token)["oid"] for token in tokens] == [one.user.subject for one in callers]
    assert token_requests(local_azure) == 4


async def test_simultaneous_calls_share_one_request_and_one_look_at_the_metadata(
    local_azure: LocalAzure, on_behalf_of: OnBehalfOf
) -> None:
    alex = caller(local_azure)
    tokens = await asyncio.gather(*(on_behalf_of.access_token(alex, SCOPES) for _ in range(50)))
    assert len(set(tokens)) == 1
    await on_behalf_of.access_token(caller(local_azure, "megan"), SCOPES)
    counts = local_azure.entra.faults.counts
    assert (counts["token"], counts["openid_configuration_v2"], counts["instance_discovery"]) == (2, 1, 0)


async def test_each_tenant_is_asked_for_its_own_users(local_azure: LocalAzure, on_behalf_of: OnBehalfOf) -> None:
    nestor = caller(local_azure, "nestor")
    assert nestor.user.issuer == OTHER_TENANT.tenant_id
    assert claims_of(await on_behalf_of.access_token(nestor, SCOPES))["tid"] == OTHER_TENANT.tenant_id
    paths = [call.path for call in local_azure.entra.faults.calls if call.operation == "token"]
    assert paths == [f"/{OTHER_TENANT.tenant_id}/oauth2/v2.0/token"]


async def test_a_caller_who_gives_up_does_not_take_the_others_along(
    local_azure: LocalAzure, on_behalf_of: OnBehalfOf
) -> None:
    alex = caller(local_azure)
    impatient = asyncio.create_task(on_behalf_of.access_token(alex, SCOPES))
    patient = asyncio.create_task(on_behalf_of.access_token(alex, SCOPES))
    await asyncio.sleep(0)
    impatient.cancel()
    assert claims_of(await patient)["oid"] == alex.user.subject
    assert impatient.cancelled()
    assert token_requests(local_azure) == 1


async def test_a_token_is_kept_until_a_margin_before_its_expiry(
    local_azure: LocalAzure, open_on_behalf_of: Open
) -> None:
    clock = FakeClock(time.time())
    on_behalf_of = open_on_behalf_of(clock, expiry_margin=300)
    alex = caller(local_azure, lifetime=24 * 3600)
    expires_in = claims_of(await on_behalf_of.access_token(alex, SCOPES))["exp"] - clock.now
    clock.advance(expires_in - 310)
    await on_behalf_of.access_token(alex, SCOPES)
    assert token_requests(local_azure) == 1
    clock.advance(20)
    await on_behalf_of.access_token(alex, SCOPES)
    assert token_requests(local_azure) == 2


async def test_a_token_is_not_kept_longer_than_the_callers_own(
    local_azure: LocalAzure, open_on_behalf_of: Open
) -> None:
    clock = FakeClock(time.time())
    on_behalf_of = open_on_behalf_of(clock)
    alex = caller(local_azure, lifetime=600)
    await on_behalf_of.access_token(alex, SCOPES)
    clock.advance(601)
    await on_behalf_of.access_token(alex, SCOPES)
    assert token_requests(local_azure) == 2


async def test_the_cache_is_bounded(local_azure: LocalAzure, open_on_behalf_of: Open) -> None:
    on_behalf_of = open_on_behalf_of(cached_tokens=2)
    callers = [caller(local_azure, alias) for alias in ("alex", "megan", "pradeep")]
    for one in callers:
        await on_behalf_of.access_token(one, SCOPES)
    await on_behalf_of.access_token(callers[0], SCOPES)
    assert token_requests(local_azure) == 4


async def test_a_forgotten_token_is_asked_for_again(local_azure: LocalAzure, on_behalf_of: OnBehalfOf) -> None:
    alex = caller(local_azure)
    await on_behalf_of.access_token(alex, SCOPES)
    on_behalf_of.forget(alex, SCOPES)
    on_behalf_of.forget(alex, SCOPES)
    await on_behalf_of.access_token(alex, SCOPES)
    assert token_requests(local_azure) == 2


async def test_msal_keeps_neither_tokens_nor_refresh_tokens(local_azure: LocalAzure, on_behalf_of: OnBehalfOf) -> None:
    await on_behalf_of.access_token(caller(local_azure), SCOPES)
    (application,) = on_behalf_of._applications.values()
    for kind in application.token_cache.CredentialType.__dict__.values():
        assert not list(application.token_cache.search(kind)) if isinstance(kind, str) else True


@pytest.mark.parametrize(
    ("fault", "raised", "retry_after"),
    [
        (Fault(status=429, headers={"Retry-After": "30"}), OnBehalfOfThrottled, 30),
        (Fault(status=429), OnBehalfOfThrottled, None),
        (Fault(status=503, headers={"Retry-After": "30"}), OnBehalfOfUnavailable, 30),
        (Fault(status=500, body="<html>"), OnBehalfOfUnavailable, None),
        (Fault(status=408), OnBehalfOfUnavailable, None),
        (Fault(reset=True), OnBehalfOfUnavailable, None),
        (Fault(drop_answer=True), OnBehalfOfUnavailable, None),
    ],
    ids=["429 with Retry-After", "429", "503", "500", "408", "reset", "lost answer"],
)
async def test_one_users_trouble_never_answers_another_user_nor_the_same_user_again(
    local_azure: LocalAzure, on_behalf_of: OnBehalfOf, fault: Fault, raised: type[Exception], retry_after: float | None
) -> None:
    alex, megan = caller(local_azure), caller(local_azure, "megan")
    local_azure.entra.faults.script("token", fault)
    with pytest.raises(raised) as error:
        await on_behalf_of.access_token(alex, SCOPES)
    assert getattr(error.value, "retry_after", None) == retry_after
    assert token_requests(local_azure) == 1
    assert claims_of(await on_behalf_of.access_token(megan, SCOPES))["oid"] == megan.user.subject
    assert token_requests(local_azure) == 2
    assert claims_of(await on_behalf_of.access_token(alex, SCOPES))["oid"] == alex.user.subject
    assert token_requests(local_azure) == 3


async def test_a_consent_given_after_a_refusal_counts_at_once(
    local_azure: LocalAzure, on_behalf_of: OnBehalfOf
) -> None:
    alex, user = caller(local_azure), local_azure.entra.users["alex"]
    local_azure.entra.conditions.remove_consent(user)
    with pytest.raises(ConsentRequired):
        await on_behalf_of.access_token(alex, SCOPES)
    local_azure.entra.conditions.give_consent(user)
    assert claims_of(await on_behalf_of.access_token(alex, SCOPES))["oid"] == alex.user.subject
    assert token_requests(local_azure) == 2


async def test_a_claims_challenge_is_handed_on_as_entra_wrote_it(
    local_azure: LocalAzure, on_behalf_of: OnBehalfOf
) -> None:
    local_azure.entra.conditions.require_multi_factor(local_azure.entra.users["alex"])
    with pytest.raises(ClaimsChallengeRequired) as error:
        await on_behalf_of.access_token(caller(local_azure), SCOPES)
    assert error.value.claims == MULTI_FACTOR_CHALLENGE
    await on_behalf_of.access_token(caller(local_azure, "megan"), SCOPES)


@pytest.mark.parametrize(("claims", "code"), [({"lifetime": -10}, 500133), ({"aud": "api://another"}, 50013)])
async def test_a_bad_assertion_is_refused(
    local_azure: LocalAzure, on_behalf_of: OnBehalfOf, claims: dict[str, Any], code: int
) -> None:
    with pytest.raises(AssertionRefused, match=f"AADSTS{code}"):
        await on_behalf_of.access_token(caller(local_azure, **claims), SCOPES)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"credential": ClientSecret("wrong")}, 7000215),
        ({"client_id": "00000000-0000-0000-0000-000000000001"}, 700016),
    ],
)
async def test_a_wrong_credential_is_the_services_own_fault(
    local_azure: LocalAzure, open_on_behalf_of: Open, changes: dict[str, Any], code: int
) -> None:
    with pytest.raises(OnBehalfOfCredentialsRejected, match=f"AADSTS{code}"):
        await open_on_behalf_of(**changes).access_token(caller(local_azure), SCOPES)


@pytest.mark.parametrize(
    ("body", "raised"),
    [
        ({"error": "interaction_required", "error_codes": [50079]}, InteractionRequired),
        ({"error": "invalid_grant", "error_codes": [50076]}, InteractionRequired),
        ({"error": "login_required"}, InteractionRequired),
        ({"error": "invalid_grant", "suberror": "consent_required"}, ConsentRequired),
        ({"error": "invalid_grant", "error_codes": [70000]}, ConsentRequired),
        ({"error": "temporarily_unavailable"}, OnBehalfOfUnavailable),
        ({"error": "invalid_grant", "error_codes": [90033]}, OnBehalfOfUnavailable),
        ({"error": "invalid_scope", "error_codes": [70011]}, OnBehalfOfMisconfigured),
        ({"error": "invalid_grant", "error_codes": [500131]}, OnBehalfOfMisconfigured),
        ({"error": "invalid_grant", "error_codes": [50173]}, AssertionRefused),
        ({"error": "invalid_grant", "error_codes": [50105]}, CallerNotAllowed),
        ({"error": "invalid_grant", "error_codes": [53003]}, CallerNotAllowed),
        ({"error": "invalid_grant", "error_codes": [50034]}, CallerNotFound),
        ({"error": "invalid_grant", "error_codes": [7, 50013]}, AssertionRefused),
        ({"error": "invalid_grant", "error_codes": [999_999]}, OnBehalfOfUnexpectedAnswer),
        ({"error": "invalid_grant"}, OnBehalfOfUnexpectedAnswer),
        ({"error": "invalid_grant", "error_codes": "50013"}, OnBehalfOfUnexpectedAnswer),
        ({"error": "invalid_grant", "error_codes": [True, "50013", None, 1e9]}, OnBehalfOfUnexpectedAnswer),
        ({"error": "something_new"}, OnBehalfOfUnexpectedAnswer),
        ({}, OnBehalfOfUnavailable),
        ([], OnBehalfOfUnavailable),
        ("<html>", OnBehalfOfUnavailable),
    ],
)
async def test_every_refusal_has_its_error(
    local_azure: LocalAzure, on_behalf_of: OnBehalfOf, body: Any, raised: type[Exception]
) -> None:
    local_azure.entra.faults.script("token", Fault(status=400, body=body))
    with pytest.raises(raised):
        await on_behalf_of.access_token(caller(local_azure), SCOPES)


POISON: list[Fault] = [
    Fault(status=400, body={"error": {"code": "Denied", "message": "x"}}),
    Fault(status=400, body={"error": ["invalid_grant"], "error_codes": [50013]}),
    Fault(status=400, body={"error": 7}),
    Fault(status=400, body={"error": None}),
    Fault(status=400, body={"error": "invalid_grant\r\nX-Evil: 1"}),
    Fault(status=400, body={"error": "\ud800"}),
    Fault(status=400, body={"error": "x" * 70_000}),
    Fault(status=403, body="<html>", content_type="text/html"),
    Fault(status=400, body="[" * 100_000, content_type="application/json"),
    Fault(status=400, body=b"\xff\xfe", content_type="application/json"),
    Fault(status=200, body="null", content_type="application/json"),
    Fault(status=200, body="<html>", content_type="text/html"),
    Fault(status=200, body=[]),
    Fault(status=200, body={"access_token": "a.b.c", "pad": "x" * 300_000, "expires_in": 5}),
]


@pytest.mark.parametrize("fault", POISON, ids=range(len(POISON)))
async def test_an_odd_answer_is_passing_trouble_and_spoils_nothing_for_the_others(
    local_azure: LocalAzure, on_behalf_of: OnBehalfOf, fault: Fault, caplog: pytest.LogCaptureFixture
) -> None:
    local_azure.entra.faults.script("token", fault)
    with pytest.raises(OnBehalfOfUnavailable) as caught:
        await on_behalf_of.access_token(caller(local_azure), SCOPES)
    assert caught.value.cause is not None
    assert caught.value.cause.status == fault.status
    for alias in ("alex", "megan", "zoe"):
        one = caller(local_azure, alias)
        assert claims_of(await on_behalf_of.access_token(one, SCOPES))["oid"] == one.user.subject
    assert not [record for record in caplog.records if record.name.startswith("msal")]
    assert "html" not in caplog.text


@pytest.mark.parametrize(
    "answer",
    [
        {"access_token": None, "expires_in": 3600},
        {"access_token": {"a": 1}, "expires_in": 3600},
        {"access_token": "a b", "expires_in": 3600},
        {"access_token": "a.b.c"},
        {"access_token": "a.b.c", "expires_in": "soon"},
        {"access_token": "a.b.c", "expires_in": -1},
        {"access_token": "a.b.c", "expires_in": True},
        {"access_token": "a.b.c", "expires_in": [3600]},
        {"error": "invalid_grant"},
    ],
)
async def test_a_token_is_taken_only_with_its_lifetime(
    local_azure: LocalAzure, on_behalf_of: OnBehalfOf, answer: dict[str, Any]
) -> None:
    local_azure.entra.faults.script("token", Fault(status=200, body=answer))
    with pytest.raises(OnBehalfOfUnexpectedAnswer):
        await on_behalf_of.access_token(caller(local_azure), SCOPES)
    await on_behalf_of.access_token(caller(local_azure), SCOPES)


async def test_what_msal_does_not_need_of_a_token_answer_never_reaches_it(
    local_azure: LocalAzure, on_behalf_of: OnBehalfOf
) -> None:
    answer = {"access_token": "a.b.c", "expires_in": "3600", "id_token": 7, "client_info": [], "scope": {}, "error": {}}
    local_azure.entra.faults.script("token", Fault(status=200, body=answer))
    assert await on_behalf_of.access_token(caller(local_azure), SCOPES) == "a.b.c"


@pytest.mark.parametrize(
    "metadata",
    [
        {"issuer": 7, "token_endpoint": "https://localhost/t", "authorization_endpoint": "https://localhost/a"},
        {"issuer": "https://localhost/x", "authorization_endpoint": "https://localhost/a"},
        {
            "issuer": "https://localhost/x",
            "token_endpoint": "http://localhost/t",
            "authorization_endpoint": "https://l/",
        },
        *(
            {"issuer": "https://localhost/x", "token_endpoint": odd, "authorization_endpoint": "https://localhost/a"}
            for odd in ("https://localhost", "https://localhost/", "https://localhost/?t", "https:///t", "https://[/t")
        ),
        {},
    ],
)
async def test_metadata_of_another_form_is_an_unexpected_answer_and_asked_for_again(
    local_azure: LocalAzure, on_behalf_of: OnBehalfOf, metadata: dict[str, Any]
) -> None:
    local_azure.entra.faults.script("openid_configuration_v2", Fault(status=200, body=metadata))
    with pytest.raises(OnBehalfOfUnexpectedAnswer) as caught:
        await on_behalf_of.access_token(caller(local_azure), SCOPES)
    assert caught.value.cause == Cause(200, "malformed_metadata")
    await on_behalf_of.access_token(caller(local_azure), SCOPES)


@pytest.mark.parametrize("odd", [AttributeError(), TypeError(), KeyError("x"), RuntimeError(), ValueError("<html>")])
async def test_nothing_that_msal_raises_leaves_untyped_and_its_object_is_made_anew(
    local_azure: LocalAzure, on_behalf_of: OnBehalfOf, odd: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    await on_behalf_of.access_token(caller(local_azure, "megan"), SCOPES)
    (spoilt,) = on_behalf_of._applications.values()

    def never_should(*_: object, **__: object) -> None:
        raise odd

    monkeypatch.setattr(spoilt, "acquire_token_on_behalf_of", never_should)
    with pytest.raises(OnBehalfOfUnavailable) as error:
        await on_behalf_of.access_token(caller(local_azure), SCOPES)
    assert error.value.cause is not None
    assert error.value.cause.code == type(odd).__name__
    await on_behalf_of.access_token(caller(local_azure), SCOPES)
    assert spoilt not in on_behalf_of._applications.values()


@pytest.mark.parametrize(
    "claims",
    [
        "\ud800",
        json.dumps({"access_token": {"x": "\ud800"}})[:-1],
        json.dumps({"access_token": {"x": "y" * 70_000}}),
        "[]",
        "{}",
        "not JSON",
        7,
        {"access_token": {}},
        "[" * 5_000,
    ],
)
async def test_a_challenge_that_is_not_fit_for_a_header_is_none(
    local_azure: LocalAzure, on_behalf_of: OnBehalfOf, claims: Any
) -> None:
    body = {"error": "interaction_required", "error_codes": [50076], "claims": claims}
    local_azure.entra.faults.script("token", Fault(status=400, body=body))
    with pytest.raises(InteractionRequired):
        await on_behalf_of.access_token(caller(local_azure), SCOPES)


async def test_a_federated_credential_that_may_be_spreading_is_told_so_only_after_the_start(
    local_azure: LocalAzure, open_on_behalf_of: Open
) -> None:
    clock = FakeClock(time.time())
    on_behalf_of = open_on_behalf_of(clock)
    told = []
    for _ in range(2):
        local_azure.entra.faults.script(
            "token", Fault(status=401, body={"error": "invalid_client", "error_codes": [700213]})
        )
        with pytest.raises(OnBehalfOfCredentialsRejected) as error:
            await on_behalf_of.access_token(caller(local_azure), SCOPES)
        assert error.value.cause is not None
        told.append("wait ten minutes" in str(error.value.cause.advice))
        clock.advance(SPREADING_SECONDS)
    assert told == [True, False]


async def test_a_redirect_is_not_followed(local_azure: LocalAzure, on_behalf_of: OnBehalfOf) -> None:
    location = f"{local_azure.entra.url}/{HOME_TENANT.tenant_id}/oauth2/v2.0/token"
    local_azure.entra.faults.script("token", Fault(status=307, headers={"Location": location}, body=""))
    with pytest.raises(OnBehalfOfUnavailable):
        await on_behalf_of.access_token(caller(local_azure), SCOPES)
    assert token_requests(local_azure) == 1


async def test_an_unknown_tenant_is_a_misconfiguration(local_azure: LocalAzure, on_behalf_of: OnBehalfOf) -> None:
    alex = caller(local_azure)
    stranger = dataclasses.replace(alex, user=UserKey("00000000-0000-0000-0000-000000000002", alex.user.subject))
    with pytest.raises(OnBehalfOfMisconfigured, match="AADSTS90002") as error:
        await on_behalf_of.access_token(stranger, SCOPES)
    assert error.value.cause is not None
    assert "ENTRA_TENANT_ID" in str(error.value.cause.advice)


async def test_metadata_that_failed_is_asked_for_again(local_azure: LocalAzure, on_behalf_of: OnBehalfOf) -> None:
    alex = caller(local_azure)
    local_azure.entra.faults.script("openid_configuration_v2", Fault(status=503, headers={"Retry-After": "60"}))
    with pytest.raises(OnBehalfOfUnavailable):
        await on_behalf_of.access_token(alex, SCOPES)
    assert token_requests(local_azure) == 0
    await on_behalf_of.access_token(alex, SCOPES)
    assert local_azure.entra.faults.counts["openid_configuration_v2"] == 2


async def test_a_silent_entra_is_unavailable_after_the_time_limit(
    local_azure: LocalAzure, open_on_behalf_of: Open
) -> None:
    local_azure.entra.faults.script("token", Fault(hang=True))  # once: a second request would be answered
    with pytest.raises(OnBehalfOfUnavailable):
        await open_on_behalf_of(timeout=0.2).access_token(caller(local_azure), SCOPES)


async def test_more_calls_than_may_wait_are_refused_at_once_but_known_tokens_are_not(
    local_azure: LocalAzure, open_on_behalf_of: Open
) -> None:
    on_behalf_of, may_answer = open_on_behalf_of(pending=1, timeout=60), asyncio.Event()
    alex, megan, zoe = (caller(local_azure, alias) for alias in ("alex", "megan", "zoe"))
    known = await on_behalf_of.access_token(alex, SCOPES)
    local_azure.entra.faults.script("token", Fault(until=may_answer))
    waiting = [asyncio.create_task(on_behalf_of.access_token(megan, SCOPES)) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(OnBehalfOfUnavailable) as error:
        await on_behalf_of.access_token(zoe, SCOPES)
    assert error.value.retry_after == 1
    assert await on_behalf_of.access_token(alex, SCOPES) == known
    may_answer.set()
    megans = await asyncio.gather(*waiting)
    assert len(set(megans)) == 1


@pytest.mark.parametrize(
    "fault",
    [Fault(status=429, headers={"Retry-After": "2"}, times=None), Fault(status=503, times=None)],
    ids=["429", "503"],
)
async def test_the_one_retry_layer_repeats_and_nothing_multiplies_it(
    local_azure: LocalAzure, open_on_behalf_of: Open, fault: Fault
) -> None:
    alex, waits = caller(local_azure), list[float]()

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    local_azure.entra.faults.script("token", fault)
    policy = RetryPolicy(attempts=3, back_off=wait_exponential(multiplier=0.1), sleep=sleep)
    with pytest.raises((OnBehalfOfThrottled, OnBehalfOfUnavailable)):
        await open_on_behalf_of(retry=policy).access_token(alex, SCOPES)
    assert token_requests(local_azure) == 3
    assert waits == ([2, 2] if fault.headers else [0.1, 0.2])


@pytest.fixture
def certificate(tmp_path: Path, signing_keys: list[rsa.RSAPrivateKey]) -> Path:
    key = signing_keys[-1]
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "service")])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now - timedelta(days=1), now + timedelta(days=1))
    ).sign(key, hashes.SHA256())
    encoded_key = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = tmp_path / "certificate.pem"
    path.write_bytes(signed.public_bytes(serialization.Encoding.PEM) + encoded_key)
    return path


@pytest.fixture
def public_part(certificate: Path) -> bytes:
    return certificate.read_bytes().partition(b"-----BEGIN PRIVATE")[0]


async def test_a_certificate_can_be_the_credential(
    local_azure: LocalAzure, open_on_behalf_of: Open, certificate: Path, public_part: bytes
) -> None:
    on_behalf_of = open_on_behalf_of(credential=await asyncio.to_thread(ClientCertificate.load, certificate))
    alex = caller(local_azure)
    with pytest.raises(OnBehalfOfCredentialsRejected, match="AADSTS700027"):
        await on_behalf_of.access_token(alex, SCOPES)
    local_azure.entra.clients.register_certificate(API.client_id, public_part)
    assert claims_of(await on_behalf_of.access_token(alex, SCOPES))["oid"] == alex.user.subject


async def test_a_credential_that_msal_does_not_take_is_a_misconfiguration_and_nothing_is_kept(
    local_azure: LocalAzure, open_on_behalf_of: Open, certificate: Path
) -> None:
    loaded = await asyncio.to_thread(ClientCertificate.load, certificate)
    on_behalf_of = open_on_behalf_of(credential=dataclasses.replace(loaded, certificates="no certificate"))
    for attempt in (1, 2):
        with pytest.raises(OnBehalfOfMisconfigured, match="MSAL does not take") as error:
            await on_behalf_of.access_token(caller(local_azure), SCOPES)
        assert error.value.cause is not None
        assert "the client certificate" in str(error.value.cause.advice)
        assert local_azure.entra.faults.counts["openid_configuration_v2"] == attempt
    assert token_requests(local_azure) == 0


def test_without_any_credential_the_remedy_is_told() -> None:
    settings = EntraSettings.model_construct(client_secret=None, client_certificate=None)
    with pytest.raises(OnBehalfOfMisconfigured, match="needs a client secret, a certificate or a managed identity"):
        client_credential(settings)


@pytest.fixture
async def identity_endpoint(
    local_azure: LocalAzure, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[list[web.Request]]:
    """A container's managed identity endpoint, which hands out the tokens of Entra's managed identity."""
    requests: list[web.Request] = []

    async def token(request: web.Request) -> web.Response:
        requests.append(request)
        if request.query["client_id"] != MANAGED_IDENTITY.client_id:
            return web.json_response({"statusCode": 400, "message": "No such identity"}, status=400)
        expires = str(int(time.time()) + 86_400)
        return web.json_response(
            {
                "access_token": local_azure.entra.managed_identity_token(),
                "expires_on": expires,
                "token_type": "Bearer",
                "resource": request.query["resource"],
            }
        )

    application = web.Application()
    application.router.add_get("/msi/token", token)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    monkeypatch.setenv("IDENTITY_ENDPOINT", f"http://127.0.0.1:{runner.addresses[0][1]}/msi/token")
    monkeypatch.setenv("IDENTITY_HEADER", "header")
    yield requests
    await runner.cleanup()


@asynccontextmanager
async def federated(client_id: str) -> AsyncIterator[FederatedCredential]:
    settings = EntraSettings.model_construct(managed_identity_client_id=client_id)
    async with managed_identity(settings, ONE_ATTEMPT) as identity:
        yield FederatedCredential(lambda: identity.token("api://AzureADTokenExchange/.default"))


async def test_a_managed_identity_can_be_the_credential_and_is_asked_once(
    local_azure: LocalAzure, open_on_behalf_of: Open, identity_endpoint: list[web.Request]
) -> None:
    async with federated(MANAGED_IDENTITY.client_id) as credential:
        on_behalf_of = open_on_behalf_of(credential=credential)
        for alias in ("alex", "megan"):
            one = caller(local_azure, alias)
            assert claims_of(await on_behalf_of.access_token(one, SCOPES))["oid"] == one.user.subject
    assert [request.query["resource"] for request in identity_endpoint] == ["api://AzureADTokenExchange"]


async def test_a_refusing_managed_identity_is_an_upstream_of_its_own(
    local_azure: LocalAzure, open_on_behalf_of: Open, identity_endpoint: list[web.Request]
) -> None:
    async with federated("unknown") as credential:
        with pytest.raises(ManagedIdentityRefused):
            await open_on_behalf_of(credential=credential).access_token(caller(local_azure), SCOPES)
    assert token_requests(local_azure) == 0


async def test_the_service_gets_tokens_of_its_own_for_operators(
    local_azure: LocalAzure, on_behalf_of: OnBehalfOf
) -> None:
    scope = "https://graph.microsoft.com/.default"
    token = await on_behalf_of.application_token(HOME_TENANT.tenant_id, scope)
    assert await on_behalf_of.application_token(HOME_TENANT.tenant_id, scope) == token
    assert "scp" not in claims_of(token)
    assert token_requests(local_azure) == 1


async def test_a_store_gets_the_tokens_of_the_caller_being_served_and_nobody_elses(
    local_azure: LocalAzure, on_behalf_of: OnBehalfOf
) -> None:
    alex, megan = caller(local_azure), caller(local_azure, "megan")
    served: list[Caller | None] = [alex]
    tokens = CallerTokens(on_behalf_of, SCOPES, lambda: served[0])
    assert claims_of(await tokens.access_token(alex.user))["oid"] == alex.user.subject
    for current in (megan, None):
        served[0] = current
        with pytest.raises(LookupError):
            await tokens.access_token(alex.user)


async def test_nothing_secret_is_represented_or_logged(
    local_azure: LocalAzure, on_behalf_of: OnBehalfOf, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    alex = caller(local_azure)
    token = await on_behalf_of.access_token(alex, SCOPES)
    local_azure.entra.faults.script(
        "token", Fault(status=400, body={"error": "invalid_grant", "error_codes": [50013], "error_description": token})
    )
    with pytest.raises(AssertionRefused) as error:
        await on_behalf_of.access_token(caller(local_azure), SCOPES)
    shown = (
        f"{caplog.text} {error.value} {on_behalf_of._settings} {on_behalf_of._tokens[next(iter(on_behalf_of._tokens))]}"
    )
    for secret in (alex.access_token, token, str(API.secret)):
        assert secret not in shown


async def test_closing_ends_the_threads(local_azure: LocalAzure, open_on_behalf_of: Open) -> None:
    on_behalf_of = open_on_behalf_of()
    await on_behalf_of.access_token(caller(local_azure), SCOPES)
    await on_behalf_of.aclose()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("on-behalf-of")]
