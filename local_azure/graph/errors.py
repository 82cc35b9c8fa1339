"""The error answers of Graph: `{"error": {"code", "message", "innerError"}}`, https://learn.microsoft.com/graph/errors."""


class Refusal(Exception):
    """An error answer: status, `code` and `message` of the body, more headers."""

    def __init__(self, status: int, code: str, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = headers or {}


def bad_request(message: str, *, code: str = "Request_BadRequest") -> Refusal:
    """400."""
    return Refusal(400, code, message)


def denied() -> Refusal:
    """403: the token lacks a permission, or may not touch this user."""
    return Refusal(403, "Authorization_RequestDenied", "Insufficient privileges to complete the operation.")


def extension_not_found() -> Refusal:
    """404 for an extension."""
    return Refusal(404, "ResourceNotFound", "Extension with given id not found.")


def invalid_token(message: str) -> Refusal:
    """401, with a challenge."""
    challenge = (
        'Bearer realm="", authorization_uri="https://login.microsoftonline.com/common/oauth2/authorize", '
        'client_id="00000003-0000-0000-c000-000000000000"'
    )
    return Refusal(401, "InvalidAuthenticationToken", message, {"WWW-Authenticate": challenge})


def resource_not_found(name: str) -> Refusal:
    """404 for a user or another object of the directory."""
    return Refusal(
        404,
        "Request_ResourceNotFound",
        f"Resource '{name}' does not exist or one of its queried reference-property objects are not present.",
    )
