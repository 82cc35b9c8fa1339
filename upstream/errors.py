"""What can be said of a failed call without knowing whose service it was.

Every upstream has errors of its own. Those that pass by themselves also derive from `Throttled` or `Unavailable`, so
that what is transient is decided here, once.
"""

from typing import ClassVar


class UpstreamError(Exception):
    """A call to an upstream did not bring what was asked for. Messages hold no id, secret or upstream text.

    upstream  names the upstream in metrics and logs
    outcome   says in metrics how the call ended: `throttled`, `unavailable`, `refused` (an orderly answer about this
              user, such as a conflict or a claims challenge), or `error` (a refused credential, a wrong set-up, a bug)
    """

    upstream: ClassVar[str] = "unknown"
    outcome: ClassVar[str] = "error"


class Throttled(UpstreamError):
    """The upstream is too busy and did nothing. `retry_after` is in seconds, `None` when it did not say."""

    outcome: ClassVar[str] = "throttled"

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Unavailable(UpstreamError):
    """The upstream could not be reached, failed or did not answer in time: whether it did anything is unknown.

    `retry_after` is in seconds, `None` when it did not say.
    """

    outcome: ClassVar[str] = "unavailable"

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


def is_transient(error: BaseException) -> bool:
    """Whether the same call may succeed a little later."""
    return isinstance(error, Throttled | Unavailable)
