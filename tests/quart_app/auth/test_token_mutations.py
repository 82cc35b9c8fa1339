"""Whatever is changed in a good token, no change is taken: a token has one spelling."""

import asyncio
from collections.abc import Callable, Collection, Iterator

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st

from quart_app.auth.entra_tokens import EntraTokens
from quart_app.auth.key_sets import SigningKey
from quart_app.auth.refusals import InvalidAccessToken
from quart_app.auth.signed_tokens import SignedTokens
from quart_app.auth.signing_keys import SigningKeys

TENANT = "7f2b5a10-3c4d-4e8f-9a61-0d5c8e2b7a11"
ISSUER = f"https://login.microsoftonline.com/{TENANT}/v2.0"
AUDIENCE = "5e1f0a2b-9c3d-4d7e-8b6a-1a2b3c4d5e01"
CLAIMS = {
    "aud": AUDIENCE,
    "iss": ISSUER,
    "tid": TENANT,
    "oid": "a1e5c0de-0001-4a6b-8f21-6d0c3b9e4f01",
    "scp": "access_as_user",
    "iat": 1_700_000_000,
    "exp": 4_000_000_000,
}
BASE64URL = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

Accepts = Callable[[str], bool]


class OneKey(SigningKeys):
    """Knows one key, whatever its id."""

    def __init__(self, key: rsa.RSAPublicKey) -> None:
        self._one = SigningKey("one", key, ISSUER, None)

    async def find(self, key_id: str | None, beyond: Collection[SigningKey] = ()) -> tuple[SigningKey, ...]:
        return (self._one,)


@pytest.fixture(scope="module")
def token(signing_keys: list[rsa.RSAPrivateKey]) -> str:
    return jwt.encode(CLAIMS, signing_keys[0], algorithm="RS256", headers={"kid": "one"})


@pytest.fixture(scope="module")
def accepts(signing_keys: list[rsa.RSAPrivateKey]) -> Iterator[Accepts]:
    signed_tokens = SignedTokens(
        OneKey(signing_keys[0].public_key()), EntraTokens([TENANT], "https://login.microsoftonline.com")
    )
    with asyncio.Runner() as runner:

        def accepts(token: str) -> bool:
            try:
                runner.run(signed_tokens.verify(token, [AUDIENCE]))
            except InvalidAccessToken:
                return False
            return True

        yield accepts


def test_the_token_itself_is_accepted(token: str, accepts: Accepts) -> None:
    assert accepts(token)


@given(data=st.data())
def test_no_token_with_other_characters_is_accepted(token: str, accepts: Accepts, data: st.DataObject) -> None:
    changed = token
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(changed)))
        character = data.draw(st.sampled_from(BASE64URL) | st.sampled_from(".=+/ \n%") | st.characters())
        removed = data.draw(st.integers(0, 1))
        inserted = data.draw(st.sampled_from(["", character]))
        changed = changed[:place] + inserted + changed[place + removed :]
    assert accepts(changed) == (changed == token)


@given(order=st.permutations([0, 1, 2]), repeated=st.lists(st.integers(0, 2), max_size=2))
def test_no_token_with_its_parts_put_differently_is_accepted(
    token: str, accepts: Accepts, order: list[int], repeated: list[int]
) -> None:
    parts = token.split(".")
    changed = ".".join(parts[number] for number in [*order, *repeated])
    assert accepts(changed) == (changed == token)


@pytest.mark.parametrize("part", [0, 1, 2])
def test_no_part_has_a_second_spelling(token: str, accepts: Accepts, part: int) -> None:
    """Every other last letter is tried: some decode to the same bytes, their unused bits being others."""
    parts = token.split(".")
    for letter in BASE64URL:
        changed = [*parts[:part], parts[part][:-1] + letter, *parts[part + 1 :]]
        assert accepts(".".join(changed)) == (changed == parts)
    for padding in ("=", "=="):
        assert not accepts(".".join([*parts[:part], parts[part] + padding, *parts[part + 1 :]]))
