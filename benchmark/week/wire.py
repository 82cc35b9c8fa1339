"""The same week through the service's own parts, over TLS, against the limited stand-ins, with the clock compressed.

Each replica is an identity service with its own memory, Cosmos DB store and ACS client, as `quart_app.app` puts them
together. Left out are HTTP in front of them, the callers' tokens, and what is repeated in the background. Waits are the
compressed clock's, and only they count against the request's deadline: how busy this machine is changes nothing.
"""

import asyncio
import math
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass

from benchmark.week.clocks import CompressedClock
from benchmark.week.model import DEADLINE_SECONDS, Deployment
from benchmark.week.people import MINUTE, Counts, live, population
from benchmark.week.policies import Policy
from benchmark.week.simulation import Size
from local_azure.environment import LocalAzure
from quart_app.acs.client import AcsOptions, SdkAcsClient
from quart_app.acs.guarded import GuardedAcsClient
from quart_app.acs.interface import TokenRequest
from quart_app.identities import IdentityService, TokenCache
from quart_app.identities.errors import IdentityNotFound
from quart_app.identities.reconciler import ReconcilerOptions
from quart_app.settings import AcsConnectionString
from quart_app.web.errors import DEFAULT_RETRY_AFTER_SECONDS
from storage.cosmos import open_cosmos_store
from storage.cosmos_options import CosmosOptions
from storage.guarded import GuardedStore
from storage.mapping import UserKey
from upstream.errors import Throttled
from upstream.retrying import RetryPolicy

SCOPES = ("chat", "voip")
_TENANT = "week"


@dataclass(frozen=True, slots=True)
class WireTotals:
    """What clients saw, and what the stand-ins counted: ACS calls and Cosmos DB's request units, and refusals."""

    counts: Counts
    acs_calls: int
    acs_refused: int
    units: float
    store_refused: int


async def run_over_the_wire(policy: Policy, size: Size, azure: LocalAzure) -> WireTotals:
    """Live the week of `policy` against `azure`, which must be new: it is given people, and limits."""
    plan, draw = random.Random(size.seed), random.Random(size.seed + 1)
    people = population(size.people, policy.habits, size.days, plan)
    clock, counts = CompressedClock(), Counts(size.minutes)
    deployment, limits = policy.deployment.part(size.share), policy.limits.part(size.share)
    async with _replicas(azure, deployment, clock) as (replicas, store):
        for person in people:
            if not person.new:
                await store.create(_user(person.number), azure.acs.mint())
        throughput = limits.store.limit(lambda: clock.now)
        azure.cosmos.throughput = throughput
        azure.acs.limits.update({name: rate.limit(lambda: clock.now) for name, rate in limits.acs.items()})
        service = _WireService(replicas, draw)
        await clock.run(live(person, policy.client, service, clock, draw, counts) for person in people)
        refused = sum(limit.refused for limit in azure.acs.limits.values())
        azure.acs.limits.clear()
        azure.cosmos.throughput = None
    calls = sum(azure.acs.faults.counts[name] for name in limits.acs)
    return WireTotals(counts, calls, refused, throughput.spent, throughput.refused)


class _WireService:
    """Fulfils `people.Service`."""

    def __init__(self, replicas: list[IdentityService], draw: random.Random) -> None:
        self._replicas = replicas
        self._draw = draw

    async def sign_in(self, person: int) -> float | None:
        """See `Service.sign_in`."""
        replica = self._replica()
        return await _refused(lambda: replica.get_or_create(_user(person)))

    async def token(self, person: int, minutes: int) -> float | None:
        """See `Service.token`."""
        try:
            return await self._token(person, minutes)
        except IdentityNotFound:
            refused = await self.sign_in(person)
            return await self._token(person, minutes) if refused is None else refused

    async def _token(self, person: int, minutes: int) -> float | None:
        replica, request = self._replica(), TokenRequest(SCOPES, minutes)
        return await _refused(lambda: replica.issue_token(_user(person), request))

    async def sign_out(self, person: int) -> float | None:
        """See `Service.sign_out`."""
        replica = self._replica()
        with suppress(IdentityNotFound):
            return await _refused(lambda: replica.sign_out(_user(person)))
        return None

    def _replica(self) -> IdentityService:
        return self._replicas[self._draw.randrange(len(self._replicas))]


async def _refused(call: Callable[[], Awaitable[object]]) -> float | None:
    """The seconds of `Retry-After`, as `quart_app.web.errors` writes them, where the call was throttled."""
    _waited.set(0.0)
    try:
        await call()
    except Throttled as error:
        return float(math.ceil(error.retry_after or DEFAULT_RETRY_AFTER_SECONDS))
    return None


@asynccontextmanager
async def _replicas(
    azure: LocalAzure, deployment: Deployment, clock: CompressedClock
) -> AsyncIterator[tuple[list[IdentityService], GuardedStore]]:
    cosmos, acs = azure.cosmos.service_environment(), azure.acs.service_environment()["ACS_CONNECTION_STRING"]
    retry = RetryPolicy(sleep=clock.sleep, on_retry=_stop_before_deadline)
    async with AsyncExitStack() as stack:
        replicas = []
        for _ in range(deployment.replicas):
            opened = await open_cosmos_store(
                CosmosOptions(
                    cosmos["COSMOS_ENDPOINT"],
                    cosmos["COSMOS_DATABASE"],
                    cosmos["COSMOS_CONTAINER"],
                    cosmos["COSMOS_KEY"],
                )
            )
            store = GuardedStore(opened, retry)
            stack.push_async_callback(store.aclose)
            options = AcsOptions(SCOPES, connection_string=AcsConnectionString.parse(acs))
            client = GuardedAcsClient(SdkAcsClient(options), retry)
            stack.push_async_callback(client.aclose)
            seconds = deployment.reuse_minutes * MINUTE
            tokens = TokenCache(seconds, size=deployment.kept_tokens, timer=lambda: clock.now) if seconds else None
            replica = IdentityService(
                store,
                client,
                retry=retry,
                timer=lambda: clock.now,
                token_cache=tokens,
                reconciler=ReconcilerOptions(sleep=_forever),
            )
            stack.push_async_callback(replica.aclose)
            replicas.append(replica)
        yield replicas, store


async def _forever(_: float) -> None:
    await asyncio.Event().wait()


def _stop_before_deadline(error: Exception, attempt: int, seconds: float) -> None:
    """As the retry policy does by the event loop's time."""
    if _waited.get() + seconds >= DEADLINE_SECONDS:
        raise error
    _waited.set(_waited.get() + seconds)


_waited: ContextVar[float] = ContextVar("waited")


def _user(person: int) -> UserKey:
    return UserKey(_TENANT, str(person))
