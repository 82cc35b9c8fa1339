"""Every setting of the service can be deployed, or it is said why not."""

import re
from itertools import combinations

import yaml

from quart_app.settings import variable_names
from tests.infra import azd
from tests.infra.bicep import ROOT
from tests.infra.settings import COMING, FOUND, GIVEN, NOT_FOR_A_CONTAINER, SECRET, unclassified

NOT_SETTINGS = {"OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG"}
"""OpenTelemetry's own variables, which the service's settings model does not hold."""
OF_AZD = {"AZURE_ENV_NAME", "AZURE_LOCATION", "SERVICE_API_RESOURCE_EXISTS"}
"""Variables that azd sets by itself."""
OF_HOOKS = {"BUDGET_START_DATE", "RECOVER_KEY_VAULT"}
"""Variables that a hook finds out anew before each deployment."""


def test_each_setting_is_a_parameter_or_known_or_not_for_a_container() -> None:
    assert unclassified() == []


def test_no_setting_is_deployed_in_two_ways() -> None:
    ways = [GIVEN, SECRET.keys(), FOUND.keys(), NOT_FOR_A_CONTAINER.keys()]
    assert [one & other for one, other in combinations(ways, 2) if one & other] == []


def test_only_settings_are_classified() -> None:
    classified = GIVEN | SECRET.keys() | FOUND.keys() | NOT_FOR_A_CONTAINER.keys()
    assert classified - set(variable_names()) - COMING == NOT_SETTINGS
    assert COMING <= GIVEN


def test_a_setting_that_is_passed_on_has_the_same_name_in_an_azd_environment() -> None:
    given = azd.PARAMETERS["serviceSettings"]["value"]
    assert given == {name: f"${{{name}}}" for name in sorted(given)}


def test_a_pipeline_passes_on_every_variable_of_an_environment() -> None:
    """Otherwise it deploys another service than a person did: a public database, or a second ACS resource."""
    wanted = sorted((azd.variables() - OF_AZD - OF_HOOKS) | {"ACCEPT_CHANGE_OF"})
    pipeline = yaml.safe_load((ROOT / "azure.yaml").read_text())["pipeline"]["variables"]
    workflow = yaml.safe_load((ROOT / ".github/workflows/azure-dev.yml").read_text())
    assert sorted(pipeline) == wanted
    # A pipeline's identity may not write app registrations.
    usual = {"CREATE_APP_REGISTRATIONS": "${{ vars.CREATE_APP_REGISTRATIONS || 'false' }}"}
    assert {name: workflow["env"].get(name) for name in wanted} == {
        name: usual.get(name, f"${{{{ vars.{name} }}}}") for name in wanted
    }


def test_what_signs_in_has_no_environment() -> None:
    """A job with an environment has another OIDC subject than the credential that azd makes."""
    jobs = yaml.safe_load((ROOT / ".github/workflows/azure-dev.yml").read_text())["jobs"]
    assert [name for name, job in jobs.items() if "environment" in job] == ["approve"]
    assert jobs["deploy"]["needs"] == "approve"
    assert "id-token" not in jobs["approve"].get("permissions", {})


def test_no_output_is_called_like_an_input() -> None:
    """azd reads its own `.env` first, so an output of the last deployment would win over what is given now."""
    text = (ROOT / "infra/main.bicep").read_text() + (ROOT / "infra/api.bicep").read_text()
    outputs = set(re.findall(r"^output (\w+) ", text, re.MULTILINE))
    assert outputs & azd.variables() == set()
