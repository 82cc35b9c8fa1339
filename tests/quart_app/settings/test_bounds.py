"""The least and the most that each number may be."""

import pytest

from quart_app.settings import InvalidSettings
from tests.quart_app.settings.conftest import loaded


def refused(environment: pytest.MonkeyPatch, name: str, number: float) -> list[str]:
    """The settings that are refused where `name` is `number`."""
    environment.setenv(name, str(number))
    try:
        loaded()
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
    told = [refused(environment, name, number) for number in (least - 1, least, most, most + 1)]
    assert told == [[name], [], [], [name]]


@pytest.mark.parametrize(("name", "least"), [("MAX_CONCURRENT_REQUESTS", 1), ("RATE_LIMIT_REQUESTS_PER_MINUTE", 0)])
def test_some_numbers_have_no_upper_bound(environment: pytest.MonkeyPatch, name: str, least: int) -> None:
    assert [refused(environment, name, number) for number in (least - 1, least, 10**6)] == [[name], [], []]
