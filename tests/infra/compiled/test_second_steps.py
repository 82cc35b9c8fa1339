"""A later deployment finds what the first one made, and asks Azure only for changes that Azure allows."""

from collections.abc import Mapping
from typing import Any

import pytest

from tests.infra import azd
from tests.infra.bicep import Bicep
from tests.infra.compiled.contracts import ACS, COSMOS
from tests.infra.compiled.deployments import FIRST, OWN_IMAGE, PRIVATE, Deployment

AUTOSCALE = {"COSMOS_CAPACITY": "autoscale"}
BUDGET = {"MONTHLY_BUDGET": "100", "ALERT_EMAIL": "ops@example.com", "BUDGET_START_DATE": "2026-11-01"}

# First deployment, second deployment, what may differ: type of the resource and the paths in it.
STEPS: list[tuple[str, Mapping[str, str], Mapping[str, str], dict[str, set[str]]]] = [
    ("the same again", {}, {"SERVICE_API_RESOURCE_EXISTS": "true"}, {}),
    ("the region in other words", {}, {"AZURE_LOCATION": "West Europe"}, {"*": {"location"}}),
    (
        "the environment's name in other letters",
        {},
        {"AZURE_ENV_NAME": "Prod"},
        {"*": {"tags.azd-env-name", "id", "name"}},
    ),
    (
        "read regions are added",
        AUTOSCALE,
        AUTOSCALE | {"COSMOS_READ_REGIONS": "northeurope"},
        {COSMOS: {"properties.locations"}},
    ),
    (
        "more throughput",
        AUTOSCALE,
        AUTOSCALE | {"COSMOS_MAX_THROUGHPUT": "2000"},
        {f"{COSMOS}/sqlDatabases/containers": {"properties.options"}},
    ),
    (
        "another amount of the budget",
        BUDGET,
        BUDGET | {"MONTHLY_BUDGET": "200"},
        {"Microsoft.Consumption/budgets": {"properties.amount"}},
    ),
]


@pytest.mark.parametrize(("first", "second", "allowed"), [step[1:] for step in STEPS], ids=[step[0] for step in STEPS])
def test_only_what_azure_lets_change_changes(
    first: Mapping[str, str], second: Mapping[str, str], allowed: dict[str, set[str]], bicep: Bicep
) -> None:
    before, after = resources(bicep, first), resources(bicep, second)
    assert before.keys() == after.keys()
    for key, resource in before.items():
        may = allowed.get(resource["type"], set()) | allowed.get("*", set())
        changed = differences(resource, after[key])
        assert {
            each for each in changed if not any(each == path or each.startswith(f"{path}.") for path in may)
        } == set()


def test_a_restored_account_gets_an_endpoint_of_its_own(bicep: Bicep) -> None:
    """A private endpoint can't be turned to another account, so its name follows the account's."""
    kind = "Microsoft.Network/privateEndpoints"
    first = deployed(bicep, PRIVATE).one(kind)
    restored = deployed(bicep, PRIVATE | {"COSMOS_ACCOUNT_NAME": "cosmos-restored1"}).one(kind)
    assert restored["name"] == "pep-cosmos-restored1" != first["name"]


@pytest.mark.parametrize("location", ["westeurope", "West Europe", "northeurope"])
@pytest.mark.parametrize("name", ["prod", "Prod", "PROD"])
def test_there_is_one_acs_resource_for_an_environment(location: str, name: str, bicep: Bicep) -> None:
    deployment = deployed(bicep, {"AZURE_LOCATION": location, "AZURE_ENV_NAME": name})
    assert (deployment.one(ACS)["name"], deployment.one(COSMOS)["name"]) == (
        "acs-ig7zujg3x3jz4",
        "cosmos-ig7zujg3x3jz4",
    )


def test_a_second_region_shares_what_must_be_one_and_has_names_of_its_own(deployments: dict[str, Deployment]) -> None:
    first, second = deployments["azd-deploy"], deployments["second-region"]
    names = {each["name"] for each in first.resources} & {each["name"] for each in second.resources}
    assert names == set()
    assert first.app is not None
    assert second.app is not None
    assert (first.app["tags"]["azd-service-name"], second.app["tags"]["azd-service-name"]) == ("api", "none")
    assert first.app["identity"] == second.app["identity"]
    told, there = ([_variables(each) for each in deployment.containers] for deployment in (first, second))
    assert {each.pop("COSMOS_PREFERRED_REGIONS") for each in told} == {"westeurope"}
    assert {each.pop("COSMOS_PREFERRED_REGIONS") for each in there} == {"northeurope"}, "it reads where it is"
    assert told == there
    assert second.one("Microsoft.App/managedEnvironments")["properties"]["publicNetworkAccess"] == "Disabled"


@pytest.mark.parametrize(
    ("given", "region"),
    [
        ({}, ""),
        (AUTOSCALE, ""),
        (AUTOSCALE | {"COSMOS_READ_REGIONS": "North Europe"}, "westeurope"),
        (AUTOSCALE | {"COSMOS_READ_REGIONS": "North Europe", "COSMOS_LOCATION": "France Central"}, ""),
    ],
)
def test_reads_go_to_the_apps_own_region_where_the_account_is_there_and_elsewhere(
    given: Mapping[str, str], region: str, bicep: Bicep
) -> None:
    deployment = deployed(bicep, {**given, **OWN_IMAGE})
    assert {_variables(each).get("COSMOS_PREFERRED_REGIONS") for each in deployment.containers} == {region}


def test_another_environment_has_another_one(bicep: Bicep) -> None:
    assert deployed(bicep, {"AZURE_ENV_NAME": "test"}).one(ACS)["name"] != "acs-ig7zujg3x3jz4"


def test_a_change_that_azure_refuses_would_be_noticed() -> None:
    account = {"properties": {"locations": [1], "enableAutomaticFailover": False}}
    assert differences(account, {"properties": {"locations": [1, 2], "enableAutomaticFailover": True}}) == {
        "properties.locations",
        "properties.enableAutomaticFailover",
    }


def deployed(bicep: Bicep, given: Mapping[str, str]) -> Deployment:
    snapshot, said = bicep.snapshot("main", azd.parameters({**FIRST, **given}))
    assert snapshot, said
    return Deployment(snapshot)


def resources(bicep: Bicep, given: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """The resources by type, name and place among those of the same name."""
    found: dict[str, dict[str, Any]] = {}
    for each in deployed(bicep, given).resources:
        name = each["id"] if "id" in each else str(each["properties"])
        identity = f"{each['type']} {name.lower()}"
        found[f"{identity} {sum(key.startswith(identity) for key in found)}"] = each
    return found


def differences(one: Any, other: Any, path: str = "") -> set[str]:
    """The paths at which two resources differ; lists are compared as a whole."""
    if isinstance(one, dict) and isinstance(other, dict):
        found = (
            differences(one.get(name), other.get(name), f"{path}.{name}".lstrip("."))
            for name in one.keys() | other.keys()
        )
        return set().union(*found)
    return set() if _alike(one) == _alike(other) else {path}


def _alike(value: Any) -> Any:
    """Ids of resources are the same in any case."""
    if isinstance(value, list):
        return [_alike(each) for each in value]
    return value.lower() if isinstance(value, str) and "/resourceGroups/" in value else value


def _variables(container: dict[str, Any]) -> dict[str, Any]:
    """What a container is told, but for its port and where telemetry goes."""
    return {each["name"]: each.get("value", each.get("secretRef")) for each in container["env"][2:]}
