"""infra/entra/register.sh, with a stand-in for the Azure CLI that keeps registrations in a file."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.infra.bicep import ROOT
from tests.infra.contracts import PERMISSIONS

AZ = """
import json, os, re, sys
from pathlib import Path

path = Path(os.environ["REGISTRATIONS"])
state = json.loads(path.read_text()) if path.exists() else {"apps": {}, "principals": []}
given = {sys.argv[i].lstrip("-"): sys.argv[i + 1] for i in range(1, len(sys.argv) - 1) if sys.argv[i].startswith("--")}
match [word for word in sys.argv[1:5] if not word.startswith("-")]:
    case ["ad", "app", "list", *_]:
        name = re.fullmatch("displayName eq '(.*)'", given["filter"])[1]
        print(*[id for id, app in state["apps"].items() if app["displayName"] == name], sep="\\n")
    case ["ad", "app", "create", *_]:
        id = f"{len(state['apps']):08}-0000-0000-0000-000000000000"
        state["apps"][id] = {"displayName": given["display-name"], "api": {}, "credentials": []}
        print(id)
    case ["ad", "app", "show", *_]:
        scopes = state["apps"][given["id"]]["api"].get("oauth2PermissionScopes", [])
        print(*[scope["id"] for scope in scopes], sep="\\n")
    case ["ad", "sp", "show", *_]:
        sys.exit(given["id"] not in state["principals"])
    case ["ad", "sp", "create", *_]:
        state["principals"].append(given["id"])
    case ["rest", *_]:
        app = state["apps"][re.search(r"appId='(.*)'", given["uri"])[1]]
        for name, value in json.loads(given["body"]).items():
            app[name] = {**app.get(name, {}), **value} if isinstance(value, dict) else value
    case ["account", "show", *_]:
        print("11112222-bbbb-3333-cccc-4444dddd5555")
    case ["cloud", "show", *_]:
        print("https://login.microsoftonline.com")
    case ["ad", "app", "federated-credential", "list"]:
        print(*[each["subject"] for each in state["apps"][given["id"]]["credentials"]], sep="\\n")
    case ["ad", "app", "federated-credential", "create"]:
        state["apps"][given["id"]]["credentials"].append(json.loads(given["parameters"]))
    case unknown:
        sys.exit(f"unknown: {unknown}")
path.write_text(json.dumps(state))
"""
SERVICE, PRINCIPAL = "https://ca-api.example.com", "99998888-aaaa-7777-bbbb-6666cccc5555"


class Tenant:
    """What the script is run against, and what it left."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        az = directory / "az"
        az.write_text(f"#!{sys.executable} -IS\n{AZ}")
        az.chmod(0o755)

    def register(self, *arguments: str, **environment: str) -> tuple[int, dict[str, str]]:
        """The exit status and what was printed, by name."""
        path = f"{self._directory}{os.pathsep}{os.environ['PATH']}"
        state = str(self._directory / "state.json")
        done = subprocess.run(
            [ROOT / "infra/entra/register.sh", *arguments],
            env={"PATH": path, "REGISTRATIONS": state, **environment},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return done.returncode, dict(line.split("=") for line in done.stdout.splitlines())

    def apps(self) -> dict[str, dict[str, Any]]:
        """The registrations by their client ids."""
        apps: dict[str, dict[str, Any]] = json.loads((self._directory / "state.json").read_text())["apps"]
        return apps


@pytest.fixture
def tenant(tmp_path: Path) -> Tenant:
    return Tenant(tmp_path)


def test_both_registrations_are_made_and_know_each_other(tenant: Tenant) -> None:
    status, ids = tenant.register()
    api, browser = tenant.apps()[ids["API_CLIENT_ID"]], tenant.apps()[ids["BROWSER_CLIENT_ID"]]
    (scope,) = api["api"]["oauth2PermissionScopes"]
    assert status == 0
    assert scope["value"] == "access_as_user"
    assert api["identifierUris"] == [f"api://{ids['API_CLIENT_ID']}"]
    assert api["api"]["requestedAccessTokenVersion"] == 2
    assert api["api"]["preAuthorizedApplications"] == [
        {"appId": ids["BROWSER_CLIENT_ID"], "delegatedPermissionIds": [scope["id"]]}
    ]
    assert "requiredResourceAccess" not in api
    assert browser["spa"] == {"redirectUris": ["http://localhost:3000/"]}
    asked = {each["id"] for resource in browser["requiredResourceAccess"] for each in resource["resourceAccess"]}
    assert asked == {scope["id"], PERMISSIONS["teamsManageCalls"], PERMISSIONS["teamsManageChats"]}


def test_a_second_run_keeps_what_there_is_and_adds_what_needs_the_service(tenant: Tenant) -> None:
    _, first = tenant.register()
    before = tenant.apps()
    _, second = tenant.register("acs-auth", SERVICE, PRINCIPAL)
    after = tenant.apps()
    api, browser = after[first["API_CLIENT_ID"]], after[first["BROWSER_CLIENT_ID"]]
    assert second == first
    assert api["api"] == before[first["API_CLIENT_ID"]]["api"]
    assert browser["spa"]["redirectUris"] == ["http://localhost:3000/", f"{SERVICE}/docs/oauth2-redirect.html"]
    assert api["credentials"] == [
        {
            "name": "managed-identity",
            "issuer": "https://login.microsoftonline.com/11112222-bbbb-3333-cccc-4444dddd5555/v2.0",
            "subject": PRINCIPAL,
            "audiences": ["api://AzureADTokenExchange"],
        }
    ]


def test_the_credential_of_another_identity_is_not_overwritten(tenant: Tenant) -> None:
    assert tenant.register("acs-auth", SERVICE, PRINCIPAL)[0] == 0
    assert tenant.register("acs-auth", SERVICE, "another")[0] == 1


def test_the_graph_store_needs_one_permission_more(tenant: Tenant) -> None:
    _, ids = tenant.register(GRAPH_STORE="true")
    (resource,) = tenant.apps()[ids["API_CLIENT_ID"]]["requiredResourceAccess"]
    assert [each["id"] for each in resource["resourceAccess"]] == [PERMISSIONS["userReadWrite"]]
