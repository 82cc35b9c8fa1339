"""What can be said of a failed call without knowing whose service it was.

Every upstream has its own errors. Those that pass on their own also derive from `Throttled` or `Unavailable`, so
what is transient is decided here, once.
"""

import re
from dataclasses import dataclass
from typing import ClassVar, Self


@dataclass(frozen=True, slots=True)
class Cause:
    """What an operator needs to know of a refused call. It holds no body, no secret and nothing about a user.

    status          the HTTP status, `None` when there was no answer
    code            the upstream's own code (`AADSTS65001`, `403/5301`), or what happened instead of an answer: the
                    class of an SDK's exception
    correlation_id  by which the upstream's support finds the request
    advice          what the operator can do
    """

    status: int | None = None
    code: str | None = None
    correlation_id: str | None = None
    advice: str | None = None


class UpstreamError(Exception):
    """A call to an upstream did not bring what was asked for. Messages hold no id, secret or upstream text.

    upstream    names the upstream in metrics and logs
    outcome     says in metrics how the call ended: `throttled`, `unavailable`, `refused` (an orderly answer about this
                user, such as a conflict or a claims challenge), or `error` (a refused credential, a wrong set-up, a
                bug)
    repeatable  whether the same call may succeed a little later
    cause       what the upstream said, where it is worth telling: `upstream.calls` writes it to the log
    """

    upstream: ClassVar[str] = "unknown"
    outcome: ClassVar[str] = "error"
    repeatable: ClassVar[bool] = False
    cause: Cause | None = None

    def because(self, cause: Cause) -> Self:
        """This error, with what the upstream said."""
        self.cause = cause
        return self


class Throttled(UpstreamError):
    """The upstream is too busy and did nothing. `retry_after` is in seconds, `None` when it did not say."""

    outcome: ClassVar[str] = "throttled"
    repeatable: ClassVar[bool] = True

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Unavailable(UpstreamError):
    """The upstream could not be reached, failed or did not answer in time: whether it did anything is unknown.

    `retry_after` is in seconds, `None` when it did not say.
    """

    outcome: ClassVar[str] = "unavailable"
    repeatable: ClassVar[bool] = True

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


def is_transient(error: BaseException) -> bool:
    """Whether the same call may succeed a little later."""
    return isinstance(error, UpstreamError) and error.repeatable


def told(error: BaseException) -> str:
    """What happened and what to do, in sentences for an operator.

    Of an error that is not of our own making only the class: what a library writes may hold anything.
    """
    if not isinstance(error, UpstreamError):
        return f"{type(error).__name__}."
    sentences = [str(error) or f"{type(error).__name__}.", *getattr(error, "__notes__", ())]
    advice = error.cause.advice if error.cause is not None else None
    if advice and not any(advice in sentence for sentence in sentences):
        sentences.append(advice)
    return " ".join(sentences)


def plain(value: object) -> str | None:
    """A code or a correlation id of an upstream as it may be logged; `None` for anything but a short plain word."""
    return value if isinstance(value, str) and _PLAIN.fullmatch(value) else None


_PLAIN = re.compile(r"[A-Za-z0-9_.:/+=-]{1,100}")
