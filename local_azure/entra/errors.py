"""Errors as Entra ID words them: AADSTS codes and the token endpoint's JSON body."""

import time
from typing import Any

from aiohttp import web


class EntraError(Exception):
    """A refused request. `error` is the OAuth 2.0 code (RFC 6749), `code` the AADSTS number.

    `claims` is the claims challenge, a JSON text. Codes: Microsoft Entra docs, "Microsoft Entra authentication and
    authorization error codes".
    """

    def __init__(
        self,
        code: int,
        error: str,
        message: str,
        *,
        suberror: str | None = None,
        claims: str | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.error = error
        self.message = message
        self.suberror = suberror
        self.claims = claims

    @property
    def status(self) -> int:
        """The HTTP status: 401 for a client that could not prove itself, otherwise 400 (RFC 6749, section 5.2)."""
        return 401 if self.error == "invalid_client" else 400

    def body(self, url: str, trace_id: str, correlation_id: str, now: float) -> dict[str, Any]:
        """The JSON body of the token endpoint's answer."""
        timestamp = time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(now))
        body: dict[str, Any] = {
            "error": self.error,
            "error_description": (
                f"{self}\r\nTrace ID: {trace_id}\r\nCorrelation ID: {correlation_id}\r\nTimestamp: {timestamp}"
            ),
            "error_codes": [self.code],
            "timestamp": timestamp,
            "trace_id": trace_id,
            "correlation_id": correlation_id,
            "error_uri": f"{url}/error?code={self.code}",
        }
        if self.suberror:
            body["suberror"] = self.suberror
        if self.claims:
            body["claims"] = self.claims
        return body

    def __str__(self) -> str:
        return f"AADSTS{self.code}: {self.message}"


def missing_parameter(name: str) -> EntraError:
    """A required request parameter is absent."""
    return EntraError(900144, "invalid_request", f"The request body must contain the following parameter: '{name}'.")


def unknown_tenant(name: str) -> EntraError:
    """The path names no tenant."""
    return EntraError(
        90002,
        "invalid_tenant",
        f"Tenant '{name}' not found. Check to make sure you have the correct tenant ID and are signing into the "
        "correct cloud.",
    )


def unknown_client(client_id: str) -> EntraError:
    """No app registration has this id."""
    return EntraError(
        700016, "unauthorized_client", f"Application with identifier '{client_id}' was not found in the directory."
    )


def no_endpoint(method: str, path: str, refused: web.HTTPException) -> EntraError:
    """There is nothing at this path (90023, inferred), or not for this method (900561)."""
    if refused.status == 405:
        accepted = refused.headers.get("Allow", "").replace(",", ", ")
        return EntraError(
            900561,
            "invalid_request",
            f"The endpoint only accepts {accepted} requests. Received a {method} request.",
        )
    return EntraError(90023, "invalid_request", f"There is no endpoint at '{path}'.")
