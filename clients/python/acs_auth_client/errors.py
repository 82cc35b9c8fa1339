"""What goes wrong, and whether it may pass by itself."""


class AcsAuthError(Exception):
    """Why there is no token.

    `error` is the service's stable name, or `unreachable`, `unexpected_answer`, `clock_wrong`, `sign_in_failed`,
    `entra_unavailable`, `closed`, `sign_out_not_offered`. `status` and `request_id` are those of the service's answer.
    """

    def __init__(self, message: str, error: str, status: int | None = None, request_id: str | None = None) -> None:
        super().__init__(message)
        self.error = error
        self.status = status
        self.request_id = request_id


class PassingTrouble(AcsAuthError):
    """A repeat may succeed, after `pause` seconds where the other side named them."""

    pause: float | None = None
