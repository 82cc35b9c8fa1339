"""Tokens on behalf of callers, with the real MSAL against the Entra stand-in."""

import asyncio
import dataclasses
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable
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
from quart_app.auth.on_behalf_of.credentials import (
    ClientCertificate,
    ClientSecret,
    FederatedCredential,
    managed_identity_assertion,
)
from quart_app.auth.on_behalf_of.errors import (
    AssertionRefused,
    ClaimsChallengeRequired,
    ConsentRequired,
    OnBehalfOfCredentialsRejected,
    OnBehalfOfMisconfigured,
    OnBehalfOfThrottled,
    OnBehalfOfUnavailable,
)
from quart_app.auth.on_behalf_of.tokens import CallerTokens, OnBehalfOf, OnBehalfOfOptions
from storage.mapping import UserKey
from tests.conftest import FakeClock
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
    # requests hangs up without TLS's farewell; the stand-in's event loop has to notice before it ends.
    for _ in range(50):
        await asyncio.sleep(0)


@pytest.fixture
def on_behalf_of(open_on_behalf_of: Open) -> OnBehalfOf:
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
        ({"error": "interaction_required", "error_codes": [50079]}, AssertionRefused),
        ({"error": "invalid_grant", "suberror": "consent_required"}, ConsentRequired),
        ({"error": "temporarily_unavailable"}, OnBehalfOfUnavailable),
        ({"error": "invalid_scope", "error_codes": [70011]}, OnBehalfOfMisconfigured),
        ({}, OnBehalfOfMisconfigured),
        ([], OnBehalfOfUnavailable),
        ("<html>", OnBehalfOfMisconfigured),
    ],
)
async def test_every_refusal_has_its_error(
    local_azure: LocalAzure, on_behalf_of: OnBehalfOf, body: Any, raised: type[Exception]
) -> None:
    local_azure.entra.faults.script("token", Fault(status=400, body=body))
    with pytest.raises(raised):
        await on_behalf_of.access_token(caller(local_azure), SCOPES)


async def test_a_redirect_is_not_followed(local_azure: LocalAzure, on_behalf_of: OnBehalfOf) -> None:
    location = f"{local_azure.entra.url}/{HOME_TENANT.tenant_id}/oauth2/v2.0/token"
    local_azure.entra.faults.script("token", Fault(status=307, headers={"Location": location}, body=""))
    with pytest.raises(OnBehalfOfMisconfigured):
        await on_behalf_of.access_token(caller(local_azure), SCOPES)
    assert token_requests(local_azure) == 1


async def test_an_unknown_tenant_is_a_misconfiguration(local_azure: LocalAzure, on_behalf_of: OnBehalfOf) -> None:
    alex = caller(local_azure)
    stranger = dataclasses.replace(alex, user=UserKey("00000000-0000-0000-0000-000000000002", alex.user.subject))
    with pytest.raises(OnBehalfOfMisconfigured):
        await on_behalf_of.access_token(stranger, SCOPES)


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
    on_behalf_of = open_on_behalf_of(credential=ClientCertificate(certificate))
    alex = caller(local_azure)
    with pytest.raises(OnBehalfOfCredentialsRejected, match="AADSTS700027"):
        await on_behalf_of.access_token(alex, SCOPES)
    local_azure.entra.clients.register_certificate(API.client_id, public_part)
    assert claims_of(await on_behalf_of.access_token(alex, SCOPES))["oid"] == alex.user.subject


@pytest.mark.parametrize("content", [None, b"", b"\xff", b"-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----"])
def test_a_certificate_file_that_cannot_be_used_is_named_at_once(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "certificate.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(OnBehalfOfMisconfigured, match="PEM"):
        OnBehalfOf(OnBehalfOfOptions("https://localhost", API.client_id, ClientCertificate(path)))


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
            {"access_token": local_azure.entra.managed_identity_token(), "expires_on": expires, "token_type": "Bearer"}
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


async def test_a_managed_identity_can_be_the_credential_and_is_asked_once(
    local_azure: LocalAzure, open_on_behalf_of: Open, identity_endpoint: list[web.Request]
) -> None:
    credential = FederatedCredential(managed_identity_assertion(MANAGED_IDENTITY.client_id))
    on_behalf_of = open_on_behalf_of(credential=credential)
    for alias in ("alex", "megan"):
        one = caller(local_azure, alias)
        assert claims_of(await on_behalf_of.access_token(one, SCOPES))["oid"] == one.user.subject
    assert [request.query["resource"] for request in identity_endpoint] == ["api://AzureADTokenExchange"]


async def test_a_refusing_managed_identity_is_the_services_own_fault(
    local_azure: LocalAzure, open_on_behalf_of: Open, identity_endpoint: list[web.Request]
) -> None:
    on_behalf_of = open_on_behalf_of(credential=FederatedCredential(managed_identity_assertion("unknown")))
    with pytest.raises(OnBehalfOfCredentialsRejected):
        await on_behalf_of.access_token(caller(local_azure), SCOPES)
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
        "token", Fault(status=400, body={"error": "invalid_grant", "error_description": token})
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
