"""Whose word counts for the client's address, scheme and host."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quart_app.web.proxies import behind_proxies

Headers = list[tuple[bytes, bytes]]


async def told(hops: int, headers: Headers) -> Any:
    """The scope that reaches the application."""
    scopes: list[Any] = []

    async def application(scope: Any, _: Any, __: Any) -> None:
        scopes.append(scope)

    scope = {"type": "http", "scheme": "http", "client": ("10.0.0.1", 1), "headers": headers}
    await behind_proxies(hops)(application)(scope, None, None)
    return scopes[0]


@pytest.mark.parametrize(
    ("hops", "proto", "scheme"),
    [
        (0, "https", "http"),
        (1, "https", "https"),
        (2, "https", "https"),  # two proxies, of which the second wrote its own value in place of the first one's
        (2, "HTTPS", "https"),
        (2, "https, http", "https"),
        (1, "https, http", "http"),
        (2, "http, https, http", "https"),  # the first value is the client's own
        (2, "", "http"),
        (1, "ftp", "http"),
        (1, "https,", "http"),
    ],
)
async def test_the_scheme_is_that_of_the_trusted_proxies(hops: int, proto: str, scheme: str) -> None:
    headers = [(b"x-forwarded-for", b"a, b"), (b"x-forwarded-proto", proto.encode())]
    assert (await told(hops, headers))["scheme"] == scheme


@given(
    hops=st.integers(1, 4),
    claimed=st.lists(st.sampled_from(["192.0.2.1", "192.0.2.2"]), max_size=4),
    real=st.lists(st.sampled_from(["198.51.100.1", "198.51.100.2"]), min_size=4, max_size=4),
)
async def test_no_client_chooses_its_own_address(hops: int, claimed: list[str], real: list[str]) -> None:
    written = real[:hops]
    header = (b"x-forwarded-for", ", ".join([*claimed, *written]).encode())
    assert (await told(hops, [header]))["client"] == (written[0], 0)


async def test_the_host_is_the_one_that_the_client_asked_for() -> None:
    headers = [(b"host", b"10.0.0.9:5000"), (b"x-forwarded-host", b"auth.example.com")]
    assert (b"host", b"auth.example.com") in (await told(1, headers))["headers"]
    assert (b"host", b"10.0.0.9:5000") not in (await told(1, headers))["headers"]
