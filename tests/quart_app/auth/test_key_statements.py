"""A key set that was fetched is a statement, over the wire: which tokens pass when an issuer's keys change."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm

from local_azure.environment import LocalAzure
from local_azure.faults import Fault
from tests.support.token_service import ACCEPTED, OidcService, TokenService, oidc_service, token_service

Start = Callable[..., AbstractAsyncContextManager[OidcService]]
UNAVAILABLE = (503, "service_unavailable", "")
KEY_UNKNOWN = (401, "invalid_token", "key_unknown")
SIGNATURE = (401, "invalid_token", "signature")
DAY = 24 * 3600


@pytest.fixture
def start(
    local_azure: LocalAzure,
    state_directory: Path,
    signing_keys: list[rsa.RSAPrivateKey],
    monkeypatch: pytest.MonkeyPatch,
) -> Start:
    """Start the service for another issuer."""
    return lambda **how: oidc_service(monkeypatch, local_azure, state_directory.parent, signing_keys[0], **how)


@pytest.fixture
async def entra(
    local_azure: LocalAzure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[TokenService]:
    """The service for the users of Entra ID."""
    files = {"STORAGE_BACKEND": "sqlite", "SQLITE_PATH": str(tmp_path / "mappings.sqlite")}
    async with token_service(
        monkeypatch, {**local_azure.service_environment(), **files, "ENVIRONMENT": "development"}
    ) as running:
        yield running


async def look_again(service: OidcService) -> tuple[int, str, str]:
    """What a caller with an unknown key gets, who makes the service fetch the keys."""
    return await service.get(service.issuer.token({"kid": f"unknown-{service.clock.now}"}))


async def test_a_key_that_the_set_lists_no_more_is_dead_at_once(
    start: Start, signing_keys: list[rsa.RSAPrivateKey]
) -> None:
    async with start() as service:
        issuer = service.issuer
        remembered = issuer.token()
        assert await service.get(remembered) == ACCEPTED
        issuer.key_set = [issuer.published(signing_keys[1], kid="key-2")]
        assert await look_again(service) == KEY_UNKNOWN
        assert await service.get(issuer.token(jti="fresh")) == KEY_UNKNOWN
        assert await service.get(remembered) == KEY_UNKNOWN
        issuer.key = signing_keys[1]
        assert await service.get(issuer.token({"kid": "key-2"})) == ACCEPTED
        assert await service.ready() == 200


async def test_an_empty_set_counts_after_three_fetches_in_a_row(start: Start) -> None:
    async with start() as service:
        issuer = service.issuer
        issuer.key_set = []
        for _ in range(2):
            assert await look_again(service) == UNAVAILABLE  # no statement about a key that isn't known
            for _ in range(5):  # within ten seconds nothing is fetched again
                assert await look_again(service) == UNAVAILABLE
            assert await service.get(issuer.token(jti=str(service.clock.now))) == ACCEPTED
            assert await service.ready() == 200
            service.clock.advance(10)
        before = len(issuer.cache_control)
        remembered = issuer.token()
        assert await service.get(remembered) == ACCEPTED
        assert await look_again(service) == UNAVAILABLE
        assert await service.get(issuer.token(jti="fresh")) == UNAVAILABLE
        assert await service.get(remembered) == UNAVAILABLE
        assert await service.ready() == 503
        assert len(issuer.cache_control) == before + 1
        assert set(issuer.cache_control) == {"no-cache"}
        issuer.key_set = None
        service.clock.advance(10)
        assert await service.get(issuer.token(jti="back")) == ACCEPTED
        assert await service.ready() == 200


@pytest.mark.parametrize("useless", ["EC", "PS256", "enc", "private"])
async def test_a_set_without_a_usable_key_is_as_good_as_empty(start: Start, useless: str) -> None:
    async with start() as service:
        issuer = service.issuer
        curve = json.loads(ECAlgorithm.to_jwk(ec.generate_private_key(ec.SECP256R1()).public_key()))
        issuer.key_set = {
            "EC": [{**curve, "kid": "key-1"}],
            "PS256": [issuer.published(alg="PS256")],
            "enc": [issuer.published(use="enc")],
            "private": [issuer.published(d="AQAB")],
        }[useless]
        for _ in range(3):
            assert await service.get(issuer.token(jti=str(service.clock.now))) == ACCEPTED
            assert await look_again(service) == UNAVAILABLE
            service.clock.advance(10)
        assert await service.get(issuer.token(jti="fresh")) == UNAVAILABLE


NO_KEY_SETS: dict[str, dict[str, Any]] = {
    "an error": {"error": "temporarily_unavailable"},
    "no list": {"keys": {}},
    "a list that is null": {"keys": None},
    "another member": {"Keys": []},
}


@pytest.mark.parametrize("answer", ["down", *NO_KEY_SETS])
async def test_what_is_no_key_set_is_no_statement_however_often_it_comes(start: Start, answer: str) -> None:
    async with start() as service:
        issuer = service.issuer
        issuer.down, issuer.key_set = answer == "down", NO_KEY_SETS.get(answer)
        for _ in range(10):
            assert await look_again(service) == UNAVAILABLE
            service.clock.advance(10)
        assert await service.get(issuer.token(jti="fresh")) == ACCEPTED
        assert await service.ready() == 200


async def test_a_key_lives_a_day_after_its_last_good_fetch(start: Start) -> None:
    async with start() as service:
        issuer = service.issuer
        remembered = issuer.token(exp=4_000_000_000)
        assert await service.get(remembered) == ACCEPTED
        issuer.down = True
        service.clock.advance(DAY - 1)
        assert await service.get(issuer.token(jti="old")) == ACCEPTED
        assert service.keys.age == DAY - 1
        service.clock.advance(1)
        assert await service.get(issuer.token(jti="too old")) == UNAVAILABLE
        assert await service.get(remembered) == UNAVAILABLE
        assert await service.ready() == 503
        issuer.down = False
        service.clock.advance(10)
        assert await service.get(remembered) == ACCEPTED
        assert service.keys.age == 0


BINDING: dict[str, dict[str, Any]] = {
    "alg": {"alg": "PS256"},
    "alg for encryption": {"alg": "RSA-OAEP-256"},
    "key_ops": {"key_ops": ["sign"]},
    "use": {"use": "enc"},
}


@pytest.mark.parametrize("case", BINDING)
async def test_what_a_key_says_of_its_use_binds(
    start: Start, signing_keys: list[rsa.RSAPrivateKey], case: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with start() as service:
        issuer = service.issuer
        other = issuer.published(signing_keys[1], kid="key-2")
        issuer.key_set = [issuer.published(**BINDING[case]), other]
        assert await look_again(service) == KEY_UNKNOWN
        assert await service.get(issuer.token()) == KEY_UNKNOWN
        service.clock.advance(300)
        assert await look_again(service) == KEY_UNKNOWN
    lines = [record.getMessage() for record in caplog.records if "a key is not used" in record.getMessage()]
    assert len(lines) == 1
    assert lines[0].startswith(f"a key is not used: 'key-1' of {issuer.url}/keys: it is ")


async def test_a_key_for_another_algorithm_alone_lets_nobody_in(start: Start) -> None:
    async with start(extra={"alg": "PS256"}) as service:
        assert await service.get(service.issuer.token()) == UNAVAILABLE
        assert await service.ready() == 503


async def test_a_member_of_a_key_that_cannot_be_read_does_not_cost_the_key(start: Start) -> None:
    async with start() as service:
        service.issuer.extra = {"issuer": 5, "x5c": 7, "alg": "RS256", "key_ops": ["verify"]}
        await look_again(service)
        assert await service.get(service.issuer.token()) == ACCEPTED


@pytest.mark.parametrize("published", ["key-1", None, 5])
async def test_where_one_key_is_published_a_token_needs_no_key_id(start: Start, published: Any) -> None:
    async with start() as service:
        issuer = service.issuer
        issuer.extra = {"kid": published}
        await look_again(service)
        assert await service.get(issuer.token({"kid": None})) == ACCEPTED
        fetched = len(issuer.cache_control)
        service.clock.advance(DAY / 2)
        assert await service.get(issuer.token({"kid": None}, jti="again")) == ACCEPTED
        assert len(issuer.cache_control) == fetched


async def test_a_token_without_a_key_id_must_be_signed_by_that_key(
    start: Start, signing_keys: list[rsa.RSAPrivateKey]
) -> None:
    async with start() as service:
        issuer = service.issuer
        issuer.key, known = signing_keys[1], issuer.key
        token = issuer.token({"kid": None})
        issuer.key = known
        assert await service.get(token) == SIGNATURE


async def test_where_several_keys_are_published_a_token_needs_a_key_id(
    start: Start, signing_keys: list[rsa.RSAPrivateKey]
) -> None:
    async with start() as service:
        issuer = service.issuer
        issuer.key_set = [issuer.published(), issuer.published(signing_keys[1], kid="key-2")]
        await look_again(service)
        fetched = len(issuer.cache_control)
        service.clock.advance(DAY / 2)
        assert await service.get(issuer.token({"kid": None})) == KEY_UNKNOWN
        assert len(issuer.cache_control) == fetched  # a token that names no key makes nobody look for one
        assert await service.get(issuer.token()) == ACCEPTED


@pytest.mark.parametrize("version", [1, 2])
async def test_an_application_with_claims_mapping_has_a_key_of_its_own(
    entra: TokenService, local_azure: LocalAzure, version: int
) -> None:
    """It is listed only where the application's id is asked with; the tenant's other keys go on to count."""
    before = local_azure.entra.access_token("alex", version=version)
    local_azure.entra.sign_with_own_key()
    assert await entra.get(local_azure.entra.access_token("alex", version=version)) == ACCEPTED
    assert await entra.get(before) == ACCEPTED
    local_azure.entra.sign_with_the_tenants_key()
    await entra.keys.refresh()
    assert await entra.get(local_azure.entra.access_token("alex", version=version)) == ACCEPTED


async def test_an_applications_own_key_that_it_has_no_more_is_dead(
    entra: TokenService, local_azure: LocalAzure
) -> None:
    local_azure.entra.sign_with_own_key()
    token = local_azure.entra.access_token("alex")
    assert await entra.get(token) == ACCEPTED
    local_azure.entra.sign_with_the_tenants_key()
    await entra.keys.refresh()
    assert await entra.get(token) == KEY_UNKNOWN


async def test_an_applications_own_key_signs_for_no_other_audience(
    entra: TokenService, local_azure: LocalAzure
) -> None:
    local_azure.entra.sign_with_own_key()
    token = local_azure.entra.access_token("alex", aud="api://other")
    assert await entra.get(token) == (401, "invalid_token", "audience")


async def test_one_empty_set_of_several_leaves_the_others_as_they_are(
    entra: TokenService, local_azure: LocalAzure
) -> None:
    """v1 and v2 tokens have sets of their own."""
    local_azure.entra.faults.script("keys_v1", Fault(status=200, body={"keys": []}, times=None))
    for number in range(3):
        await entra.keys.refresh()
        entra.clock.advance(10)
        assert await entra.get(local_azure.entra.access_token("alex", version=2, uti=str(number))) == ACCEPTED
    assert await entra.get(local_azure.entra.access_token("alex", version=2)) == ACCEPTED
    assert await entra.get(local_azure.entra.access_token("alex", version=1)) == UNAVAILABLE
    assert await entra.ready() == 200
