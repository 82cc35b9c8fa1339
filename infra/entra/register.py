"""Makes the app registrations with the Azure CLI, where Bicep can't. Safe to repeat, in any shell.

az login --tenant TENANT --allow-no-subscriptions
python3 infra/entra/register.py                                       before the deployment: prints the client ids
python3 infra/entra/register.py --service-uri URI --principal-id ID   after it: adds what needs the service
python3 infra/entra/register.py --service-uri http://localhost:5000 --env .env     for a service on this machine
python3 infra/entra/register.py --resolve-scope resolve_users         adds the scope of ENTRA_RESOLVE_SCOPE

What is there stays: redirect addresses, permissions, clients and claims that somebody added are kept.
"""

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.parse
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

GRAPH_APPLICATION = "00000003-0000-0000-c000-000000000000"
USER_READ_WRITE = "b4e74841-8e56-480b-be8b-910348b18b4c"
ACS_APPLICATION = "1fd5118e-2576-4263-8130-9503064c837a"
TEAMS_MANAGE_CALLS = "de8ec1df-066a-4817-bc5d-9a985b986262"
TEAMS_MANAGE_CHATS = "6290af7f-b407-49f9-92d5-bf584fdc4019"
SCOPE = "access_as_user"
TOKEN_EXCHANGE = {
    "AzureCloud": "api://AzureADTokenExchange",
    "AzureUSGovernment": "api://AzureADTokenExchangeUSGov",
    "AzureChinaCloud": "api://AzureADTokenExchangeChina",
}
"""https://learn.microsoft.com/entra/workload-id/workload-identity-federation-config-app-trust-managed-identity"""
ATTEMPTS, WAIT_SECONDS = 30, 4
PASSING = {"Request_ResourceNotFound", "Directory_ConcurrencyViolation", "ResourceNotFound", "Directory_ObjectNotFound"}
"""Entra ID is eventually consistent: a new application is missing, or busy, for a while (azure-cli#1332)."""


class Refused(Exception):
    """The registration can't go on; the message is a whole sentence that says what to do."""


class GraphError(Exception):
    """Microsoft Graph refused a request; `code` is its error code."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Graph(Protocol):
    """Microsoft Graph, as the person who is signed in."""

    def __call__(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """The answer to a request. Raises `GraphError`."""


@dataclass(frozen=True, slots=True)
class Tenant:
    """Where the registrations are made."""

    id: str
    authority: str
    token_exchange: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the registrations are for."""

    name: str
    service_uri: str
    principal_id: str
    graph_store: bool
    redirect_uris: tuple[str, ...]
    resolve_scope: str = ""
    console: bool = False


def register(
    wanted: Wanted, tenant: Tenant, graph: Graph, sleep: Callable[[float], None], tell: Callable[[str], None]
) -> None:
    """Makes or completes both registrations; each id is told as soon as it exists. Raises `Refused` or `GraphError`."""
    api = _application(f"{wanted.name}-api", graph, sleep)
    tell(f"API_CLIENT_ID={api}")
    browser = _application(f"{wanted.name}-browser", graph, sleep)
    tell(f"BROWSER_CLIENT_ID={browser}")
    scope = _complete_api(api, browser, wanted, graph, sleep)
    _complete_browser(browser, api, scope, wanted, graph)
    for client in (api, browser):
        _principal(client, graph, sleep)
    if wanted.principal_id:
        _trust(api, wanted.principal_id, tenant, graph)
    # Last, because many may not do it, and all else works without.
    try:
        _principal(ACS_APPLICATION, graph, sleep)
    except GraphError as error:
        sys.stderr.write(
            f"ACS's own application could not be added to the tenant ({error.code}). "
            f"For Teams users an administrator must: az ad sp create --id {ACS_APPLICATION}\n"
        )


def _application(name: str, graph: Graph, sleep: Callable[[float], None]) -> str:
    """The client id of the registration with this display name, which is made if there is none."""
    found = _called(name, graph)
    if len(found) > 1:
        raise Refused(f"Several registrations are called {name}; choose another name.")
    if found:
        return found[0]
    made = str(graph("POST", "/applications", {"displayName": name, "signInAudience": "AzureADMyOrg"})["appId"])

    def known() -> None:
        """Until it is listed too, so that a second run soon after this one finds it."""
        graph("GET", _path(made))
        if not _called(name, graph):
            raise GraphError("ResourceNotFound", f"{name} is not listed yet.")

    _patiently(known, sleep)
    return made


def _called(name: str, graph: Graph) -> list[str]:
    """The client ids of the registrations with this display name."""
    literal = name.replace("'", "''")
    quoted = urllib.parse.quote(f"displayName eq '{literal}'")
    found = graph("GET", f"/applications?$filter={quoted}&$select=appId").get("value", [])
    return [str(each["appId"]) for each in found]


def _complete_api(api: str, browser: str, wanted: Wanted, graph: Graph, sleep: Callable[[float], None]) -> str:
    """Each property by itself, so that one that is right does not hide one that is missing. Returns the scope's id."""
    app = graph("GET", _path(api))
    if f"api://{api}" not in app.get("identifierUris", []):
        graph("PATCH", _path(api), {"identifierUris": [*app.get("identifierUris", []), f"api://{api}"]})
    claims = app.get("optionalClaims") or {}
    if not any(claim["name"] == "xms_cc" for claim in claims.get("accessToken") or []):
        # It tells whether the client can answer a claims challenge: without it every step-up is a 403.
        added = {**claims, "accessToken": [*(claims.get("accessToken") or []), {"name": "xms_cc"}]}
        graph("PATCH", _path(api), {"optionalClaims": added})
    settings = app.get("api") or {}
    if settings.get("requestedAccessTokenVersion") != 2:
        settings = {**settings, "requestedAccessTokenVersion": 2}
        graph("PATCH", _path(api), {"api": settings})
    settings, scope = _with_scope(api, settings, _usual(SCOPE), graph)
    if wanted.resolve_scope:
        settings, _ = _with_scope(api, settings, _for_colleagues(wanted.resolve_scope), graph)
    clients = settings.get("preAuthorizedApplications") or []
    none = {"appId": browser, "delegatedPermissionIds": []}
    ours = next((each for each in clients if each["appId"] == browser), none)
    if scope not in ours["delegatedPermissionIds"]:
        others = [each for each in clients if each["appId"] != browser]
        ours = {"appId": browser, "delegatedPermissionIds": [*ours["delegatedPermissionIds"], scope]}
        change = {"api": {**settings, "preAuthorizedApplications": [*others, ours]}}
        # A scope that was made a moment ago may not be known to every server yet.
        _patiently(lambda: graph("PATCH", _path(api), change), sleep)
    if wanted.graph_store:
        _ask_for(api, app, {GRAPH_APPLICATION: [USER_READ_WRITE]}, graph)
    return scope


def _with_scope(
    api: str, settings: dict[str, Any], scope: dict[str, object], graph: Graph
) -> tuple[dict[str, Any], str]:
    """What the API exposes, with this scope, which is added if there is none of that name; and the scope's id."""
    scopes = settings.get("oauth2PermissionScopes") or []
    known = next((str(each["id"]) for each in scopes if each["value"] == scope["value"]), "")
    if known:
        return settings, known
    made = str(uuid.uuid4())
    settings = {**settings, "oauth2PermissionScopes": [*scopes, {"id": made, **scope}]}
    graph("PATCH", _path(api), {"api": settings})
    return settings, made


def _complete_browser(browser: str, api: str, scope: str, wanted: Wanted, graph: Graph) -> None:
    app = graph("GET", _path(browser))
    places = ("/docs/oauth2-redirect.html", "/") if wanted.console else ("/docs/oauth2-redirect.html",)
    ours = tuple(f"{wanted.service_uri}{place}" for place in places) if wanted.service_uri else ()
    # The last is for `acs-auth token`.
    for platform, addresses in (("spa", (*wanted.redirect_uris, *ours)), ("publicClient", ("http://localhost",))):
        known = (app.get(platform) or {}).get("redirectUris") or []
        missing = [each for each in addresses if each not in known]
        if missing:
            graph(
                "PATCH", _path(browser), {platform: {**(app.get(platform) or {}), "redirectUris": [*known, *missing]}}
            )
    _ask_for(browser, app, {api: [scope], ACS_APPLICATION: [TEAMS_MANAGE_CALLS, TEAMS_MANAGE_CHATS]}, graph)


def _ask_for(client: str, app: dict[str, Any], permissions: dict[str, list[str]], graph: Graph) -> None:
    """Adds delegated permissions to those that are asked for already."""
    asked: list[dict[str, Any]] = [*(app.get("requiredResourceAccess") or [])]
    changed = False
    for resource, wanted in permissions.items():
        entry = next((each for each in asked if each["resourceAppId"] == resource), None)
        known = entry["resourceAccess"] if entry else []
        missing = [{"id": each, "type": "Scope"} for each in wanted if {"id": each, "type": "Scope"} not in known]
        if missing:
            asked = [each for each in asked if each is not entry]
            asked.append({"resourceAppId": resource, "resourceAccess": [*known, *missing]})
            changed = True
    if changed:
        graph("PATCH", _path(client), {"requiredResourceAccess": asked})


def _principal(client: str, graph: Graph, sleep: Callable[[float], None]) -> None:
    """The application's service principal in the tenant, which is made if there is none."""
    try:
        graph("GET", f"/servicePrincipals(appId='{client}')")
    except GraphError as error:
        if error.code not in PASSING:
            raise
        _patiently(lambda: graph("POST", "/servicePrincipals", {"appId": client}), sleep)


def _trust(api: str, principal: str, tenant: Tenant, graph: Graph) -> None:
    """In place of a client secret: the managed identity signs in as the API."""
    issuer = f"{tenant.authority.rstrip('/')}/{tenant.id}/v2.0"
    known = graph("GET", f"{_path(api)}/federatedIdentityCredentials").get("value", [])
    if any((each["issuer"], each["subject"]) == (issuer, principal) for each in known):
        return
    if any(each["name"] == "managed-identity" for each in known):
        raise Refused(
            f"The credential managed-identity of {api} is another identity's. If that one is gone: "
            f"az ad app federated-credential delete --id {api} --federated-credential-id managed-identity"
        )
    credential = {
        "name": "managed-identity",
        "issuer": issuer,
        "subject": principal,
        "audiences": [tenant.token_exchange],
    }
    graph("POST", f"{_path(api)}/federatedIdentityCredentials", credential)


def _usual(name: str) -> dict[str, object]:
    return {
        "value": name,
        "type": "User",
        "isEnabled": True,
        "adminConsentDisplayName": "Get ACS tokens for the signed-in user",
        "adminConsentDescription": "Lets the app get the signed-in user's own identity and access tokens of "
        "Azure Communication Services.",
        "userConsentDisplayName": "Get ACS tokens for you",
        "userConsentDescription": "Lets the app get your own identity and access tokens of "
        "Azure Communication Services.",
    }


def _for_colleagues(name: str) -> dict[str, object]:
    """Only an administrator may consent: who has it may ask about everybody in the tenant."""
    return {
        "value": name,
        "type": "Admin",
        "isEnabled": True,
        "adminConsentDisplayName": "Find the ACS identities of colleagues",
        "adminConsentDescription": "Lets the app find, for the signed-in user, the identities that users of the "
        "organization have in Azure Communication Services.",
    }


def _path(client: str) -> str:
    return f"/applications(appId='{client}')"


def _patiently(request: Callable[[], object], sleep: Callable[[float], None]) -> None:
    """Repeats what fails because Entra ID has not heard of a new application everywhere."""
    for attempt in range(ATTEMPTS):
        try:
            request()
        except GraphError as error:
            if error.code not in PASSING or attempt == ATTEMPTS - 1:
                raise
            sleep(WAIT_SECONDS)
        else:
            return


class AzGraph:
    """Microsoft Graph by `az rest`."""

    def __init__(self, address: str) -> None:
        self._address = address.rstrip("/")

    def __call__(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        arguments = ["rest", "--method", method, "--uri", f"{self._address}/v1.0{path}", "--output", "json"]
        with tempfile.TemporaryDirectory() as directory:
            if body is not None:
                # A file: no shell, and no version of az, has a say in its quotes.
                file = Path(directory, "body.json")
                file.write_text(json.dumps(body))
                arguments += ["--headers", "Content-Type=application/json", "--body", f"@{file}"]
            done = _az(*arguments)
        if done.returncode:
            code = re.search(r'"code":\s*"(\w+)"', done.stderr)
            raise GraphError(code[1] if code else "unknown", done.stderr.strip())
        answer: dict[str, Any] = json.loads(done.stdout or "{}")
        return answer


def _az(*arguments: str) -> subprocess.CompletedProcess[str]:
    az = shutil.which("az")
    if az is None:
        raise Refused("The Azure CLI (az) is not on the path.")
    command: Sequence[str] = (az, *arguments)
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)  # noqa: S603 (az itself)


def _asked(*arguments: str) -> dict[str, Any]:
    done = _az(*arguments, "--output", "json")
    if done.returncode:
        raise Refused(f"az {' '.join(arguments)} failed; sign in: az login --tenant TENANT --allow-no-subscriptions")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def _tenant(wanted: str) -> str:
    signed_in = str(_asked("account", "show")["tenantId"])
    if wanted and wanted.lower() != signed_in.lower():
        raise Refused(f"You are signed in to the tenant {signed_in}: az login --tenant {wanted}")
    return signed_in


def _parsed(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", default="acs-auth", help="goes before the display names (acs-auth)")
    parser.add_argument("--tenant", default="", help="refuse to work in any other tenant than this id")
    parser.add_argument("--service-uri", default="", help="SERVICE_API_URI of the deployment")
    parser.add_argument("--principal-id", default="", help="DEPLOYED_IDENTITY_PRINCIPAL_ID of the deployment")
    parser.add_argument("--graph-store", action="store_true", help="ask for what the graph store needs")
    parser.add_argument("--console", action="store_true", help="let the console at / of the service sign in, too")
    parser.add_argument(
        "--resolve-scope", default="", help="add the scope of ENTRA_RESOLVE_SCOPE, such as resolve_users"
    )
    parser.add_argument("--env", type=Path, help="write the service's settings to this new file, such as .env")
    parser.add_argument("--redirect-uri", action="append", default=[], help="where the browser client returns to")
    return parser.parse_args(arguments)


def _write_settings(
    path: Path, tenant: Tenant, ids: dict[str, str], resolve_scope: str, *, console: bool = False
) -> None:
    """A file of settings for a service on this machine, readable by its owner only. Raises `Refused`."""
    lines = [
        f"ENTRA_TENANT_ID={tenant.id}",
        f"ENTRA_CLIENT_ID={ids['API_CLIENT_ID']}",
        f"ENTRA_AUTHORITY_HOST={tenant.authority.rstrip('/')}",
        *([f"ENTRA_RESOLVE_SCOPE={resolve_scope}"] if resolve_scope else []),
        f"DOCS_CLIENT_ID={ids['BROWSER_CLIENT_ID']}",
        f"TEAMS_CLIENT_IDS={ids['BROWSER_CLIENT_ID']}",
        "CORS_ALLOWED_ORIGINS=http://localhost:3000",
        "STORAGE_BACKEND=sqlite",
        *(["CONSOLE=true"] if console else []),
        "# from the ACS resource: az communication list-key",
        "ACS_CONNECTION_STRING=",
    ]
    try:
        path.touch(mode=0o600, exist_ok=False)
        path.write_text("\n".join(lines) + "\n")
    except OSError as error:
        raise Refused(f"{path} can't be written ({error.strerror}).") from error
    sys.stderr.write(f"{path} is written; put ACS's connection string in.\n")


def main(arguments: Sequence[str]) -> None:
    """Registers as the command line says; ends the process with 1 and a sentence if that can't be done."""
    given = _parsed(arguments)
    if given.env and given.env.exists():
        sys.exit(f"{given.env} exists: move it away, or name another file.")
    wanted = Wanted(
        given.name,
        given.service_uri.rstrip("/"),
        given.principal_id,
        given.graph_store,
        tuple(given.redirect_uri) or ("http://localhost:3000/",),
        given.resolve_scope,
        given.console,
    )
    try:
        tenant_id = _tenant(given.tenant)
        sys.stderr.write(f"Tenant {tenant_id}\n")
        cloud = _asked("cloud", "show")
        tenant = Tenant(tenant_id, cloud["endpoints"]["activeDirectory"], TOKEN_EXCHANGE[cloud["name"]])
        graph = AzGraph(cloud["endpoints"]["microsoftGraphResourceId"])
        told: list[str] = []

        def tell(line: str) -> None:
            told.append(line)
            print(line, flush=True)  # noqa: T201 (its output)

        register(wanted, tenant, graph, time.sleep, tell)
        if given.env:
            ids = dict(line.split("=", 1) for line in told)
            _write_settings(given.env, tenant, ids, given.resolve_scope, console=given.console)
    except (Refused, GraphError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main(sys.argv[1:])
