"""Signing keys that change, and key ids that nobody knows, while callers are being served over HTTP."""

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import aiohttp
import pytest

import quart_app.app
from local_azure.environment import LocalAzure
from quart_app.app import create_app
from quart_app.auth.signing_keys import SigningKeys
from quart_app.settings import Settings
from tests.conftest import FakeClock
from tests.support.running_service import served

CALLERS = 4
COOLDOWN = 300
ONE_FETCH = 2  # of the tenant's key set, and of the same with the API's own keys


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(1000)


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch, clock: FakeClock) -> list[SigningKeys]:
    """The service's own signing keys, once it runs; their clock is the test's."""
    made: list[SigningKeys] = []

    def make(*arguments: Any, **keywords: Any) -> SigningKeys:
        made.append(SigningKeys(*arguments, **{**keywords, "clock": clock}))
        return made[-1]

    monkeypatch.setattr(quart_app.app, "SigningKeys", make)
    return made


@pytest.fixture
async def address(settings: Settings, keys: list[SigningKeys]) -> AsyncIterator[str]:
    async with create_app(settings) as app, served(app) as address:
        await keys[0].check()
        yield address


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def status(session: aiohttp.ClientSession, address: str, token: str) -> int:
    async with session.get(f"{address}/api/user", headers={"Authorization": f"Bearer {token}"}) as answer:
        await answer.read()
        return answer.status


class Traffic:
    """Callers who never stop: each takes the next of `tokens` again and again. `statuses` counts the answers."""

    def __init__(self, session: aiohttp.ClientSession, address: str) -> None:
        self._session = session
        self._address = address
        self.tokens: list[str] = []
        self.statuses: Counter[int] = Counter()
        self._answered = asyncio.Event()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        callers = [asyncio.create_task(self._call_for_ever()) for _ in range(CALLERS)]
        try:
            yield
        finally:
            for caller in callers:
                caller.cancel()
                with suppress(asyncio.CancelledError):
                    await caller

    async def more(self, count: int) -> None:
        """Return when so many more requests have been answered."""
        goal = self.statuses.total() + count
        while self.statuses.total() < goal:
            self._answered.clear()
            await self._answered.wait()

    async def _call_for_ever(self) -> None:
        for number in itertools.count():
            self.statuses[await status(self._session, self._address, self.tokens[number % len(self.tokens)])] += 1
            self._answered.set()


async def test_while_keys_are_rotated_and_retired_no_good_request_fails(
    address: str,
    session: aiohttp.ClientSession,
    local_azure: LocalAzure,
    keys: list[SigningKeys],
    record_property: Callable[[str, object], None],
) -> None:
    entra = local_azure.entra
    old = entra.access_token("alex")
    async with session.post(f"{address}/api/user", headers={"Authorization": f"Bearer {old}"}) as created:
        assert created.status == 201
    traffic = Traffic(session, address)
    traffic.tokens = [old]
    async with traffic.running():
        await traffic.more(50)
        entra.rotate()
        new = entra.access_token("alex")
        assert await status(session, address, new) == 200  # the very first one, with a key that is not known yet
        traffic.tokens = [old, new]
        await traffic.more(100)
        traffic.tokens = [new]
        await traffic.more(2 * CALLERS)  # what was on its way with the old token has been answered
        entra.retire()
        await traffic.more(50)
        assert await status(session, address, old) == 200  # until the service hears of it
        await keys[0].refresh()
        assert await status(session, address, old) == 401
        await traffic.more(50)
    assert set(traffic.statuses) == {200}
    assert await status(session, address, old) == 401
    record_property(
        "traffic", f"key rotation: {traffic.statuses.total()} good requests meanwhile, failed: 0; retired key: 401"
    )


async def test_a_burst_of_unknown_key_ids_locks_nobody_out_and_fetches_once(
    address: str,
    session: aiohttp.ClientSession,
    local_azure: LocalAzure,
    clock: FakeClock,
    record_property: Callable[[str, object], None],
) -> None:
    entra, tokens = local_azure.entra, 500
    good = entra.access_token("alex")
    async with session.post(f"{address}/api/user", headers={"Authorization": f"Bearer {good}"}) as created:
        assert created.status == 201
    claims = {"iss": entra.url, "exp": 1}
    traffic = Traffic(session, address)
    # Each good caller is a token that was never seen, so that none is served from memory.
    traffic.tokens = [entra.access_token("alex") for _ in range(tokens)]
    before = entra.faults.counts["keys_v2"]

    async def burst(name: str) -> Counter[int]:
        forged = [entra.sign(claims, headers={"kid": f"{name}-{number}"}) for number in range(tokens)]
        return Counter(await asyncio.gather(*(status(session, address, token) for token in forged)))

    async with traffic.running():
        first = await burst("first")
        assert entra.faults.counts["keys_v2"] == before + ONE_FETCH
        second = await burst("second")
        assert entra.faults.counts["keys_v2"] == before + ONE_FETCH
        clock.advance(COOLDOWN)
        third = await burst("third")
        assert entra.faults.counts["keys_v2"] == before + 2 * ONE_FETCH
        await traffic.more(1)
    assert first == second == third == {401: tokens}
    assert set(traffic.statuses) == {200}
    record_property(
        "traffic",
        f"unknown key ids: 3 bursts of {tokens}, all 401; {traffic.statuses.total()} good requests meanwhile, failed: "
        f"0; keys fetched: {(entra.faults.counts['keys_v2'] - before) // ONE_FETCH} times in 2 cool-downs",
    )
