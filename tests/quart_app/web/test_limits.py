"""Limits: how often a user may ask, how many requests are served at once, who may call from a browser."""

import asyncio
from asyncio import FIRST_COMPLETED
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from quart import Quart
from quart.typing import TestClientProtocol as Client

from local_azure.environment import LocalAzure
from local_azure.faults import Fault
from quart_app.app import create_app
from quart_app.settings import load_settings
from quart_app.web.errors import refusal_when_busy, register_error_handlers
from quart_app.web.limits import (
    MINUTE,
    REFUSALS_EACH_TURN,
    ConcurrencyLimit,
    RateLimit,
    TooManyRequests,
    refusing_early,
)
from storage.mapping import UserKey
from tests.conftest import FakeClock
from tests.quart_app.conftest import Bearer
from tests.support.answers import error_of

ALEX, MEGAN = UserKey("tenant", "alex"), UserKey("tenant", "megan")
ORIGIN = "https://app.example.com"


def served(limit: RateLimit, user: UserKey = ALEX) -> bool:
    try:
        limit.count(user)
    except TooManyRequests:
        return False
    return True


class TestTheRateLimit:
    @given(per_minute=st.integers(1, 600), steps=st.lists(st.floats(0, 30), min_size=1, max_size=200))
    def test_a_user_is_never_served_more_than_a_burst_and_the_rate(self, per_minute: int, steps: list[float]) -> None:
        clock = FakeClock(1_000_000)
        limit = RateLimit(per_minute, clock=clock)
        started, count = clock.now, 0
        for step in steps:
            clock.advance(step)
            count += served(limit)
            assert count <= per_minute + (clock.now - started) * per_minute / MINUTE + 1e-3

    @given(per_minute=st.integers(1, 600))
    def test_a_user_who_keeps_to_the_rate_is_never_refused(self, per_minute: int) -> None:
        clock = FakeClock(1_000_000)
        limit = RateLimit(per_minute, clock=clock)
        assert all(served(limit) for _ in range(per_minute))
        for _ in range(per_minute):
            clock.advance(MINUTE / per_minute)
            assert served(limit)
            assert not served(limit)

    @given(per_minute=st.integers(1, 600), share=st.floats(0, 0.99))
    def test_the_time_told_is_enough_and_not_more_than_needed(self, per_minute: int, share: float) -> None:
        clock = FakeClock(1_000_000)
        limit = RateLimit(per_minute, clock=clock)
        for _ in range(per_minute):
            limit.count(ALEX)
        with pytest.raises(TooManyRequests) as refused:
            limit.count(ALEX)
        clock.advance(refused.value.retry_after * share)
        assert not served(limit)
        clock.advance(refused.value.retry_after * (1 - share))
        assert served(limit)

    @given(
        per_minute=st.integers(1, 600),
        requests=st.lists(st.tuples(st.floats(0, 30), st.integers(0, 1000)), max_size=50),
    )
    def test_a_heavy_request_costs_as_many_as_it_weighs_and_at_most_a_minutes_worth(
        self, per_minute: int, requests: list[tuple[float, int]]
    ) -> None:
        clock = FakeClock(1_000_000)
        limit = RateLimit(per_minute, clock=clock)
        started, cost = clock.now, 0
        for step, weight in requests:
            clock.advance(step)
            if served(limit):
                cost += 1
                with suppress(TooManyRequests):
                    limit.weigh(ALEX, weight)
                    cost += max(min(weight, per_minute), 1) - 1
            assert cost <= per_minute + (clock.now - started) * per_minute / MINUTE + 1e-3
        clock.advance(MINUTE)
        limit.count(ALEX)
        limit.weigh(ALEX, 1_000_000)

    def test_users_do_not_share_their_limit_and_neither_do_tenants(self) -> None:
        limit = RateLimit(1, clock=FakeClock(0))
        users = [ALEX, MEGAN, UserKey("other tenant", "alex")]
        assert [served(limit, user) for user in users] == [True] * 3
        assert [served(limit, user) for user in users] == [False] * 3

    def test_users_are_forgotten_after_a_minute_and_never_more_than_so_many_are_remembered(self) -> None:
        clock = FakeClock(0)
        limit = RateLimit(60, users=10, clock=clock)
        for number in range(1000):
            limit.count(UserKey("tenant", str(number)))
        assert len(limit) == 10
        clock.advance(MINUTE + 1)
        limit.count(ALEX)
        assert len(limit) == 1


@pytest.mark.usefixtures("settings")
async def test_a_user_beyond_the_limit_is_told_when_to_come_back_and_others_are_served(
    bearer: Bearer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RATE_LIMIT_REQUESTS_PER_MINUTE", "2")
    async with create_app(load_settings(None)) as app:
        client = app.test_client()
        for _ in range(2):
            assert (await client.get("/api/user", headers=bearer("alex"))).status_code == 404
        refused = await client.post("/api/user", headers=bearer("alex"))
        assert await error_of(refused) == (429, "too_many_requests")
        assert 1 <= int(refused.headers["Retry-After"]) <= 30
        assert (await client.get("/api/user", headers=bearer("megan"))).status_code == 404
        assert (await client.get("/health/live")).status_code == 200


@pytest.mark.usefixtures("settings")
async def test_refused_tokens_are_not_counted_for_the_user_they_claim(
    bearer: Bearer, local_azure: LocalAzure, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RATE_LIMIT_REQUESTS_PER_MINUTE", "1")
    forged = {"Authorization": f"Bearer {local_azure.entra.access_token('alex')[:-8]}AAAAAAAA"}
    async with create_app(load_settings(None)) as app:
        client = app.test_client()
        for _ in range(3):
            assert (await client.get("/api/user", headers=forged)).status_code == 401
        assert (await client.get("/api/user", headers=bearer("alex"))).status_code == 404


@pytest.mark.usefixtures("settings")
async def test_zero_is_no_rate_limit(bearer: Bearer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RATE_LIMIT_REQUESTS_PER_MINUTE", "0")
    async with create_app(load_settings(None)) as app:
        client = app.test_client()
        statuses = {(await client.get("/api/user", headers=bearer("alex"))).status_code for _ in range(50)}
    assert statuses == {404}


@pytest.mark.usefixtures("settings")
async def test_more_requests_than_are_served_at_once_are_refused_early_but_health_is_not(
    bearer: Bearer, local_azure: LocalAzure, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAX_CONCURRENT_REQUESTS", "2")
    local_azure.acs.faults.script("create_identity", Fault(hang=True, times=2))
    async with create_app(load_settings(None)) as app:
        client = app.test_client()
        hanging = [asyncio.create_task(client.post("/api/user", headers=bearer(name))) for name in ("alex", "megan")]
        await local_azure.acs.faults.arrived("create_identity", 2)
        refused = await client.get("/api/user", headers={**bearer("alex"), **CHUNKED}, data=b"x" * 20_000)
        assert await error_of(refused) == (503, "service_unavailable")
        assert refused.headers["Retry-After"] == "1"
        assert (await client.get("/health/live")).status_code == 200
        local_azure.acs.faults.release()
        await asyncio.gather(*hanging)
        assert (await client.get("/api/token", headers=bearer("alex"))).status_code != 503


@pytest.mark.usefixtures("settings")
async def test_health_is_exempt_also_by_an_absolute_request_target(
    bearer: Bearer, local_azure: LocalAzure, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MAX_CONCURRENT_REQUESTS", "1")
    local_azure.acs.faults.script("create_identity", Fault(hang=True))
    async with create_app(load_settings(None)) as app:
        client = app.test_client()
        hanging = asyncio.create_task(client.post("/api/user", headers=bearer("alex")))
        await local_azure.acs.faults.arrived("create_identity", 1)
        async with client.request("http://host/health/live") as connection:
            await connection.send_complete()
        answer = await connection.as_response()
        local_azure.acs.faults.release()
        await hanging
    assert answer.status_code == 200
    assert "/health/live" not in caplog.text


async def test_of_a_crowd_that_arrives_at_once_only_the_excess_is_refused() -> None:
    app = Quart(__name__)
    limit = ConcurrencyLimit(10, public=10)
    app.asgi_app = limit(app.asgi_app)  # type: ignore[assignment,method-assign]
    app.before_request(limit.refuse)
    register_error_handlers(app, "https://login.example", told_more=False)

    @app.get("/")
    async def view() -> str:
        await asyncio.sleep(0)
        return ""

    client = app.test_client()
    answers = await asyncio.gather(*(client.get("/") for _ in range(25)))
    assert sorted(answer.status_code for answer in answers) == [200] * 10 + [503] * 15
    assert (await client.get("/")).status_code == 200


async def test_callers_unknown_ones_and_public_pages_are_counted_apart() -> None:
    app = Quart(__name__)
    limit = ConcurrencyLimit(2, public=1)
    app.asgi_app = limit(app.asgi_app)  # type: ignore[assignment,method-assign]
    app.before_request(limit.refuse)
    register_error_handlers(app, "https://login.example", told_more=False)
    opened, arrived = asyncio.Event(), asyncio.Queue[str]()

    @app.get("/api/<who>")
    async def api(who: str) -> str:
        if who == "known":
            limit.admit()
        arrived.put_nowait(who)
        await opened.wait()
        return ""

    @app.get("/page")
    async def page() -> str:
        return await api("page")

    client = app.test_client()
    paths = ["/api/known", "/api/known", "/api/unknown", "/api/unknown", "/page"]
    held = []
    for path in paths:
        held.append(asyncio.create_task(client.get(path)))
        await asyncio.wait({held[-1], arriving := asyncio.ensure_future(arrived.get())}, return_when=FIRST_COMPLETED)
        assert arriving.done(), path
    assert limit.serving == len(paths)
    for path in ("/page", "/api/unknown"):
        assert (await client.get(path)).status_code == 503
    opened.set()
    assert [answer.status_code for answer in await asyncio.gather(*held)] == [200] * len(paths)
    assert limit.serving == 0


async def test_beyond_the_limit_a_known_caller_is_refused_before_anything_is_done_and_others_once_known() -> None:
    app = Quart(__name__)
    refused: list[str] = []
    limit = ConcurrencyLimit(1, is_known=lambda token: token == "known", on_refused=refused.append)
    app.asgi_app = limit(app.asgi_app)  # type: ignore[assignment,method-assign]
    app.before_request(limit.refuse)
    register_error_handlers(app, "https://login.example", told_more=False)
    opened, arrived = asyncio.Event(), asyncio.Queue[None]()

    @app.get("/api/known")
    async def api() -> str:
        arrived.put_nowait(None)
        limit.admit()
        await opened.wait()
        return ""

    client = app.test_client()
    first = asyncio.create_task(client.get("/api/known"))
    await arrived.get()
    assert (await client.get("/api/known", headers={"Authorization": "Bearer known"})).status_code == 503
    assert arrived.empty()
    for headers in ({"Authorization": "Bearer another"}, {}):
        assert (await client.get("/api/known", headers=headers)).status_code == 503
        arrived.get_nowait()
    assert refused == ["places"] * 3
    opened.set()
    assert (await first).status_code == 200


async def test_a_caller_who_is_admitted_twice_has_one_place_and_whoever_is_not_counted_has_none() -> None:
    app = Quart(__name__)
    limit = ConcurrencyLimit(1)
    app.asgi_app = limit(app.asgi_app)  # type: ignore[assignment,method-assign]
    serving: list[int] = []

    @app.get("/<path:path>")
    async def view(path: str) -> str:
        limit.admit()
        limit.admit()
        serving.append(limit.serving)
        return ""

    client = app.test_client()
    for path in ("/api/user", "/health/live"):
        assert (await client.get(path)).status_code == 200
    assert serving == [1, 0]
    assert limit.serving == 0


async def test_of_a_crowd_so_many_are_refused_in_one_turn_of_the_event_loop() -> None:
    async def unreachable(*_: object) -> None:
        raise AssertionError

    limit = ConcurrencyLimit(0)
    refusing = limit(refusing_early(refusal_when_busy)(unreachable))
    turns: list[int] = []

    async def count_turns() -> None:
        while True:
            turns.append(0)
            await asyncio.sleep(0)

    async def send(message: dict[str, object]) -> None:
        turns[-1] += message.get("status") == 503

    counting = asyncio.create_task(count_turns())
    scope = {"type": "http", "path": "/api/user", "headers": [(b"host", b"localhost")]}
    crowd = 3 * REFUSALS_EACH_TURN
    await asyncio.gather(*(refusing(scope, None, send) for _ in range(crowd)))
    counting.cancel()
    assert sum(turns) == crowd
    assert max(turns) == REFUSALS_EACH_TURN


async def test_a_request_whose_client_went_away_is_not_counted_any_more() -> None:
    app = Quart(__name__)
    limit = ConcurrencyLimit(1)
    app.asgi_app = limit(app.asgi_app)  # type: ignore[assignment,method-assign]
    arrived = asyncio.Event()

    @app.get("/")
    async def hang() -> str:
        arrived.set()
        await asyncio.Event().wait()
        return ""

    async with app.test_client().request("/") as connection:
        await arrived.wait()
        assert limit.serving == 1
        await connection.disconnect()
    assert limit.serving == 0


CHUNKED = {"Transfer-Encoding": "chunked"}
PREFLIGHT = {
    "Origin": ORIGIN,
    "Access-Control-Request-Method": "DELETE",
    "Access-Control-Request-Headers": "authorization,teams-user-aad-token,x-request-id,content-type,traceparent,"
    "tracestate,request-id,request-context,x-ms-client-request-id,x-requested-with",
}


@pytest.fixture
def origins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CORS_ALLOWED_ORIGINS", f"{ORIGIN}, http://localhost:3000")


@pytest.mark.usefixtures("origins")
class TestOrigins:
    async def test_a_preflight_of_an_allowed_origin_needs_no_token_and_allows_what_clients_send(
        self, client: Client
    ) -> None:
        answer = await client.options("/api/user", headers=PREFLIGHT)
        assert answer.status_code == 200
        assert answer.headers["Access-Control-Allow-Origin"] == ORIGIN
        assert "DELETE" in answer.headers["Access-Control-Allow-Methods"]
        allowed = answer.headers["Access-Control-Allow-Headers"].lower()
        assert all(name in allowed for name in PREFLIGHT["Access-Control-Request-Headers"].split(","))
        assert answer.headers["Access-Control-Max-Age"] == "3600"
        assert "Access-Control-Allow-Credentials" not in answer.headers
        assert "Origin" in answer.headers["Vary"]

    @pytest.mark.parametrize(
        "origin", ["https://evil.example", "http://app.example.com", f"{ORIGIN}.evil.example", f"{ORIGIN}:8443", "null"]
    )
    async def test_any_other_origin_gets_no_permission(self, client: Client, origin: str) -> None:
        for answer in (
            await client.options("/api/user", headers={**PREFLIGHT, "Origin": origin}),
            await client.get("/api/user", headers={"Origin": origin}),
        ):
            assert "Access-Control-Allow-Origin" not in answer.headers
            assert "Origin" in answer.headers["Vary"]

    async def test_a_browser_can_read_every_error(self, client: Client, bearer: Bearer) -> None:
        headers = {"Origin": ORIGIN}
        answers = [
            await client.get("/api/user", headers=headers),
            await client.get("/api/user", headers={**headers, **bearer("alex")}),
            await client.get("/nothing", headers=headers),
            await client.put("/api/user", headers=headers),
            await client.post("/api/user", headers={**headers, "Content-Length": "20000"}, data=b"x" * 20_000),
        ]
        assert [answer.status_code for answer in answers] == [401, 404, 404, 405, 413]
        for answer in answers:
            assert answer.headers["Access-Control-Allow-Origin"] == ORIGIN
            for name in ("WWW-Authenticate", "Retry-After", "X-Request-Id"):
                assert name.lower() in answer.headers["Access-Control-Expose-Headers"].lower()


async def test_without_allowed_origins_no_browser_gets_a_permission(client: Client) -> None:
    answer = await client.options("/api/user", headers=PREFLIGHT)
    assert "Access-Control-Allow-Origin" not in answer.headers


@pytest.mark.parametrize("path", ["/api/user", "/health/live", "/nothing", "/openapi.json", "/docs"])
async def test_every_answer_carries_the_security_headers(client: Client, path: str) -> None:
    answer = await client.get(path)
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    policy = answer.headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in policy
    assert policy.startswith("default-src 'none'") is (path != "/docs")


async def test_a_security_header_of_the_answers_own_is_neither_replaced_nor_joined(client: Client) -> None:
    asset, page = await client.get("/docs/swagger-ui.css"), await client.get("/docs")
    assert asset.headers.getlist("Cache-Control") == ["public, max-age=86400"]
    (policy,) = page.headers.getlist("Content-Security-Policy")
    assert policy.startswith("default-src 'self'")


async def test_transport_security_is_demanded_over_https_alone(client: Client) -> None:
    plain, secure = await client.get("/health/live"), await client.get("/health/live", scheme="https")
    assert "Strict-Transport-Security" not in plain.headers
    assert secure.headers["Strict-Transport-Security"] == "max-age=31536000"
