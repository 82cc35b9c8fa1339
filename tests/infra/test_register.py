"""infra/entra/register.py, run with a stand-in for the Azure CLI that keeps a tenant in a file.

The stand-in refuses what the real one refuses: bodies that are no JSON, ids that nobody has, the removal of a scope,
and for a while whatever concerns an application that was just made.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from infra.entra import register as script
from infra.entra.register import GraphError, Refused, Tenant, Wanted, register
from quart_app.settings import load_settings, variable_names
from tests.infra.bicep import ROOT
from tests.infra.contracts import PERMISSIONS
from tests.infra.directory import Directory

TENANT = "11112222-bbbb-3333-cccc-4444dddd5555"
SERVICE, PRINCIPAL = "https://ca-api.example.com", "99998888-aaaa-7777-bbbb-6666cccc5555"
API = "55556666-ffff-7777-aaaa-8888bbbb9999"
IN_TENANT = Tenant(TENANT, "https://login.microsoftonline.com", "api://AzureADTokenExchange")

AZ = """
import json, os, sys
from pathlib import Path
from directory import Directory  # not as tests.infra.directory, which takes pytest along, each time

path = Path(os.environ["DIRECTORY"])
arguments = sys.argv[1:]
given = {arguments[i]: arguments[i + 1] for i in range(len(arguments) - 1) if arguments[i].startswith("--")}
match arguments[:2]:
    case ["account", "show"]:
        print(json.dumps({"tenantId": os.environ["TENANT"]}), end="\\r\\n")
    case ["cloud", "show"]:
        print(json.dumps({"name": "AzureCloud", "endpoints": {
            "activeDirectory": "https://login.microsoftonline.com",
            "microsoftGraphResourceId": "https://graph.microsoft.com/"}}), end="\\r\\n")
    case ["rest", _]:
        directory = Directory.read(path)
        body = json.loads(Path(given["--body"][1:]).read_text()) if "--body" in given else None
        address = "https://graph.microsoft.com/v1.0"
        assert given["--uri"].startswith(address), given["--uri"]
        status, answer = directory.answer(given["--method"], given["--uri"].removeprefix(address), body)
        directory.write(path)
        if status >= 400:
            sys.exit(f'Bad Request({json.dumps({"error": answer})})')
        if answer:
            print(json.dumps(answer), end="\\r\\n")
    case unknown:
        sys.exit(f"unknown: {unknown}")
"""


class Registrar:
    """Somebody who runs the function on a directory, without waiting."""

    def __init__(self) -> None:
        self.directory = Directory()
        self.slept = 0

    def graph(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        status, answer = self.directory.answer(method, path, json.loads(json.dumps(body)))
        if status >= 400:
            raise GraphError(answer["code"], answer["message"])
        return answer

    def register(self, name: str = "acs-auth", **given: Any) -> dict[str, str]:
        """What was told, by name."""
        told: list[str] = []
        wanted = {
            "service_uri": "",
            "principal_id": "",
            "graph_store": False,
            "redirect_uris": ("http://localhost:3000/",),
        }
        try:
            register(Wanted(name, **{**wanted, **given}), IN_TENANT, self.graph, self._sleep, told.append)
        finally:
            self.told = dict(line.split("=") for line in told)
        return self.told

    def app(self, name: str) -> dict[str, Any]:
        """The registration whose id was told under this name."""
        return self.directory.applications[self.told[name]]

    def _sleep(self, _: float) -> None:
        self.slept += 1


@pytest.fixture
def registrar() -> Registrar:
    return Registrar()


def test_both_registrations_are_made_and_know_each_other(registrar: Registrar) -> None:
    ids = registrar.register()
    api, browser = registrar.app("API_CLIENT_ID"), registrar.app("BROWSER_CLIENT_ID")
    (scope,) = api["api"]["oauth2PermissionScopes"]
    assert scope["value"] == "access_as_user"
    assert api["identifierUris"] == [f"api://{ids['API_CLIENT_ID']}"]
    assert api["api"]["requestedAccessTokenVersion"] == 2
    assert api["optionalClaims"]["accessToken"] == [{"name": "xms_cc"}]
    assert api["api"]["preAuthorizedApplications"] == [
        {"appId": ids["BROWSER_CLIENT_ID"], "delegatedPermissionIds": [scope["id"]]}
    ]
    assert "requiredResourceAccess" not in api
    assert browser["spa"]["redirectUris"] == ["http://localhost:3000/"]
    assert browser["publicClient"]["redirectUris"] == ["http://localhost"]
    asked = {each["id"] for resource in browser["requiredResourceAccess"] for each in resource["resourceAccess"]}
    assert asked == {scope["id"], PERMISSIONS["teamsManageCalls"], PERMISSIONS["teamsManageChats"]}
    assert registrar.directory.principals == {*ids.values(), script.ACS_APPLICATION}


def test_a_second_run_changes_nothing(registrar: Registrar) -> None:
    first = registrar.register(service_uri=SERVICE, principal_id=PRINCIPAL, graph_store=True)
    before, registrar.directory.requests = json.dumps(registrar.directory.applications), []
    assert registrar.register(service_uri=SERVICE, principal_id=PRINCIPAL, graph_store=True) == first
    assert json.dumps(registrar.directory.applications) == before
    assert {method for method, _ in registrar.directory.requests} == {"GET"}


def test_what_somebody_added_by_hand_stays(registrar: Registrar) -> None:
    registrar.register(redirect_uris=("https://a/",))
    api, browser = registrar.app("API_CLIENT_ID"), registrar.app("BROWSER_CLIENT_ID")
    browser["spa"]["redirectUris"].append("https://by-hand/")
    api["api"]["preAuthorizedApplications"].append({"appId": "another-client", "delegatedPermissionIds": ["x"]})
    api["api"]["oauth2PermissionScopes"].append({"id": "s", "value": "more"})
    api["optionalClaims"]["accessToken"].append({"name": "acct"})
    api["optionalClaims"]["idToken"] = [{"name": "email"}]
    api["requiredResourceAccess"] = [{"resourceAppId": "other", "resourceAccess": [{"id": "p", "type": "Role"}]}]
    registrar.register(service_uri=SERVICE, principal_id=PRINCIPAL)
    registrar.register(graph_store=True)
    api, browser = registrar.app("API_CLIENT_ID"), registrar.app("BROWSER_CLIENT_ID")
    assert browser["spa"]["redirectUris"] == [
        "https://a/",
        "https://by-hand/",
        "http://localhost:3000/",
        f"{SERVICE}/docs/oauth2-redirect.html",
    ]
    assert "another-client" in [each["appId"] for each in api["api"]["preAuthorizedApplications"]]
    assert [each["value"] for each in api["api"]["oauth2PermissionScopes"]] == ["access_as_user", "more"]
    assert api["optionalClaims"] == {
        "accessToken": [{"name": "xms_cc"}, {"name": "acct"}],
        "idToken": [{"name": "email"}],
    }
    assert [each["resourceAppId"] for each in api["requiredResourceAccess"]] == ["other", script.GRAPH_APPLICATION]
    assert len(api["credentials"]) == 1


@pytest.mark.parametrize("console", [True, False])
def test_the_console_of_the_service_may_sign_in_where_that_is_wanted(console: bool, registrar: Registrar) -> None:
    registrar.register(service_uri=SERVICE, console=console)
    assert (f"{SERVICE}/" in registrar.app("BROWSER_CLIENT_ID")["spa"]["redirectUris"]) is console


def test_the_scope_for_colleagues_identities_is_added_on_request_and_given_to_no_client(registrar: Registrar) -> None:
    registrar.register()
    registrar.register(resolve_scope="resolve_users")
    registrar.register(resolve_scope="resolve_users")
    api, browser = registrar.app("API_CLIENT_ID"), registrar.app("BROWSER_CLIENT_ID")
    usual, besides = api["api"]["oauth2PermissionScopes"]
    assert (usual["value"], besides["value"]) == ("access_as_user", "resolve_users")
    assert besides["type"] == "Admin"
    assert [each["delegatedPermissionIds"] for each in api["api"]["preAuthorizedApplications"]] == [[usual["id"]]]
    assert besides["id"] not in json.dumps(browser)


@pytest.mark.parametrize("missing", ["identifierUris", "optionalClaims", "requestedAccessTokenVersion"])
def test_each_property_is_mended_by_itself(missing: str, registrar: Registrar) -> None:
    ids = registrar.register()
    app = registrar.app("API_CLIENT_ID")
    right = json.dumps(app, sort_keys=True)
    (app["api"] if missing in app["api"] else app).pop(missing)
    registrar.register()
    assert json.dumps(registrar.directory.applications[ids["API_CLIENT_ID"]], sort_keys=True) == right


def test_the_managed_identity_signs_in_as_the_api(registrar: Registrar) -> None:
    registrar.register(principal_id=PRINCIPAL)
    assert registrar.app("API_CLIENT_ID")["credentials"] == [
        {
            "name": "managed-identity",
            "issuer": f"https://login.microsoftonline.com/{TENANT}/v2.0",
            "subject": PRINCIPAL,
            "audiences": ["api://AzureADTokenExchange"],
        }
    ]


def test_the_credential_of_another_identity_is_not_overwritten(registrar: Registrar) -> None:
    registrar.register(principal_id=PRINCIPAL)
    with pytest.raises(Refused, match="another identity's"):
        registrar.register(principal_id="another")


def test_a_new_application_may_be_unknown_for_a_while(registrar: Registrar) -> None:
    registrar.directory.lag = 5
    registrar.register()
    assert 0 < registrar.slept < 30


def test_ids_are_told_even_if_the_rest_fails(registrar: Registrar) -> None:
    registrar.directory.forbidden = "PATCH"
    with pytest.raises(GraphError, match="Insufficient privileges"):
        registrar.register()
    assert registrar.told.keys() == {"API_CLIENT_ID", "BROWSER_CLIENT_ID"}


def test_who_may_not_add_acs_own_application_gets_all_the_rest(
    registrar: Registrar, capsys: pytest.CaptureFixture[str]
) -> None:
    registrar.directory.forbidden = script.ACS_APPLICATION
    registrar.register(principal_id=PRINCIPAL)
    assert registrar.app("API_CLIENT_ID")["credentials"]
    assert f"az ad sp create --id {script.ACS_APPLICATION}" in capsys.readouterr().err


def test_a_name_may_have_a_quote_and_must_be_one_applications(registrar: Registrar) -> None:
    first = registrar.register("Ann's")
    assert registrar.register("Ann's") == first
    registrar.directory.answer("POST", "/applications", {"displayName": "Ann's-api"})
    with pytest.raises(Refused, match="Several registrations are called Ann's-api"):
        registrar.register("Ann's")


class TestCommandLine:
    """The script as a process, with a stand-in for az that ends lines as on Windows."""

    @pytest.fixture(autouse=True)
    def _az(self, tmp_path: Path) -> None:
        self.directory = tmp_path
        az = tmp_path / "az"
        az.write_text(f"#!{sys.executable} -IS\nimport sys\nsys.path.insert(0, {str(ROOT / 'tests/infra')!r})\n{AZ}")
        az.chmod(0o755)

    def run(self, *arguments: str) -> tuple[int, str, str]:
        """Exit status, output, and what was said beside it."""
        done = subprocess.run(
            [sys.executable, ROOT / "infra/entra/register.py", *arguments],
            env={
                "PATH": f"{self.directory}{os.pathsep}{os.environ['PATH']}",
                "DIRECTORY": str(self.directory / "directory.json"),
                "TENANT": TENANT,
            },
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr

    def test_it_prints_ids_for_the_azd_environment_and_the_tenant_beside(self) -> None:
        status, output, said = self.run("my-auth", "--service-uri", f"{SERVICE}/", "--principal-id", PRINCIPAL)
        made = Directory.read(self.directory / "directory.json").applications
        assert status == 0
        assert output.splitlines() == [
            f"{name}={client}" for name, client in zip(("API_CLIENT_ID", "BROWSER_CLIENT_ID"), made, strict=True)
        ]
        assert f"Tenant {TENANT}" in said
        assert [each["displayName"] for each in made.values()] == ["my-auth-api", "my-auth-browser"]

    def test_another_tenant_is_told(self) -> None:
        status, output, said = self.run("--tenant", "other")
        assert (status, output) == (1, "")
        assert f"You are signed in to the tenant {TENANT}: az login --tenant other" in said

    def test_settings_that_are_there_already_are_never_written_over(self) -> None:
        env = self.directory / "local.env"
        env.write_text("mine")
        status, output, said = self.run("--env", str(env))
        assert (status, output, env.read_text()) == (1, "", "mine")
        assert "exists: move it away" in said


def test_the_settings_that_it_writes_lack_nothing_but_the_connection_string_and_only_their_owner_may_read_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = tmp_path / ".env"
    ids = {"API_CLIENT_ID": API, "BROWSER_CLIENT_ID": PRINCIPAL}
    script._write_settings(env, IN_TENANT, ids, "resolve_users", console=True)
    assert env.stat().st_mode & 0o777 == 0o600
    connection = "ACS_CONNECTION_STRING=endpoint=https://x.communication.azure.com/;accesskey=a2V5"
    env.write_text(env.read_text().replace("ACS_CONNECTION_STRING=", connection))
    for name in variable_names():
        monkeypatch.delenv(name, raising=False)
    settings = load_settings(env)
    assert (settings.entra.tenant_id, settings.entra.client_id) == (TENANT, API)
    assert settings.server.shows_console
    assert settings.entra.resolve_scope == "resolve_users"
