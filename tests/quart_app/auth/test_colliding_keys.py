"""Several issuers publish keys under one id: each key is good for its own issuer's tokens alone."""

from collections.abc import Callable, Collection

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from quart_app.auth.entra_tokens import EntraTokens
from quart_app.auth.key_sets import SigningKey
from quart_app.auth.refusals import InvalidAccessToken, Reason
from quart_app.auth.signed_tokens import SignedTokens
from quart_app.auth.signing_keys import SigningKeys

HOST = "https://login.microsoftonline.com"
ONE, TWO = "7f2b5a10-3c4d-4e8f-9a61-0d5c8e2b7a11", "c3d9e6f4-81a2-4b57-8c0e-5f7a2d1b9e22"
PERSONAL = "9188040d-6c67-4c5b-b112-36a304b66dad"
AUDIENCE = "5e1f0a2b-9c3d-4d7e-8b6a-1a2b3c4d5e01"


def v2(tenant: str) -> str:
    return f"{HOST}/{tenant}/v2.0"


def v1(tenant: str) -> str:
    return f"https://sts.windows.net/{tenant}/"


def token(key: rsa.RSAPrivateKey, issuer: str, tenant: str) -> str:
    claims = {
        "aud": AUDIENCE,
        "iss": issuer,
        "tid": tenant,
        "oid": "a1e5c0de-0001-4a6b-8f21-6d0c3b9e4f01",
        "scp": "access_as_user",
        "iat": 1_700_000_000,
        "exp": 4_000_000_000,
    }
    return jwt.encode(claims, key, algorithm="RS256", headers={"kid": "same"})


class Published(SigningKeys):
    """These keys, all under one id; `beyond` are known to be no use."""

    def __init__(self, *keys: SigningKey) -> None:
        self._published = keys

    async def find(self, key_id: str | None, beyond: Collection[SigningKey] = ()) -> tuple[SigningKey, ...]:
        return tuple(key for key in self._published if key not in beyond)


async def accepted(signed: str, *published: SigningKey) -> bool:
    try:
        await SignedTokens(Published(*published), EntraTokens([ONE, TWO], HOST)).verify(signed, [AUDIENCE])
    except InvalidAccessToken:
        return False
    return True


def key(private: rsa.RSAPrivateKey, issuer: str, key_issuer: str | None = None) -> SigningKey:
    return SigningKey("same", private.public_key(), issuer, key_issuer)


@pytest.mark.parametrize("write", [v1, v2])
async def test_a_tenants_key_does_not_sign_for_another_tenant(
    signing_keys: list[rsa.RSAPrivateKey], write: Callable[[str], str]
) -> None:
    first, second = signing_keys[:2]
    published = key(first, write(ONE)), key(second, write(TWO))
    assert await accepted(token(first, write(ONE), ONE), *published)
    assert await accepted(token(second, write(TWO), TWO), *published)
    assert not await accepted(token(second, write(ONE), ONE), *published)
    assert not await accepted(token(first, write(TWO), TWO), *published)
    assert not await accepted(token(second, write(TWO), ONE), *published)
    assert not await accepted(token(second, write(ONE), TWO), *published)


async def test_keys_of_one_version_do_not_sign_for_the_other(signing_keys: list[rsa.RSAPrivateKey]) -> None:
    private = signing_keys[0]
    assert not await accepted(token(private, v1(ONE), ONE), key(private, v2(ONE)))
    assert not await accepted(token(private, v2(ONE), ONE), key(private, v1(ONE)))
    assert await accepted(token(private, v1(ONE), ONE), key(private, v2(ONE)), key(private, v1(ONE)))


async def test_keys_that_become_known_are_tried_once_more_and_then_the_issuer_is_refused(
    signing_keys: list[rsa.RSAPrivateKey],
) -> None:
    """Each look-up finds the key of one more issuer, but never as the token's own issuer's."""
    private = signing_keys[0]
    looked_up: list[SigningKey] = []

    class BecomingKnown(Published):
        async def find(self, key_id: str | None, beyond: Collection[SigningKey] = ()) -> tuple[SigningKey, ...]:
            looked_up.append(key(private, f"{v2(TWO)}/{len(looked_up)}"))
            return (looked_up[-1],)

    with pytest.raises(InvalidAccessToken) as refusal:
        await SignedTokens(BecomingKnown(), EntraTokens([ONE, TWO], HOST)).verify(
            token(private, v2(ONE), ONE), [AUDIENCE]
        )
    assert refusal.value.reason is Reason.ISSUER
    assert len(looked_up) == 2


async def test_a_key_that_nobody_publishes_is_looked_for_once(signing_keys: list[rsa.RSAPrivateKey]) -> None:
    looked_for: list[str | None] = []

    class NoneKnown(Published):
        async def find(self, key_id: str | None, beyond: Collection[SigningKey] = ()) -> tuple[SigningKey, ...]:
            looked_for.append(key_id)
            return ()

    with pytest.raises(InvalidAccessToken) as refusal:
        await SignedTokens(NoneKnown(), EntraTokens([ONE], HOST)).verify(
            token(signing_keys[0], v2(ONE), ONE), [AUDIENCE]
        )
    assert (refusal.value.reason, looked_for) == (Reason.KEY_UNKNOWN, ["same"])


async def test_a_key_of_personal_accounts_in_a_shared_key_set_signs_for_no_organization(
    signing_keys: list[rsa.RSAPrivateKey],
) -> None:
    organizations, personal = signing_keys[:2]
    template = v2("{tenantid}")
    published = key(organizations, template, template), key(personal, template, v2(PERSONAL))
    assert await accepted(token(organizations, v2(ONE), ONE), *published)
    assert not await accepted(token(personal, v2(ONE), ONE), *published)
    assert not await accepted(token(personal, v2(PERSONAL), PERSONAL), *published)
