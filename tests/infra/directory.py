"""A tenant's applications as Microsoft Graph shows them, with Graph's refusals."""

import json
import re
import urllib.parse
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

NOT_FOUND = (404, {"code": "Request_ResourceNotFound", "message": "Resource does not exist."})
FORBIDDEN = (403, {"code": "Authorization_RequestDenied", "message": "Insufficient privileges."})
INVALID = (400, {"code": "Request_BadRequest", "message": "A value has a wrong form."})


@dataclass
class Directory:
    """`lag`: how many requests pass until a new application is known. `forbidden`: a method or id that is refused."""

    applications: dict[str, dict[str, Any]] = field(default_factory=dict)
    principals: set[str] = field(default_factory=set)
    lag: int = 0
    forbidden: str = ""
    requests: list[tuple[str, str]] = field(default_factory=list)
    _unknown: dict[str, int] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> "Directory":
        """The directory that was written to this file; an empty one if there is none."""
        kept = json.loads(path.read_text()) if path.exists() else {"applications": {}, "principals": []}
        return cls(kept["applications"], set(kept["principals"]))

    def write(self, path: Path) -> None:
        """Keeps applications and service principals in a file."""
        path.write_text(json.dumps({"applications": self.applications, "principals": sorted(self.principals)}))

    def answer(self, method: str, path: str, body: dict[str, Any] | None) -> tuple[int, dict[str, Any]]:
        """Status and body."""
        self.requests.append((method, path))
        if self.forbidden and (method == self.forbidden or body == {"appId": self.forbidden}):
            return FORBIDDEN
        if path.startswith("/applications?"):
            name = re.fullmatch(r"displayName eq '(.*)'", self._filter(path))
            if not name or "'" in name[1].replace("''", ""):
                return INVALID
            wanted = name[1].replace("''", "'")
            return 200, {"value": [app for app in self._known() if app["displayName"] == wanted]}
        if (method, path) == ("POST", "/applications"):
            return self._make(body or {})
        if (method, path) == ("POST", "/servicePrincipals"):
            return self._make_principal(str((body or {})["appId"]))
        found = re.fullmatch(
            r"/(applications|servicePrincipals)\(appId='([\w-]+)'\)(/federatedIdentityCredentials)?", path
        )
        if not found:
            return INVALID
        kind, client, credentials = found.groups()
        if kind == "servicePrincipals":
            return (200, {"appId": client}) if client in self.principals else NOT_FOUND
        if client not in self.applications or self._is_unknown(client):
            return NOT_FOUND
        if credentials:
            return self._credentials(self.applications[client], method, body)
        return self._application(self.applications[client], method, body or {})

    def _make(self, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        client = f"{len(self.applications):08}-0000-0000-0000-000000000000"
        self.applications[client] = {"appId": client, **body, "api": {}, "credentials": []}
        self._unknown[client] = self.lag
        return 201, {"appId": client}

    def _make_principal(self, client: str) -> tuple[int, dict[str, Any]]:
        ours = client in self.applications
        if client in self.principals or (not ours and not client.startswith("1fd5118e")) or self._is_unknown(client):
            return NOT_FOUND if not ours or self._is_unknown(client) else INVALID
        self.principals.add(client)
        return 201, {"appId": client}

    def _application(self, app: dict[str, Any], method: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        if method == "GET":
            return 200, app
        scopes = {each["id"] for each in app["api"].get("oauth2PermissionScopes", [])}
        changed = body.get("api", {})
        kept = {each["id"] for each in changed.get("oauth2PermissionScopes", [{"id": each} for each in scopes])}
        if scopes - kept:  # a scope can't be removed while it is enabled
            return INVALID
        for client in changed.get("preAuthorizedApplications", []):
            if set(client["delegatedPermissionIds"]) - kept - {"x"}:
                return INVALID
        # Lists are replaced, as Graph does it.
        for name, value in body.items():
            app[name] = {**app.get(name, {}), **value} if name == "api" else value
        return 204, {}

    def _credentials(self, app: dict[str, Any], method: str, body: dict[str, Any] | None) -> tuple[int, dict[str, Any]]:
        if method == "GET":
            return 200, {"value": app["credentials"]}
        app["credentials"].append(body)
        return 201, {}

    def _known(self) -> list[dict[str, Any]]:
        return [app for client, app in self.applications.items() if not self._is_unknown(client)]

    def _is_unknown(self, client: str) -> bool:
        left = self._unknown.get(client, 0)
        self._unknown[client] = max(0, left - 1)
        return left > 0

    @staticmethod
    def _filter(path: str) -> str:
        return urllib.parse.parse_qs(path.partition("?")[2])["$filter"][0]
