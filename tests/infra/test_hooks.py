"""What azd runs around its own steps: what is asked, what is found out, and what is refused."""

import io
import json
import os
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from infra.hooks import azd
from infra.hooks.azd import AzdAzure, AzdEnvironment, Refused
from infra.hooks.postdeploy import ATTEMPTS, Answer, smoke_test
from infra.hooks.postprovision import ACS_APPLICATION, postprovision
from infra.hooks.predeploy import predeploy
from infra.hooks.predown import predown
from infra.hooks.preprovision import ACS_DATA_LOCATIONS, FIXED, PROVIDERS, preprovision
from tests.infra.bicep import ROOT

SUBSCRIPTION = "11112222-bbbb-3333-cccc-4444dddd5555"
GROUP = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg-prod"
CHOSEN = {
    "AZURE_ENV_NAME": "prod",
    "AZURE_SUBSCRIPTION_ID": SUBSCRIPTION,
    "AZURE_LOCATION": "westeurope",
    "ACS_DATA_LOCATION": "Europe",
}
REMEMBERED = {
    "acs-auth-token": "abc",
    "acs-auth-storage-backend": "cosmos",
    "acs-auth-acs-data-location": "Europe",
    "acs-auth-existing-acs-resource-id": "",
    "acs-auth-cosmos-account-name": "",
    "acs-auth-cosmos-capacity": "serverless",
    "acs-auth-cosmos-location": "",
    "acs-auth-private-network": "false",
    "acs-auth-zone-redundant": "false",
}
OWNER = {"actions": ["*"], "notActions": []}
CONTRIBUTOR = {"actions": ["*"], "notActions": ["Microsoft.Authorization/*/Write"]}
ACCESS_ADMINISTRATOR = {"actions": ["Microsoft.Authorization/roleAssignments/write"], "notActions": []}


class Values:
    """An azd environment in memory."""

    def __init__(self, **values: str) -> None:
        self.values = {**CHOSEN, **values}

    def get(self, name: str) -> str:
        return self.values.get(name, "").strip()

    def set(self, name: str, value: str) -> None:
        self.values[name] = value


class Subscription:
    """A subscription: what stands at which path, without the query."""

    def __init__(self, permissions: list[dict[str, list[str]]] | None = None) -> None:
        self.paths: dict[str, dict[str, Any]] = {}
        self.lists: dict[str, list[dict[str, Any]]] = {
            f"/subscriptions/{SUBSCRIPTION}/providers/Microsoft.Authorization/permissions": [*(permissions or [OWNER])]
        }
        self.asked: list[str] = []
        self.may_register = True
        self.principals: set[str] = set()
        self.may_add = True
        self.consented: set[str] | None = None
        for each in PROVIDERS:
            self.paths[f"/subscriptions/{SUBSCRIPTION}/providers/{each}"] = {"registrationState": "Registered"}

    def get(self, path: str) -> dict[str, Any] | None:
        return self.paths.get(path.partition("?")[0])

    def items(self, path: str) -> list[dict[str, Any]]:
        return self.lists.get(path.partition("?")[0], [])

    def post(self, path: str) -> bool:
        self.asked.append(path.partition("?")[0])
        return self.may_register

    def principal(self, client_id: str) -> bool | None:
        return client_id in self.principals

    def add_principal(self, client_id: str) -> bool:
        self.principals |= {client_id} if self.may_add else set()
        return self.may_add

    def consents(self, client_id: str) -> set[str] | None:
        return self.consented

    def deployed(self, **tags: str) -> "Subscription":
        """The same after a deployment."""
        self.paths[GROUP] = {"name": "rg-prod", "tags": {**REMEMBERED, **tags}}
        return self

    def with_acs(self) -> "Subscription":
        """The same with an ACS resource in the group."""
        self.paths.setdefault(GROUP, {"name": "rg-prod", "tags": {}})
        self.lists[f"{GROUP}/resources"] = [{"name": "acs-old", "id": f"{GROUP}/acs-old"}]
        return self


class TestPreprovision:
    def test_the_first_deployment_may_begin(self) -> None:
        values = Values()
        preprovision(values, Subscription())
        assert values.get("RECOVER_KEY_VAULT") == "false"

    def test_a_later_one_may_too_however_values_are_written(self) -> None:
        values = Values(PRIVATE_NETWORK="0", ACS_DATA_LOCATION="europe", STORAGE_BACKEND="")
        preprovision(values, Subscription().deployed().with_acs())

    @pytest.mark.parametrize("exists", [True, False])
    def test_an_environment_that_was_just_made_knows_whether_the_app_exists(self, exists: bool) -> None:
        subscription = Subscription().deployed()
        if exists:
            subscription.paths[f"{GROUP}/providers/Microsoft.App/containerApps/ca-api-abc"] = {"name": "ca-api-abc"}
        values = Values(CONTAINER_IMAGE="ghcr.io/owner/repository:1")
        preprovision(values, subscription)
        assert values.get("SERVICE_API_RESOURCE_EXISTS") == str(exists).lower()
        assert "var name = 'ca-api-${checkedToken}'" in (ROOT / "infra/resources.bicep").read_text()

    def test_subscription_and_region_come_first(self) -> None:
        with pytest.raises(Refused, match="Choose a subscription and a region first"):
            preprovision(Values(AZURE_SUBSCRIPTION_ID=""), Subscription())

    def test_the_data_location_is_asked_for_and_kept(self, monkeypatch: pytest.MonkeyPatch) -> None:
        answer_with(monkeypatch, "united states\n")
        values = Values(ACS_DATA_LOCATION="")
        preprovision(values, Subscription())
        assert values.get("ACS_DATA_LOCATION") == "United States"

    @pytest.mark.parametrize("answer", ["", "Mars\n"])
    def test_without_a_data_location_nothing_is_deployed(self, answer: str, monkeypatch: pytest.MonkeyPatch) -> None:
        answer_with(monkeypatch, answer)
        with pytest.raises(Refused, match="azd env set ACS_DATA_LOCATION"):
            preprovision(Values(ACS_DATA_LOCATION=""), Subscription())

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("STORAGE_BACKEND", "graph"),
            ("ACS_DATA_LOCATION", "Africa"),
            ("EXISTING_ACS_RESOURCE_ID", "/subscriptions/other"),
            ("COSMOS_ACCOUNT_NAME", "cosmos-restored1"),
            ("COSMOS_CAPACITY", "autoscale"),
            ("COSMOS_LOCATION", "northeurope"),
            ("PRIVATE_NETWORK", "true"),
            ("ZONE_REDUNDANT", "TRUE"),
        ],
    )
    def test_what_cant_be_changed_is_refused_until_somebody_means_it(self, name: str, value: str) -> None:
        subscription = Subscription().deployed()
        with pytest.raises(Refused, match=f"{name} was .* azd env set ACCEPT_CHANGE_OF {name}"):
            preprovision(Values(**{name: value}), subscription)
        preprovision(Values(**{name: value, "ACCEPT_CHANGE_OF": f"{name}, X"}), subscription)

    def test_each_of_them_is_remembered_by_the_resource_group(self) -> None:
        assert {f"acs-auth-{tag}" for tag, _ in FIXED.values()} | {"acs-auth-token"} == REMEMBERED.keys()
        template = (ROOT / "infra/main.bicep").read_text()
        assert [tag for tag in REMEMBERED if f"'{tag}':" not in template] == []

    def test_an_environment_that_lost_its_settings_makes_no_second_acs_resource(self) -> None:
        """A pipeline, or another machine, that knows nothing of the ACS resource that is kept."""
        subscription = Subscription().deployed(**{"acs-auth-existing-acs-resource-id": "/subscriptions/s/acs-kept"})
        with pytest.raises(Refused, match="EXISTING_ACS_RESOURCE_ID was"):
            preprovision(Values(), subscription)

    def test_an_acs_resource_that_something_else_made_is_not_forgotten(self) -> None:
        subscription = Subscription().with_acs()
        with pytest.raises(Refused, match=f"EXISTING_ACS_RESOURCE_ID {GROUP}/acs-old"):
            preprovision(Values(), subscription)
        preprovision(Values(EXISTING_ACS_RESOURCE_ID=f"{GROUP}/acs-old"), subscription)

    @pytest.mark.parametrize("permissions", [[OWNER], [CONTRIBUTOR, ACCESS_ADMINISTRATOR]])
    def test_enough_rights_are_enough(self, permissions: list[dict[str, list[str]]]) -> None:
        preprovision(Values(), Subscription(permissions))

    def test_too_few_rights_are_told_before(self) -> None:
        with pytest.raises(Refused, match="roleAssignments/write on the subscription: it takes the role Owner"):
            preprovision(Values(), Subscription([CONTRIBUTOR]))

    def test_rights_that_cant_be_read_stop_nobody(self, capsys: pytest.CaptureFixture[str]) -> None:
        class Silent(Subscription):
            def items(self, path: str) -> list[dict[str, Any]]:
                if "permissions" in path:
                    raise Refused("Azure answered 403.")
                return super().items(path)

        preprovision(Values(), Silent())
        assert "Your rights were not checked. Azure answered 403." in capsys.readouterr().err
        nothing = Subscription()
        nothing.lists = {}
        preprovision(Values(), nothing)

    def test_vaults_are_not_listed_before_there_can_be_one(self) -> None:
        class New(Subscription):
            def items(self, path: str) -> list[dict[str, Any]]:
                assert "deletedVaults" not in path
                return super().items(path)

        subscription = New()
        subscription.paths[f"/subscriptions/{SUBSCRIPTION}/providers/Microsoft.KeyVault"] = {}
        values = Values()
        preprovision(values, subscription)
        assert values.get("RECOVER_KEY_VAULT") == "false"

    def test_missing_providers_are_registered(self, capsys: pytest.CaptureFixture[str]) -> None:
        subscription = Subscription()
        name = f"/subscriptions/{SUBSCRIPTION}/providers/Microsoft.App"
        subscription.paths[name] = {"registrationState": "NotRegistered"}
        preprovision(Values(), subscription)
        assert subscription.asked == [f"{name}/register"]
        subscription.may_register = False
        with pytest.raises(Refused, match=r"az provider register --namespace Microsoft.App"):
            preprovision(Values(), subscription)
        assert "Registering" in capsys.readouterr().err

    def test_a_new_budget_begins_this_month(self) -> None:
        values = Values(MONTHLY_BUDGET="100", BUDGET_START_DATE="2020-01-01")
        preprovision(values, Subscription())
        assert values.get("BUDGET_START_DATE") == f"{datetime.now(UTC):%Y-%m}-01"

    def test_a_budget_that_exists_keeps_its_start(self) -> None:
        subscription = Subscription().deployed()
        path = f"{GROUP}/providers/Microsoft.Consumption/budgets/budget-abc"
        subscription.paths[path] = {"properties": {"timePeriod": {"startDate": "2026-03-01T00:00:00Z"}}}
        values = Values(MONTHLY_BUDGET="100")
        preprovision(values, subscription)
        assert values.get("BUDGET_START_DATE") == "2026-03-01"

    @pytest.mark.parametrize(("group", "recover"), [("rg-prod", "true"), ("RG-PROD", "true"), ("rg-prod2", "false")])
    def test_a_deleted_vault_is_brought_back(self, group: str, recover: str) -> None:
        subscription = Subscription()
        vault = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{group}/providers/Microsoft.KeyVault/vaults/kv-abc"
        path = f"/subscriptions/{SUBSCRIPTION}/providers/Microsoft.KeyVault/deletedVaults"
        subscription.lists[path] = [{"properties": {"vaultId": vault}}]
        values = Values(RECOVER_KEY_VAULT="true")
        preprovision(values, subscription)
        assert values.get("RECOVER_KEY_VAULT") == recover

    def test_a_trial_subscription_is_told_of_docker(self, capsys: pytest.CaptureFixture[str]) -> None:
        subscription = Subscription()
        subscription.paths[f"/subscriptions/{SUBSCRIPTION}"] = {
            "subscriptionPolicies": {"quotaId": "FreeTrial_2014-09-01"}
        }
        preprovision(Values(), subscription)
        assert "start Docker" in capsys.readouterr().err

    @pytest.mark.parametrize("consented", [None, set(), {"User.Read", "offline_access"}])
    @pytest.mark.parametrize("given", [{}, {"API_CLIENT_ID": "an-id"}, {"DEPLOYED_API_CLIENT_ID": "an-id"}])
    def test_a_graph_store_without_consent_is_told_before_anything_is_deployed(
        self, given: dict[str, str], consented: set[str] | None, capsys: pytest.CaptureFixture[str]
    ) -> None:
        subscription = Subscription()
        subscription.consented = consented
        preprovision(Values(STORAGE_BACKEND="graph", **given), subscription)
        said = capsys.readouterr().err
        assert said.startswith("The Graph store takes an administrator's consent to User.ReadWrite, without which")
        assert ("--id an-id" in said) == bool(given)
        assert len(said.splitlines()) == 1

    def test_a_consent_that_is_there_is_not_asked_for(self, capsys: pytest.CaptureFixture[str]) -> None:
        subscription = Subscription()
        subscription.consented = {"User.ReadWrite"}
        preprovision(Values(STORAGE_BACKEND="graph", API_CLIENT_ID="an-id"), subscription)
        preprovision(Values(STORAGE_BACKEND="cosmos"), Subscription())
        assert capsys.readouterr().err == ""

    def test_all_locations_are_offered_once(self) -> None:
        assert len(set(ACS_DATA_LOCATIONS)) == len(ACS_DATA_LOCATIONS)


class TestPostprovision:
    KNOWN: ClassVar = {
        "DEPLOYED_API_CLIENT_ID": "api-id",
        "DEPLOYED_BROWSER_CLIENT_ID": "browser-id",
        "SERVICE_API_URI": "https://ca-api.example.com",
        "DEPLOYED_ACS_ENDPOINT": "https://acs.communication.azure.com",
    }

    @pytest.fixture(autouse=True)
    def _in_a_directory_of_its_own(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)

    def test_it_tells_the_address_and_what_needs_consent(self, capsys: pytest.CaptureFixture[str]) -> None:
        subscription = Subscription()
        postprovision(Values(**self.KNOWN, STORAGE_BACKEND="graph"), subscription)
        told = capsys.readouterr().err
        assert "https://ca-api.example.com/docs" in told
        assert "az ad app permission admin-consent --id api-id" in told
        assert subscription.principals == {ACS_APPLICATION}
        assert "az ad sp create" not in told

    def test_who_may_not_add_acs_own_application_is_told_who_can(self, capsys: pytest.CaptureFixture[str]) -> None:
        subscription = Subscription()
        subscription.may_add = False
        postprovision(Values(**self.KNOWN), subscription)
        told = capsys.readouterr().err
        assert f"az ad sp create --id {ACS_APPLICATION}" in told
        assert "admin-consent --id api-id" not in told

    def test_what_cant_be_asked_stops_nothing(self, capsys: pytest.CaptureFixture[str]) -> None:
        class Unreachable(Subscription):
            def principal(self, client_id: str) -> bool | None:
                raise Refused("graph.microsoft.com can't be reached.")

        postprovision(Values(**self.KNOWN), Unreachable())
        told = capsys.readouterr().err
        assert "can't be reached" in told
        assert "az ad sp create" in told

    def test_settings_for_local_work_hold_no_secret_and_no_empty_value(self) -> None:
        postprovision(Values(**self.KNOWN), Subscription())
        assert Path(".azure/prod/service.env").read_text().splitlines() == [
            "ENTRA_CLIENT_ID=api-id",
            "DOCS_CLIENT_ID=browser-id",
            "ACS_ENDPOINT=https://acs.communication.azure.com",
            "STORAGE_BACKEND=cosmos",
        ]


class TestPredeploy:
    @pytest.mark.parametrize("exists", [True, False])
    def test_it_finds_out_whether_the_app_exists(self, exists: bool) -> None:
        subscription = Subscription()
        if exists:
            subscription.paths[f"{GROUP}/providers/Microsoft.App/containerApps/ca-api-abc"] = {"name": "ca-api-abc"}
        values = Values(SERVICE_API_NAME="ca-api-abc", SERVICE_API_RESOURCE_EXISTS=str(not exists).lower())
        predeploy(values, subscription)
        assert values.get("SERVICE_API_RESOURCE_EXISTS") == str(exists).lower()

    def test_an_image_from_outside_is_not_azds_to_deploy(self) -> None:
        with pytest.raises(Refused, match=r"azd provision has deployed ghcr.io/o/r:1"):
            predeploy(Values(SERVICE_API_NAME="ca-api-abc", CONTAINER_IMAGE="ghcr.io/o/r:1"), Subscription())

    def test_without_resources_nothing_is_deployed(self) -> None:
        with pytest.raises(Refused, match="azd env refresh"):
            predeploy(Values(), Subscription())


class TestPostdeploy:
    def test_it_waits_until_the_service_is_ready(self, capsys: pytest.CaptureFixture[str]) -> None:
        service = Service([(0, "refused"), (503, "{}"), (200, "{}")])
        smoke_test(Values(SERVICE_API_URI="https://s"), service, service.sleep)
        assert service.slept == 2
        assert "Ready: https://s" in capsys.readouterr().err

    def test_a_service_that_never_gets_ready_fails_with_where_to_look(self) -> None:
        service = Service([(503, '{"checks": {"store": false}}')])
        values = Values(SERVICE_API_URI="https://s", SERVICE_API_NAME="ca-api-abc", AZURE_RESOURCE_GROUP="rg-prod")
        with pytest.raises(Refused, match="az containerapp logs show --name ca-api-abc --resource-group rg-prod"):
            smoke_test(values, service, service.sleep)
        assert service.slept == ATTEMPTS - 1

    def test_with_a_token_it_makes_a_round_trip_and_leaves_nothing(self) -> None:
        service = Service([(200, ""), (201, ""), (201, ""), (204, "")])
        smoke_test(Values(SERVICE_API_URI="https://s", SMOKE_TEST_TOKEN="t"), service, service.sleep)
        assert service.requests == [
            ("GET", "https://s/health/ready", ""),
            ("POST", "https://s/api/user", "t"),
            ("GET", "https://s/api/token", "t"),
            ("DELETE", "https://s/api/user", "t"),
        ]

    def test_an_identity_that_was_there_stays(self) -> None:
        service = Service([(200, ""), (200, ""), (201, "")])
        smoke_test(Values(SERVICE_API_URI="https://s", SMOKE_TEST_TOKEN="t"), service, service.sleep)
        assert [method for method, *_ in service.requests] == ["GET", "POST", "GET"]

    @pytest.mark.parametrize("answers", [[(200, "")], [(200, ""), (201, ""), (503, ""), (204, "")]])
    def test_a_refused_round_trip_fails_with_the_errors_name_and_no_token(self, answers: list[Answer]) -> None:
        refused = (403, json.dumps({"error": "insufficient_scope", "message": "Ask for it.", "token": "secret"}))
        service = Service([*answers[: len(answers) if len(answers) == 1 else 2], refused, *answers[3:]])
        with pytest.raises(Refused, match=r"403: insufficient_scope: Ask for it.") as caught:
            smoke_test(Values(SERVICE_API_URI="https://s", SMOKE_TEST_TOKEN="t"), service, service.sleep)
        assert "secret" not in str(caught.value)

    @pytest.mark.parametrize("switch", ["INTERNAL_INGRESS", "ONLY_FRONT_DOOR"])
    def test_what_cant_be_reached_from_here_is_said(self, switch: str, capsys: pytest.CaptureFixture[str]) -> None:
        service = Service([])
        smoke_test(Values(SERVICE_API_URI="https://s", **{switch: "TRUE"}), service, service.sleep)
        assert "Not checked" in capsys.readouterr().err


class TestPredown:
    def test_ids_are_kept_before_azd_forgets_them(self) -> None:
        values = Values(DEPLOYED_API_CLIENT_ID="api-id", DEPLOYED_BROWSER_CLIENT_ID="browser-id")
        predown(values, Subscription())
        assert (values.get("KEPT_API_CLIENT_ID"), values.get("KEPT_BROWSER_CLIENT_ID")) == ("api-id", "browser-id")

    @pytest.mark.parametrize("answer", ["", "yes\n", "prod2\n"])
    def test_identities_are_not_deleted_by_a_wrong_answer(self, answer: str, monkeypatch: pytest.MonkeyPatch) -> None:
        answer_with(monkeypatch, answer)
        with pytest.raises(Refused, match="Nothing was deleted"):
            predown(Values(), Subscription().with_acs())

    def test_who_types_the_name_means_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        answer_with(monkeypatch, "prod\n")
        predown(Values(), Subscription().with_acs())

    def test_who_cant_type_says_so_before(self) -> None:
        predown(Values(DELETE_IDENTITIES_OF="prod"), Subscription().with_acs())

    def test_an_acs_resource_elsewhere_is_nobodys_loss(self) -> None:
        predown(Values(DEPLOYED_ACS_RESOURCE_ID="/subscriptions/other"), Subscription().deployed())


class TestAzd:
    """The real client of azd and Azure, against a stand-in for either."""

    @pytest.fixture
    def server(self) -> Iterator[tuple[str, dict[str, tuple[int, Any]], list[str]]]:
        answers: dict[str, tuple[int, Any]] = {}
        seen: list[str] = []

        class Handler(BaseHTTPRequestHandler):
            def _answer(self) -> None:
                seen.append(f"{self.command} {self.path} {self.headers['Authorization']}")
                status, body = answers.get(f"{self.command} {self.path}", (404, {}))
                data = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def do_GET(self) -> None:
                self._answer()

            def do_POST(self) -> None:
                self._answer()

            def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
                """Says nothing."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}", answers, seen
        server.shutdown()
        thread.join()
        server.server_close()

    @pytest.fixture(autouse=True)
    def _azd(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        calls = tmp_path / "calls"
        program = tmp_path / "azd"
        program.write_text(
            f"#!{sys.executable} -IS\nimport sys\n"
            f"open({str(calls)!r}, 'a').write(' '.join(sys.argv[1:]) + '\\n')\n"
            "if 'token' in sys.argv: print('{\"token\": \"a-token\"}')\n"
            "if 'FAIL' in sys.argv: sys.exit('not signed in')\n"
        )
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
        self.calls = calls

    def test_azure_is_asked_with_azds_sign_in(self, server: tuple[str, dict[str, tuple[int, Any]], list[str]]) -> None:
        address, answers, seen = server
        answers["GET /x?api-version=1"] = (200, {"name": "x"})
        assert AzdAzure("tenant", address).get("/x?api-version=1") == {"name": "x"}
        assert AzdAzure("tenant", address).get("/y") is None
        assert seen[0] == "GET /x?api-version=1 Bearer a-token"
        assert "--scope https://management.azure.com/.default --tenant-id tenant" in self.calls.read_text()

    def test_azd_is_asked_for_a_token_once(self, server: tuple[str, dict[str, tuple[int, Any]], list[str]]) -> None:
        azure = AzdAzure("", server[0])
        assert (azure.get("/x"), azure.get("/y")) == (None, None)
        assert len(self.calls.read_text().splitlines()) == 1

    def test_a_list_is_read_to_its_end(self, server: tuple[str, dict[str, tuple[int, Any]], list[str]]) -> None:
        address, answers, _ = server
        answers["GET /x"] = (200, {"value": [{"n": 1}], "nextLink": f"{address}/x?page=2"})
        answers["GET /x?page=2"] = (200, {"value": [{"n": 2}]})
        assert AzdAzure("", address).items("/x") == [{"n": 1}, {"n": 2}]

    def test_a_read_that_failed_is_never_nothing(
        self, server: tuple[str, dict[str, tuple[int, Any]], list[str]]
    ) -> None:
        address, answers, _ = server
        answers["GET /x"] = (403, {"error": {"message": "No."}})
        answers["GET /z"] = (503, b"<html>")
        with pytest.raises(Refused, match=r"Azure answered 403 for /x: No."):
            AzdAzure("", address).get("/x")
        with pytest.raises(Refused, match="Azure answered 503 for /z"):
            AzdAzure("", address).items("/z")
        with pytest.raises(Refused, match="can't be reached"):
            AzdAzure("", "http://127.0.0.1:1").get("/x")

    def test_what_may_not_be_done_is_no_error(self, server: tuple[str, dict[str, tuple[int, Any]], list[str]]) -> None:
        address, answers, _ = server
        answers["POST /x"], answers["POST /y"], answers["POST /z"] = (403, {}), (202, {}), (500, {})
        azure = AzdAzure("", address)
        assert (azure.post("/x"), azure.post("/y")) == (False, True)
        with pytest.raises(Refused, match="Azure answered 500"):
            azure.post("/z")

    def test_an_application_is_found_or_added(self, server: tuple[str, dict[str, tuple[int, Any]], list[str]]) -> None:
        address, answers, _ = server
        azure = AzdAzure("", address, address)
        path = f"/v1.0/servicePrincipals(appId='{ACS_APPLICATION}')"
        assert azure.principal(ACS_APPLICATION) is False
        answers[f"GET {path}"] = (403, {})
        assert azure.principal(ACS_APPLICATION) is None
        assert azure.add_principal(ACS_APPLICATION) is False
        answers["POST /v1.0/servicePrincipals"] = (201, {})
        assert azure.add_principal(ACS_APPLICATION) is True

    def test_consents_for_everybody_are_read_and_others_are_not(
        self, server: tuple[str, dict[str, tuple[int, Any]], list[str]]
    ) -> None:
        address, answers, _ = server
        azure = AzdAzure("", address, address)
        assert azure.consents("an-id") is None
        answers["GET /v1.0/servicePrincipals(appId='an-id')/oauth2PermissionGrants"] = (
            200,
            {
                "value": [
                    {"consentType": "AllPrincipals", "scope": " User.ReadWrite openid"},
                    {"consentType": "Principal", "scope": "Mail.Read"},
                ]
            },
        )
        assert azure.consents("an-id") == {"User.ReadWrite", "openid"}

    def test_a_value_is_kept_when_it_is_new(self) -> None:
        environment = AzdEnvironment({"AZURE_ENV_NAME": "prod", "A": " 1 "})
        environment.set("A", "1")
        environment.set("A", "2")
        assert environment.get("A") == "2"
        assert self.calls.read_text() == "env set A 2 --environment prod\n"

    def test_a_failure_of_azd_is_told(self) -> None:
        with pytest.raises(Refused, match="azd env set failed: not signed in"):
            AzdEnvironment({"AZURE_ENV_NAME": "FAIL"}).set("A", "2")

    def test_a_refusal_ends_the_hook_with_its_sentence(self) -> None:
        def hook(*_: object) -> None:
            raise Refused("Do this first.")

        with pytest.raises(SystemExit, match=r"Do this first."):
            azd.run(hook)


class Service:
    """Answers in turn, the last one for ever; waiting takes no time."""

    def __init__(self, answers: list[Answer]) -> None:
        self._answers = answers
        self.requests: list[tuple[str, str, str]] = []
        self.slept = 0

    def __call__(self, method: str, url: str, token: str) -> Answer:
        self.requests.append((method, url, token))
        return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]

    def sleep(self, _: float) -> None:
        self.slept += 1


def answer_with(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Somebody at a terminal types this; nobody is there if it is empty."""

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return bool(text)

    monkeypatch.setattr("sys.stdin", Terminal(text))
