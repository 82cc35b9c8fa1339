"""The service as a model: what it remembers, what it asks of others, how it repeats what was refused.

`benchmark.week.wire` runs the same week through the service's own parts; the two have to agree.
"""

import math
import random
from collections import OrderedDict
from dataclasses import dataclass, field

from benchmark.week.clocks import ModelClock
from benchmark.week.limits import Limits
from benchmark.week.people import MINUTE
from upstream.retry_after import LONGEST_SECONDS

# quart_app/identities/service.py, token_cache.py; upstream/retrying.py; REQUEST_DEADLINE_SECONDS
MAPPING_SECONDS = 10.0
KEPT_TOKENS = 10_000
ATTEMPTS = 4
DEADLINE_SECONDS = 10.0

_UNKNOWN = -1.0
"""The answer 404: the person has no identity."""

READ, CREATE, REPLACE = 2.0, 6.29, 10.29
"""Request units of a point read with Strong consistency, a create and a replace: estimated, as in docs/cost.md."""


@dataclass(frozen=True, slots=True)
class Deployment:
    """How the service is run. `kept_tokens` is how many identities' tokens each replica keeps."""

    replicas: int = 9
    reuse_minutes: float = 0
    kept_tokens: int = KEPT_TOKENS

    def part(self, share: float) -> "Deployment":
        """For `share` of all users, on as many replicas, each with its share of the memory."""
        return Deployment(self.replicas, self.reuse_minutes, max(1, round(self.kept_tokens * share)))


@dataclass(slots=True)
class Asked:
    """What was asked of the upstreams: by minute, and what was refused of it. Units are Cosmos DB's, or requests."""

    minutes: int
    acs: list[int] = field(init=False)
    units: list[float] = field(init=False)
    acs_refused: int = 0
    store_calls: int = 0
    store_refused: int = 0

    def __post_init__(self) -> None:
        self.acs = [0] * self.minutes
        self.units = [0.0] * self.minutes


class _Replica:
    def __init__(self) -> None:
        self.mappings: dict[int, float] = {}
        self.tokens: OrderedDict[int, tuple[float, int]] = OrderedDict()


@dataclass(slots=True)
class _Request:
    """One request of a client; `waited` counts against its deadline."""

    replica: _Replica
    waited: float = 0.0


class ModelService:
    """Fulfils `people.Service`. `mapped` are the people who have an identity."""

    def __init__(
        self,
        deployment: Deployment,
        limits: Limits,
        clock: ModelClock,
        draw: random.Random,
        asked: Asked,
        mapped: set[int],
    ) -> None:
        self._deployment = deployment
        self._clock = clock
        self._draw = draw
        self._asked = asked
        self._mapped = mapped
        self._minted: set[int] = set()
        self._versions: dict[int, int] = {}
        self._replicas = [_Replica() for _ in range(deployment.replicas)]
        self._acs = {operation: rate.limit(lambda: clock.now) for operation, rate in limits.acs.items()}
        self._store = limits.store.limit(lambda: clock.now)
        self._is_cosmos = limits.store_is_cosmos

    async def sign_in(self, person: int) -> float | None:
        """See `Service.sign_in`."""
        request = self._request()
        refused = await self._ask_store(request, READ)
        if refused is None and person not in self._mapped:
            refused = await self._create(request, person)
        if refused is None:
            request.replica.mappings[person] = self._clock.now + MAPPING_SECONDS
        return refused

    async def _create(self, request: _Request, person: int) -> float | None:
        if person not in self._minted:
            refused = await self._ask_acs(request, "create_identity")
            if refused is not None:
                return refused
            self._minted.add(person)
        refused = await self._ask_store(request, CREATE)
        if refused is None:
            self._mapped.add(person)
        else:
            await self._ask_store(request, READ)  # whether it was written nevertheless
        return refused

    async def token(self, person: int, minutes: int) -> float | None:
        """See `Service.token`."""
        refused = await self._token(person, minutes)
        if refused is _UNKNOWN:
            refused = await self.sign_in(person)
            if refused is None:
                refused = await self._token(person, minutes)
        return refused

    async def _token(self, person: int, minutes: int) -> float | None:
        request = self._request()
        reuses = self._deployment.reuse_minutes > 0
        if reuses or request.replica.mappings.get(person, 0.0) <= self._clock.now:
            refused = await self._ask_store(request, READ)
            if refused is not None:
                return refused
            if person not in self._mapped:
                return _UNKNOWN
            request.replica.mappings[person] = self._clock.now + MAPPING_SECONDS
        version = self._versions.get(person, 0)
        if reuses and self._kept(request.replica, person) == version:
            return None
        refused = await self._ask_acs(request, "issue_access_token")
        if refused is None and reuses:
            self._keep(request.replica, person, version, minutes)
        return refused

    async def sign_out(self, person: int) -> float | None:
        """See `Service.sign_out`."""
        request = self._request()
        refused = await self._ask_store(request, READ)
        if refused is None and person not in self._mapped:
            return None
        if refused is None:
            request.replica.tokens.pop(person, None)
            refused = await self._ask_acs(request, "revoke_access_tokens")
        if refused is None:
            refused = await self._ask_store(request, REPLACE)
        if refused is None:
            self._versions[person] = self._versions.get(person, 0) + 1
        return refused

    def _request(self) -> _Request:
        return _Request(self._replicas[self._draw.randrange(len(self._replicas))])

    def _kept(self, replica: _Replica, person: int) -> int | None:
        until, version = replica.tokens.get(person, (0.0, 0))
        if until <= self._clock.now:
            return None
        replica.tokens.move_to_end(person)
        return version

    def _keep(self, replica: _Replica, person: int, version: int, minutes: int) -> None:
        seconds = min(self._deployment.reuse_minutes, minutes - 1) * MINUTE
        replica.tokens[person] = self._clock.now + seconds, version
        replica.tokens.move_to_end(person)
        if len(replica.tokens) > self._deployment.kept_tokens:
            replica.tokens.popitem(last=False)

    async def _ask_acs(self, request: _Request, operation: str) -> float | None:
        told = 0.0
        for attempt in range(ATTEMPTS):
            self._asked.acs[self._minute] += 1
            seconds = self._acs[operation].take()
            if seconds is None:
                return None
            self._asked.acs_refused += 1
            told = _told(seconds)
            if not await self._waits(request, attempt, told):
                break
        return told

    async def _ask_store(self, request: _Request, units: float) -> float | None:
        units, told = units if self._is_cosmos else 1.0, 0.0
        for attempt in range(ATTEMPTS):
            self._asked.store_calls += 1
            seconds = self._store.take(units)
            if seconds is None:
                self._asked.units[self._minute] += units
                return None
            self._asked.store_refused += 1
            told = _told(seconds)
            if not await self._waits(request, attempt, seconds):
                break
        return told

    async def _waits(self, request: _Request, attempt: int, seconds: float) -> bool:
        """Wait before the next attempt, if there is one and the deadline leaves time for it."""
        if attempt == ATTEMPTS - 1 or request.waited + seconds >= DEADLINE_SECONDS:
            return False
        request.waited += seconds
        await self._clock.sleep(seconds)
        return True

    @property
    def _minute(self) -> int:
        return min(int(self._clock.now // MINUTE), self._asked.minutes - 1)


def _told(seconds: float) -> float:
    """As `Retry-After` is written and believed."""
    return float(min(math.ceil(seconds), LONGEST_SECONDS))
