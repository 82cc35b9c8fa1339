"""What one user, and all of them together, may ask for at once; more is refused early, with when to come back.

The rate limit is ours because the libraries do not fit: quart-rate-limiter decides before the caller is known, and the
memory storage of `limits` walks through every user's entry on each request.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, cast

from cachetools import TTLCache
from quart import request

from quart_app.telemetry.served_request import current_request
from quart_app.web.error_names import ErrorName
from quart_app.web.middleware import Application, Middleware
from quart_app.web.observation import REQUEST_ID_HEADER, request_id_of
from quart_app.web.overload import Lateness, TurnLimit
from storage.mapping import UserKey

MINUTE = 60.0
REMEMBERED_USERS = 50_000
BUSY_RETRY_AFTER_SECONDS = 1.0
REFUSALS_EACH_TURN = 24
"""Of the event loop. It takes about 4 ms, beside what those who are served need of the turn."""

PUBLIC_REQUESTS = 50
GUARDED_PATHS = ("/api/", "/getUser", "/getToken", "/exchangeToken")
"""What the paths of authenticated routes begin with."""


class TooManyRequests(Exception):
    """The user asks too often; `retry_after` says in how many seconds the next request will be served."""

    def __init__(self, retry_after: float) -> None:
        super().__init__("The user sends too many requests.")
        self.retry_after = retry_after


class TooBusy(Exception):
    """The process serves as many requests as it takes, or runs late; `retry_after` is in seconds."""

    def __init__(self) -> None:
        super().__init__("Too many requests are being served.")
        self.retry_after = BUSY_RETRY_AFTER_SECONDS


class RateLimit:
    """Each user's requests: `per_minute` at once, then as many a minute, evenly (GCRA, ITU-T I.371, appendix I).

    One number is kept for each user, for a minute at most, for `users` users at most; whoever was seen longest ago is
    forgotten first. `clock` is monotonic, in seconds.
    """

    def __init__(
        self, per_minute: int, *, users: int = REMEMBERED_USERS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._per_minute = per_minute
        self._spacing = MINUTE / per_minute
        self._clock = clock
        self._paid_until: TTLCache[UserKey, float] = TTLCache(users, MINUTE, clock)

    def __len__(self) -> int:
        """How many users are remembered."""
        return len(self._paid_until)

    def count(self, user: UserKey) -> None:
        """Count one request of the user. Raises `TooManyRequests`; a refused request is not counted."""
        self._count(user, 1)

    def weigh(self, user: UserKey, requests: int) -> None:
        """Count a request that was counted once as so many, but at most as many as a user may send at once.

        Raises `TooManyRequests`; then it stays counted once.
        """
        self._count(user, max(min(requests, self._per_minute), 1) - 1)

    def _count(self, user: UserKey, requests: int) -> None:
        now = self._clock()
        paid_until = max(now, self._paid_until.get(user, now)) + requests * self._spacing
        excess = paid_until - now - MINUTE
        if excess > _ROUNDING:
            raise TooManyRequests(excess)
        self._paid_until[user] = paid_until


class ConcurrencyLimit:
    """Counts the requests being served, and refuses those beyond its limits before anything is done for them.

    Three groups are counted apart, so that none can take another's places: authenticated callers (`maximum`), requests
    whose caller is not known yet (`maximum`, too; each is over as soon as its token is judged), and requests of
    everything that is public, such as the pages of `/docs` (`public`).

    Requests are also refused while the process runs late (`lateness`), first those of callers that are not known.
    `is_known` says whether a bearer token was verified before; `on_refused` is called with the cause of each refusal:
    `places` or `lateness`.

    Paths that begin with `exempt` are served anyway and not counted: the platform must not take a busy process
    for a dead one.
    """

    def __init__(
        self,
        maximum: int,
        *,
        public: int = PUBLIC_REQUESTS,
        guarded: tuple[str, ...] = GUARDED_PATHS,
        exempt: str = "/health/",
        lateness: Lateness | None = None,
        is_known: Callable[[str], bool] = lambda authorization: False,
        on_refused: Callable[[str], None] = lambda cause: None,
    ) -> None:
        self._lateness = lateness or Lateness()
        self._is_known = is_known
        self._on_refused = on_refused
        self._maximum = {_Group.AUTHENTICATED: maximum, _Group.UNKNOWN: maximum, _Group.PUBLIC: public}
        self._serving = dict.fromkeys(_Group, 0)
        self._guarded = guarded
        self._exempt = exempt

    @property
    def serving(self) -> int:
        """How many requests are being served."""
        return sum(self._serving.values())

    def __call__(self, application: Application) -> Application:
        """The middleware that counts. A request whose client left is subtracted: it stands around the application."""

        async def counted(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] != "http" or scope["path"].startswith(self._exempt):
                return await application(scope, receive, send)
            group = _Group.UNKNOWN if scope["path"].startswith(self._guarded) else _Group.PUBLIC
            if self._is_full(group):
                return await self._refused("places", application, scope, receive, send)

            def is_known() -> bool:
                return group is _Group.UNKNOWN and self._is_known(_bearer_token(scope))

            # `admit` would find that out, too, but only when most of the work is done.
            if self._is_full(_Group.AUTHENTICATED) and is_known():
                return await self._refused("places", application, scope, receive, send)
            strangers = self._serving[_Group.UNKNOWN] + self._serving[_Group.PUBLIC]
            if not self._lateness.admits(is_known, strangers=strangers):
                return await self._refused("lateness", application, scope, receive, send)
            place = _Place(group)
            self._serving[group] += 1
            try:
                return await application({**scope, _PLACE: place}, receive, send)
            finally:
                self._serving[place.group] -= 1

        return counted

    async def refuse(self) -> None:
        """To be called before each request is served. Raises `TooBusy`."""
        if request.scope.get(_EXCESSIVE):
            raise TooBusy

    def admit(self) -> None:
        """Count the request that is being served as an authenticated caller's from now on. Raises `TooBusy`."""
        place: _Place | None = cast(Any, request.scope).get(_PLACE)
        if place is None or place.group is _Group.AUTHENTICATED:
            return
        if self._is_full(_Group.AUTHENTICATED):
            self._on_refused("places")
            raise TooBusy
        self._serving[place.group] -= 1
        place.group = _Group.AUTHENTICATED
        self._serving[place.group] += 1

    def _is_full(self, group: "_Group") -> bool:
        return self._serving[group] >= self._maximum[group]

    async def _refused(self, cause: str, application: Application, scope: Any, receive: Any, send: Any) -> None:
        self._on_refused(cause)
        await application({**scope, _EXCESSIVE: True}, receive, send)


def refusing_early(answer: Callable[[str], tuple[list[tuple[bytes, bytes]], bytes]]) -> Middleware:
    """Answer 503 to requests beyond the limits, at a fraction of what that would cost the application.

    `answer` gives the headers and the body of it, for the request's id. Requests of browsers (`Origin`) are left to the
    application, because a page may only read an answer with the headers of CORS.

    At most `REFUSALS_EACH_TURN` are answered in one turn of the event loop, the others in later ones: refusing is work
    as well, and a flood of it must not make those wait who are served.
    """
    refusals = TurnLimit(REFUSALS_EACH_TURN)

    def around(application: Application) -> Application:
        async def refusing(scope: Any, receive: Any, send: Any) -> None:
            is_refused = _EXCESSIVE in scope
            if is_refused:
                await refusals.turn()
            if not is_refused or any(name == b"origin" for name, _ in scope["headers"]):
                await application(scope, receive, send)
                return
            request_id = request_id_of(scope["headers"])
            served = current_request()
            if served is not None:
                served.request_id, served.error = request_id, ErrorName.SERVICE_UNAVAILABLE
            headers, body = answer(request_id)
            headers = [*headers, (REQUEST_ID_HEADER.lower().encode(), request_id.encode())]
            status = ErrorName.SERVICE_UNAVAILABLE.status
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": body})

        return refusing

    return around


def _bearer_token(scope: Any) -> str:
    """The request's bearer token; empty without one."""
    for name, value in scope["headers"]:
        if name == b"authorization":
            return cast(bytes, value).partition(b" ")[2].decode("latin-1")
    return ""


class _Group(Enum):
    AUTHENTICATED = "authenticated"
    UNKNOWN = "unknown"
    PUBLIC = "public"


@dataclass(slots=True)
class _Place:
    group: _Group


_EXCESSIVE = "acs_auth.excessive"
_PLACE = "acs_auth.place"
_ROUNDING = 1e-6  # seconds
