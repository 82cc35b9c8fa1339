"""Who may do what: account keys (HMAC) and Entra ID tokens, refused the way Cosmos DB refuses them."""

import base64
import binascii
import hmac
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Any
from urllib.parse import unquote, urlsplit

from local_azure.clock import Clock
from local_azure.cosmos.errors import CosmosError

MAXIMUM_SKEW = 15 * 60.0
"""Seconds that `x-ms-date` may be away from the server's clock."""

AAD_REQUEST_NOT_AUTHORIZED = 5300
PRINCIPAL_WITHOUT_ROLE = 5301


@dataclass(frozen=True, slots=True)
class Principal:
    """The caller: `None` as object id means that the account key was used."""

    object_id: str | None


class Authorization:
    """Checks the `authorization` header.

    Sources: learn.microsoft.com/rest/api/cosmos-db/access-control-on-cosmosdb-resources for the key's signature;
    learn.microsoft.com/azure/cosmos-db/nosql/how-to-grant-data-plane-access for what Entra ID tokens may do.
    """

    def __init__(self, key: str, url: str, *, clock: Clock, verify: Callable[[str], dict[str, Any] | None]) -> None:
        self._key = base64.b64decode(key)
        self._clock = clock
        self._verify = verify
        host = urlsplit(url).hostname or ""
        self._account = host.partition(".")[0]
        self._audiences = {f"https://{host}", "https://cosmos.azure.com"}
        self.without_role: set[str] = set()

    def check(self, method: str, path: str, authorization: str | None, date: str | None) -> Principal:
        """Answer who is calling.

        `path` is the decoded path of the request. Raises `CosmosError` with status 401 or 403.
        """
        if not authorization:
            raise CosmosError(
                401,
                "Unauthorized",
                "Required Header authorization is missing. Ensure a valid Authorization token is passed.",
            )
        kind, signature = _split(authorization)
        if kind == "master":
            self._check_key(method, path, signature, date)
            return Principal(None)
        if kind == "aad":
            return self._check_token(signature)
        raise _malformed()

    def require_control_plane(self, principal: Principal, method: str, path: str) -> None:
        """Databases and containers are made with the key or by the resource provider, never with a token."""
        if principal.object_id is not None:
            raise CosmosError(
                403,
                "Forbidden",
                f"Request blocked by Auth {self._account} : The given request [{method} {path}] cannot be authorized "
                "by AAD token in data plane. Learn more: https://aka.ms/cosmos-native-rbac.",
                AAD_REQUEST_NOT_AUTHORIZED,
            )

    def _check_key(self, method: str, path: str, signature: str, date: str | None) -> None:
        segments = [segment for segment in path.split("/") if segment]
        if len(segments) % 2:
            kind, link = segments[-1], "/".join(segments[:-1])
        else:
            kind, link = (segments[-2] if segments else ""), "/".join(segments)
        text = f"{method.lower()}\n{kind.lower()}\n{link}\n{(date or '').lower()}\n\n"
        expected = hmac.digest(self._key, text.encode(), "sha256")
        try:
            given = base64.b64decode(signature, validate=True)
        except (binascii.Error, ValueError) as error:
            raise _malformed() from error
        if not hmac.compare_digest(given, expected):
            payload = text.replace("\n", "\\n")
            raise CosmosError(
                401,
                "Unauthorized",
                "The input authorization token can't serve the request. Please check that the expected payload is "
                "built as per the protocol, and check the key being used. Server used the following payload to sign: "
                f"'{payload}'",
            )
        if date is None or abs(_timestamp(date) - self._clock()) > MAXIMUM_SKEW:
            raise CosmosError(
                403,
                "Forbidden",
                "The authorization token is not valid at the current time. Please create another token and retry.",
            )

    def _check_token(self, token: str) -> Principal:
        claims = self._verify(token)
        if claims is None or str(claims.get("aud", "")).rstrip("/") not in self._audiences:
            raise CosmosError(
                401,
                "Unauthorized",
                "The input authorization token can't serve the request: the AAD token is not valid.",
            )
        object_id = str(claims.get("oid") or claims.get("sub") or "")
        if object_id in self.without_role:
            raise CosmosError(
                403,
                "Forbidden",
                f"Request blocked by Auth {self._account} : Request is blocked because principal [{object_id}] does "
                "not have required RBAC permissions to perform action "
                "[Microsoft.DocumentDB/databaseAccounts/readMetadata] on resource [/]. "
                "Learn more: https://aka.ms/cosmos-native-rbac.",
                PRINCIPAL_WITHOUT_ROLE,
            )
        return Principal(object_id)


def _split(authorization: str) -> tuple[str, str]:
    # A key's header arrives percent-encoded, a token's does not.
    parts = dict(part.partition("=")[::2] for part in unquote(authorization).split("&", 2))
    if parts.get("ver") != "1.0" or not parts.get("sig"):
        raise _malformed()
    return parts.get("type", ""), parts["sig"]


def _malformed() -> CosmosError:
    return CosmosError(401, "Unauthorized", "The format of the authorization token is not valid.")


@lru_cache(maxsize=16)
def _timestamp(date: str) -> float:
    try:
        return parsedate_to_datetime(date).timestamp()
    except ValueError:
        return 0.0
