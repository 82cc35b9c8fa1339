"""Which access tokens are taken and which are not, as a caller sees it."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from typing import Any

import aiohttp
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from quart import Quart
from quart.typing import TestClientProtocol as Client
from werkzeug.datastructures import Headers

from local_azure.entra import Entra
from local_azure.entra.directory import API, BROWSER, OTHER_TENANT
from local_azure.environment import LocalAzure
from local_azure.keys import new_rsa_key
from quart_app.auth.access_tokens import AccessTokenValidator
from quart_app.auth.doors import OpenDoor, doors
from quart_app.auth.refusals import InvalidAccessToken
from quart_app.auth.signing_keys import SigningKeys
from quart_app.settings import load_settings
from tests.conftest import FakeClock

Forge = Callable[[Entra], str | None]


def encoded(part: Any) -> str:
    text = part if isinstance(part, bytes) else json.dumps(part).encode()
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


def header_of(token: str) -> dict[str, Any]:
    return jwt.get_unverified_header(token)


def claims_of(token: str) -> dict[str, Any]:
    return dict(jwt.decode(token, options={"verify_signature": False}))


def signed_by_a_stranger(entra: Entra) -> str:
    token = entra.access_token("alex")
    return jwt.encode(claims_of(token), new_rsa_key(), algorithm="RS256", headers={"kid": header_of(token)["kid"]})


def with_another_payload(entra: Entra) -> str:
    header, _, signature = entra.access_token("alex").split(".")
    return f"{header}.{encoded(claims_of(entra.access_token('megan')))}.{signature}"


def unsigned(entra: Entra) -> str:
    token = entra.access_token("alex")
    return f"{encoded({**header_of(token), 'alg': 'none'})}.{token.split('.')[1]}."


def signed_with_the_public_key_as_secret(entra: Entra) -> str:
    token = entra.access_token("alex")
    public = entra.keys.current.private_key.public_key()
    pem = public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    body = f"{encoded({**header_of(token), 'alg': 'HS256'})}.{token.split('.')[1]}"
    return f"{body}.{encoded(hmac.new(pem, body.encode(), hashlib.sha256).digest())}"


def with_claims(**changed: Any) -> Forge:
    """A token that Entra really signed, with other claims; a claim of `None` is left out."""

    def forge(entra: Entra) -> str:
        claims = {**claims_of(entra.access_token("alex")), **changed}
        return entra.sign({name: value for name, value in claims.items() if value is not None})

    return forge


def with_header(**changed: Any) -> Forge:
    return lambda entra: entra.sign(claims_of(entra.access_token("alex")), headers=changed)


REFUSED: dict[str, Forge] = {
    "no token": lambda _: None,
    "not a token": lambda _: "hello",
    "two parts": lambda entra: entra.access_token("alex").rpartition(".")[0],
    "trailing bytes": lambda entra: entra.access_token("alex") + "A",
    "a flipped signature": lambda entra: entra.access_token("alex")[:-8] + "AAAAAAAA",
    "a changed payload": with_another_payload,
    "signed by a stranger": signed_by_a_stranger,
    "not signed": unsigned,
    "signed with the public key as a secret": signed_with_the_public_key_as_secret,
    "an unknown key": with_header(kid="unknown"),
    "no key id": with_header(kid=None),
    "a critical header": with_header(crit=["exp"]),
    "a header that nests deeply": lambda entra: f"{encoded(b'[' * 9000)}.{entra.access_token('alex').split('.', 1)[1]}",
    "17 KiB": lambda entra: entra.access_token("alex", filler="x" * 17 * 1024),
    "expired": lambda entra: entra.access_token("alex", exp=int(time.time()) - 61),
    "not valid yet": lambda entra: with_claims(nbf=int(time.time()) + 600)(entra),
    "issued in the future": lambda entra: with_claims(iat=int(time.time()) + 600)(entra),
    "no expiry": with_claims(exp=None),
    "no issue time": with_claims(iat=None),
    "no issuer": with_claims(iss=None),
    "no audience": with_claims(aud=None),
    "an expiry that is text": with_claims(exp="tomorrow"),
    "an infinite expiry": with_claims(exp=float("inf")),
    "another audience": with_claims(aud="00000003-0000-0000-c000-000000000000"),
    "several audiences": with_claims(aud=[API.client_id, "other"]),
    "another issuer": with_claims(iss="https://evil.example/v2.0"),
    "the issuer of another tenant": with_claims(tid=OTHER_TENANT.tenant_id),
    "a tenant that is not allowed": lambda entra: entra.access_token("nestor"),
    "no tenant": with_claims(tid=None),
    "a tenant that is no GUID": with_claims(tid="common"),
    "no object id": with_claims(oid=None),
    "an object id that is a number": with_claims(oid=7),
    "scopes that are a list": with_claims(scp=["access_as_user"]),
    "app-only": lambda entra: entra.app_only_token(),
    "app-only by its type": with_claims(idtyp="app"),
    "of another type than a user": with_claims(idtyp="visitor"),
    "an id token": with_claims(scp=None, aud=BROWSER.client_id),
    "an id token for this API": with_claims(scp=None),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_a_token_that_proves_nothing_gets_one_neutral_answer(
    client: Client, local_azure: LocalAzure, case: str
) -> None:
    token = REFUSED[case](local_azure.entra)
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    answer = await client.get("/api/user", headers=headers)
    body = await answer.get_json()
    assert (answer.status_code, body["error"]) == (401, "invalid_token")
    reference = await (await client.get("/api/user", headers={"Authorization": "Bearer x"})).get_json()
    assert body["message"] == reference["message"]
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.parametrize("version", [1, 2])
async def test_tokens_of_both_versions_are_taken_and_mean_the_same_user(
    client: Client, local_azure: LocalAzure, version: int
) -> None:
    two = {"Authorization": f"Bearer {local_azure.entra.access_token('alex', version=2)}"}
    given = {"Authorization": f"Bearer {local_azure.entra.access_token('alex', version=version)}"}
    created = await client.post("/api/user", headers=given)
    assert created.status_code == 201
    assert await (await client.get("/api/user", headers=two)).get_json() == await created.get_json()


async def test_a_token_just_expired_is_within_the_leeway(client: Client, local_azure: LocalAzure) -> None:
    token = local_azure.entra.access_token("alex", exp=int(time.time()) - 30)
    answer = await client.get("/api/user", headers={"Authorization": f"Bearer {token}"})
    assert answer.status_code == 404


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
async def test_the_scheme_may_be_written_in_any_case(client: Client, local_azure: LocalAzure, scheme: str) -> None:
    token = local_azure.entra.access_token("alex")
    assert (await client.get("/api/user", headers={"Authorization": f"{scheme} {token}"})).status_code == 404


@pytest.mark.parametrize("given", [["Bearer {token}", "Bearer {token}"], ["Bearer "], ["Bearer"], ["Bearer {token} x"]])
async def test_a_malformed_header_is_a_malformed_request(app: Quart, local_azure: LocalAzure, given: list[str]) -> None:
    """RFC 6750, section 3.1. A malformed token is something else: 401."""
    token = local_azure.entra.access_token("alex")
    headers = Headers([("Authorization", value.format(token=token)) for value in given])
    answer = await app.test_client().get("/api/user", headers=headers)
    assert (answer.status_code, (await answer.get_json())["error"]) == (400, "invalid_request")
    assert answer.headers["WWW-Authenticate"].startswith('Bearer error="invalid_request"')


@pytest.mark.parametrize("given", ["Basic YTpi", "basic YTpi", "DPoP {token}", "Digest username=x", "Negotiate", None])
async def test_credentials_of_another_scheme_get_a_challenge_without_an_error_code(
    client: Client, local_azure: LocalAzure, given: str | None
) -> None:
    """RFC 6750, section 3.1: the client may not know that it must authenticate in this way."""
    token = local_azure.entra.access_token("alex")
    answer = await client.get("/api/user", headers={"Authorization": given.format(token=token)} if given else {})
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"].startswith("Bearer resource_metadata=")
    assert "error" not in answer.headers["WWW-Authenticate"]


async def test_a_verified_token_is_remembered_until_it_expires_or_its_key_is_withdrawn(
    local_azure: LocalAzure, monkeypatch: pytest.MonkeyPatch
) -> None:
    verifications = 0
    really_decode = jwt.decode

    def counting(*arguments: Any, **keywords: Any) -> Any:
        nonlocal verifications
        verifications += 1
        return really_decode(*arguments, **keywords)

    monkeypatch.setattr("quart_app.auth.registered_claims.jwt.decode", counting)
    entra = local_azure.entra
    token = entra.access_token("alex", lifetime=600)
    clock = FakeClock(time.time())  # not before the token's beginning, so in 600 seconds it is over
    for name, value in {**local_azure.service_environment(), "STORAGE_BACKEND": "sqlite"}.items():
        monkeypatch.setenv(name, value)
    (door,) = doors(load_settings(None))
    async with aiohttp.ClientSession() as session:
        keys = SigningKeys(session, door.discovery_urls[:1])
        validator = AccessTokenValidator([OpenDoor(door, keys)], clock)
        callers = [await validator.validate(token) for _ in range(10)]
        assert callers == [callers[0]] * 10
        assert verifications == 1

        clock.advance(601)  # a second more: the token may be that much younger than the clock
        await validator.validate(token)  # really still valid: the clock of the memory alone has passed
        assert verifications == 2

        clock.now -= 601
        entra.rotate()
        await keys.refresh()
        await validator.validate(token)
        entra.retire()
        await keys.refresh()
        with pytest.raises(InvalidAccessToken):
            await validator.validate(token)
        await keys.aclose()
