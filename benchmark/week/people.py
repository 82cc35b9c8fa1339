"""Who the users are and what their clients do, hour by hour. All of it is assumed."""

import math
import random
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

from benchmark.week.clocks import Clock, until

MINUTE, HOUR, DAY = 60.0, 3600.0, 86_400.0

HOURS = (0.2, 0.1, 0.1, 0.1, 0.2, 0.6, 1.8, 4.5, 10, 11, 9, 7, 5, 6.5, 9, 8.5, 7, 5, 4, 3.5, 3, 2.5, 1.5, 0.9)
"""How many of a hundred sign-ins of a day begin in each of its hours. One region: all users are in one time zone."""

# clients/web/src/acs-tokens.ts and rules.ts, whose behaviour this is.
PATIENCE = 30.0
LONGEST_PAUSE = 60.0
AHEAD = 11 * MINUTE


@dataclass(frozen=True, slots=True)
class Habits:
    """What users do.

    weekday, weekend  how many of all are active on such a day; together 20 days a month (docs/cost.md)
    sessions          a day of an active user; the first by `HOURS`, each later one `apart` seconds later on average
    minutes           how long a session lasts on average
    pages             views in a session at which the client may need a token: the first at its start
    connected         how many of all have a device that is always signed in, and do nothing else
    new               how many of all sign in for the first time in this week: 5 in 100 a month
    signs_out         how many of a hundred sessions end with a sign-out everywhere
    lost_at           when every token that is held ends before its time, in seconds, if it does
    """

    weekday: float = 0.8
    weekend: float = 1 / 3
    sessions: int = 2
    apart: float = 4 * HOUR
    minutes: float = 60.0
    pages: int = 1
    connected: float = 0.05
    new: float = 0.05 * 7 / 30.4
    signs_out: float = 2.0
    lost_at: float | None = None


@dataclass(frozen=True, slots=True)
class ClientPolicy:
    """What clients do with a token.

    keeps    hold it for its life, in later sessions too; else for a page
    minutes  which life they ask for
    spread   over how many seconds renewals are drawn, before the last moment for them
    """

    keeps: bool = False
    minutes: int = 1440
    spread: float = 5 * MINUTE


@dataclass(frozen=True, slots=True)
class Session:
    """Times in seconds; `pages` in order."""

    start: float
    end: float
    pages: tuple[float, ...]
    signs_in: bool
    signs_out: bool


@dataclass(frozen=True, slots=True)
class Person:
    """One user. `renews_at` is when a token that is held from last week is due; `loses_at` when a held one is lost."""

    number: int
    new: bool
    connected: bool
    sessions: tuple[Session, ...]
    renews_at: float
    loses_at: float


class Service(Protocol):
    """What clients call. Each gives `None`, or the seconds of `Retry-After` where it was refused for now."""

    async def sign_in(self, person: int) -> float | None:
        """`POST /api/user`."""

    async def token(self, person: int, minutes: int) -> float | None:
        """`GET /api/token?minutes=…`; where it answers 404, `POST /api/user` and once more."""

    async def sign_out(self, person: int) -> float | None:
        """`DELETE /api/token`; 404 is as good."""


@dataclass(slots=True)
class Counts:
    """What clients saw: requests by minute, how often one was wanted, and how often they gave up."""

    minutes: int
    requests: list[int] = field(init=False)
    wanted: int = 0
    turned_away: int = 0

    def __post_init__(self) -> None:
        self.requests = [0] * self.minutes

    def request(self, now: float) -> None:
        """One was sent."""
        self.requests[min(int(now // MINUTE), self.minutes - 1)] += 1


def population(count: int, habits: Habits, days: int, draw: random.Random) -> list[Person]:
    """`count` people and their `days`, Monday first. The same draws give the same people."""
    return [_person(number, habits, days, draw) for number in range(count)]


def _person(number: int, habits: Habits, days: int, draw: random.Random) -> Person:
    connected, new = draw.random() < habits.connected, draw.random() < habits.new
    loses_at = math.inf if habits.lost_at is None else habits.lost_at + draw.random() * MINUTE
    if connected:
        always = Session(0.0, days * DAY, (), signs_in=False, signs_out=False)
        return Person(number, False, True, (always,), _hour(draw), loses_at)
    sessions: list[Session] = []
    for day in range(days):
        if draw.random() >= (habits.weekday if day % 7 < 5 else habits.weekend):
            continue
        start = day * DAY + _hour(draw)
        for session in range(habits.sessions):
            if session:
                start = max(start + draw.expovariate(1 / habits.apart), sessions[-1].end)
            length = draw.expovariate(1 / (habits.minutes * MINUTE))
            later = sorted(start + draw.random() * length for _ in range(habits.pages - 1))
            signs_out = draw.random() * 100 < habits.signs_out
            sessions.append(Session(start, start + length, (start, *later), session == 0, signs_out))
    kept = tuple(session for session in sessions if session.end < days * DAY)
    return Person(number, new, False, kept, math.inf, loses_at)


def _hour(draw: random.Random) -> float:
    (hour,) = draw.choices(range(24), HOURS)
    return (hour + draw.random()) * HOUR


async def live(
    person: Person, policy: ClientPolicy, service: Service, clock: Clock, draw: random.Random, counts: Counts
) -> None:
    """Live through the days of `person`."""
    client = _Client(person, policy, service, clock, draw, counts)
    for session in sorted(person.sessions, key=lambda session: session.start):
        await client.spend(session)


class _Client:
    def __init__(
        self,
        person: Person,
        policy: ClientPolicy,
        service: Service,
        clock: Clock,
        draw: random.Random,
        counts: Counts,
    ) -> None:
        self._person = person
        self._policy = policy
        self._service = service
        self._clock = clock
        self._draw = draw
        self._counts = counts
        self._issued_at = self._ends_at = 0.0  # of the token that is held
        self._renew_at = person.renews_at
        self._refused = False
        if person.connected:
            self._ends_at = person.renews_at + AHEAD

    async def spend(self, session: Session) -> None:
        clock, number = self._clock, self._person.number
        await until(clock, session.start)
        if self._issued_at < self._person.loses_at <= clock.now:
            self._ends_at = 0.0
        if session.signs_in:
            await self._persist(lambda: self._service.sign_in(number), PATIENCE)
        pages = deque(session.pages)
        while True:
            lost = self._person.loses_at if self._person.loses_at > clock.now else math.inf
            due = min(pages[0] if pages else math.inf, self._renew_at, lost)
            if due >= session.end:
                break
            await until(clock, due)
            if due == lost:
                self._ends_at = 0.0
            elif pages and due == pages[0]:
                pages.popleft()
                if self._policy.keeps and self._ends_at > clock.now:
                    continue
            await self._ask()
        await until(clock, session.end)
        if session.signs_out:
            await self._persist(lambda: self._service.sign_out(number), PATIENCE)
        if session.signs_out or not self._policy.keeps:
            self._ends_at, self._renew_at = 0.0, math.inf

    async def _ask(self) -> None:
        """As `AcsTokens.#obtain`. A device that was turned away asks again and again; that counts as one wish."""
        minutes = self._policy.minutes
        patience = max(self._ends_at - self._clock.now, PATIENCE)
        again, self._refused = self._refused, False
        if await self._persist(lambda: self._service.token(self._person.number, minutes), patience, again=again):
            self._issued_at = self._clock.now
            self._ends_at = self._clock.now + minutes * MINUTE
            latest = self._ends_at - AHEAD
            spread = min(self._policy.spread, (latest - self._clock.now) * 0.9)
            self._renew_at = latest - self._draw.random() * spread
        else:
            self._refused = self._person.connected
            self._renew_at = self._clock.now + LONGEST_PAUSE if self._person.connected else math.inf

    async def _persist(
        self, call: Callable[[], Awaitable[float | None]], patience: float, *, again: bool = False
    ) -> bool:
        """As `persistently`; whether it succeeded in time."""
        self._counts.wanted += not again
        gives_up_at = self._clock.now + patience
        while True:
            self._counts.request(self._clock.now)
            seconds = await call()
            if seconds is None:
                return True
            pause = seconds + self._draw.random()
            if self._clock.now + pause > gives_up_at:
                self._counts.turned_away += not again
                return False
            await self._clock.sleep(pause)
