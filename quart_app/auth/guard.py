"""The guard of every route: each is `authenticated` or explicitly `public`."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from functools import wraps
from typing import ParamSpec, TypeVar

from quart import Quart, Response, request

from quart_app.auth.access_tokens import AccessTokenValidator
from quart_app.auth.caller import Caller, acting_for
from quart_app.auth.refusals import InsufficientScope, MalformedCredentials, NoAccessToken
from quart_app.auth.step_up import step_up_for
from quart_app.settings import DoorName
from upstream.deadline import deadline

P = ParamSpec("P")
R = TypeVar("R")
ACCESS = "access"
_SCHEME = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+)(?: +(.*))?")  # RFC 9110, section 11.4
_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]+")  # RFC 6750, section 2.1


class Guard:
    """Authenticates callers and bounds each authenticated request by `deadline_seconds`.

    Each of `admission_checks` is called with the verified caller before the view is, and may raise to refuse.
    """

    def __init__(
        self,
        access_tokens: AccessTokenValidator,
        deadline_seconds: float,
        *admission_checks: Callable[[Caller], None],
    ) -> None:
        self._access_tokens = access_tokens
        self._deadline_seconds = deadline_seconds
        self._admission_checks = admission_checks

    def authenticated(self, view: Callable[[Caller], Awaitable[Response]]) -> Callable[[], Awaitable[Response]]:
        """Call `view` with the verified caller.

        Raises what `AccessTokenValidator.validate` and the admission checks raise, `StepUpRequired` and
        `StepUpNotPossible` for a claims challenge, and `TimeoutError` at the deadline.
        """

        @wraps(view)
        async def guarded() -> Response:
            with deadline(self._deadline_seconds):
                async with asyncio.timeout(self._deadline_seconds):
                    caller = await self._access_tokens.validate(_bearer_token())
                    for admit in self._admission_checks:
                        admit(caller)
                    with acting_for(caller), step_up_for(caller):
                        return await view(caller)

        setattr(guarded, ACCESS, "authenticated")
        return guarded

    def authenticated_with(
        self, scope: str, door: DoorName
    ) -> Callable[[Callable[[Caller], Awaitable[Response]]], Callable[[], Awaitable[Response]]]:
        """`authenticated`, for a view that also needs a token with `scope`, from a caller who came in by `door`.

        The other issuer's scope of the same name permits nothing. Also raises `InsufficientScope`.
        """

        def decorate(view: Callable[[Caller], Awaitable[Response]]) -> Callable[[], Awaitable[Response]]:
            @wraps(view)
            async def checked(caller: Caller) -> Response:
                if scope not in caller.scopes or caller.door is not door:
                    raise InsufficientScope(scope)
                return await view(caller)

            return self.authenticated(checked)

        return decorate


def public(view: Callable[P, R]) -> Callable[P, R]:
    """Mark a route that anybody may call."""
    setattr(view, ACCESS, "public")
    return view


def guarded_paths(app: Quart) -> frozenset[str]:
    """The paths of the routes that are `authenticated`."""
    views = app.view_functions
    return frozenset(
        rule.rule for rule in app.url_map.iter_rules() if getattr(views[rule.endpoint], ACCESS, "") == "authenticated"
    )


def _bearer_token() -> str:
    """Raises `NoAccessToken` for a request without bearer credentials, `MalformedCredentials` for malformed ones."""
    given = request.headers.getlist("Authorization")
    if not given:
        raise NoAccessToken
    credentials = _SCHEME.fullmatch(given[0]) if len(given) == 1 else None
    if credentials is None:
        raise MalformedCredentials
    if credentials[1].lower() != "bearer":
        raise NoAccessToken
    if not _TOKEN.fullmatch(credentials[2] or ""):
        raise MalformedCredentials
    return credentials[2]
