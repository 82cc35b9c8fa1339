"""What is known of a key set after each fetch: a state machine against a model that remembers everything."""

from dataclasses import dataclass, field

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st

from quart_app.auth.key_sets import SigningKey
from quart_app.auth.published_keys import EMPTY_SETS_APART, EMPTY_SETS_THAT_COUNT, MAXIMUM_AGE, PublishedKeys

START = 1000.0


@pytest.fixture(scope="module")
def two_keys(signing_keys: list[rsa.RSAPrivateKey]) -> list[SigningKey]:
    return [SigningKey(name, key.public_key(), "i", None) for name, key in zip("AB", signing_keys, strict=False)]


@dataclass
class History:
    """All that was ever fetched, with its time: what counts can be told from it afresh each time."""

    fetches: list[tuple[float, tuple[SigningKey, ...] | None]] = field(default_factory=list)

    def keys(self, now: float) -> tuple[SigningKey, ...]:
        good = [number for number, (_, keys) in enumerate(self.fetches) if keys]
        if not good:
            return ()
        good_at, keys = self.fetches[good[-1]]
        assert keys is not None
        empties = [at for at, fetched in self.fetches[good[-1] + 1 :] if fetched == ()]
        counted: list[float] = []
        for at in empties:
            if not counted or at - counted[-1] >= EMPTY_SETS_APART:
                counted.append(at)
        alive = now - good_at < MAXIMUM_AGE and len(counted) < EMPTY_SETS_THAT_COUNT
        return keys if alive else ()


FETCHED = st.sampled_from(["A", "B", "AB", "", "failed"])
WAITS = st.sampled_from([0.0, 1.0, 9.5, 10.0, 300.0, 3600.0, 12 * 3600.0, 24 * 3600.0])


@given(steps=st.lists(st.tuples(WAITS, FETCHED), max_size=30), later=WAITS)
def test_what_counts_is_what_the_history_of_fetches_says(
    two_keys: list[SigningKey], steps: list[tuple[float, str]], later: float
) -> None:
    published, history, now = PublishedKeys(START), History(), START
    for wait, fetched in steps:
        now += wait
        if fetched == "failed":
            published.failed()
            history.fetches.append((now, None))
        else:
            keys = tuple(key for key in two_keys if str(key.key_id) in fetched)
            published.fetched(keys, now)
            history.fetches.append((now, keys))
        assert published.keys(now) == history.keys(now)
        assert published.in_doubt == (fetched in ("", "failed"))
    now += later
    assert published.keys(now) == history.keys(now)
    good = [at for at, keys in history.fetches if keys]
    assert published.age(now) == now - (good[-1] if good else START)


@given(steps=st.lists(st.tuples(WAITS, FETCHED), max_size=30))
def test_no_key_is_ever_used_that_the_newest_set_with_keys_does_not_list(
    two_keys: list[SigningKey], steps: list[tuple[float, str]]
) -> None:
    published, now, newest = PublishedKeys(START), START, ""
    for wait, fetched in steps:
        now += wait
        if fetched == "failed":
            published.failed()
        else:
            published.fetched(tuple(key for key in two_keys if str(key.key_id) in fetched), now)
            newest = fetched or newest
        assert {str(key.key_id) for key in published.keys(now)} <= set(newest)


def test_until_something_was_fetched_everything_is_in_doubt() -> None:
    assert PublishedKeys(START).in_doubt
    assert PublishedKeys(START).keys(START) == ()
