"""The least and the most that each number may be."""

import pytest

from quart_app.settings import InvalidSettings, load_settings
from tests.quart_app.settings.test_settings import GOOD


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name, value in GOOD.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def faults() -> list[str]:
    """The settings that are refused."""
    try:
        load_settings(None)
    except InvalidSettings as error:
        return [fault.partition(":")[0] for fault in error.faults]
    return []


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [
        ("PORT", 1, 65535),
        ("SHUTDOWN_DELAY_SECONDS", 0, 10),
        ("REQUEST_DEADLINE_SECONDS", 0.001, 120),
        ("TRUSTED_PROXY_HOPS", 0, 10),
        ("ACS_TOKEN_LIFETIME_MINUTES", 60, 1440),
        ("ACS_TOKEN_REUSE_MINUTES", 0, 1439),
    ],
)
def test_a_number_may_be_as_small_and_as_large_as_that(
    environment: pytest.MonkeyPatch, name: str, least: float, most: float
) -> None:
    for number, is_taken in ((least - 1, False), (least, True), (most, True), (most + 1, False)):
        environment.setenv(name, str(number))
        assert faults() == ([] if is_taken else [name])


@pytest.mark.parametrize(("name", "least"), [("MAX_CONCURRENT_REQUESTS", 1), ("RATE_LIMIT_REQUESTS_PER_MINUTE", 0)])
def test_a_limit_of_ones_own_may_be_any_but_a_smaller_one(
    environment: pytest.MonkeyPatch, name: str, least: int
) -> None:
    for number, is_taken in ((least - 1, False), (least, True), (10**6, True)):
        environment.setenv(name, str(number))
        assert faults() == ([] if is_taken else [name])
