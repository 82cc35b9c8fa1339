"""What is deployed keeps every contract, each contract is seen to notice a breach, and a change shows in review."""

import copy
from typing import Any

import pytest

from tests.infra.compiled.contracts import (
    ACS,
    APP,
    APPLICATION,
    CONTRACTS,
    COSMOS,
    ENVIRONMENT,
    REGISTRY,
    VAULT,
    Contract,
    faults,
)
from tests.infra.compiled.deployments import GUID, PROFILES, STORED, Deployment, stored, written

BY_NAME: dict[str, Contract] = {each.__name__: each for each in CONTRACTS}
NOTHING = object()
CONTAINER = "properties.template.containers.0"
CONFIGURATION = "properties.configuration"

# Contract, way of deploying, type of the resource, what is changed, what stands there instead.
BREACHES: list[tuple[str, str, str, str, Any]] = [
    ("every_variable_is_a_setting", "own-image", APP, f"{CONTAINER}.env.0.name", "LISTEN_PORT"),
    ("the_service_starts_with_its_variables", "own-image", APP, f"{CONTAINER}.env.2.name", "ACS_END"),
    ("the_service_starts_with_its_variables", "graph", APP, f"{CONTAINER}.env.11", {"name": "PORT", "value": "5000"}),
    ("no_variable_shows_a_secret", "own-image", APP, f"{CONTAINER}.env.18", {"name": "LOG_HASH_KEY", "value": "x"}),
    ("a_secret_is_read_from_the_vault_with_the_identity", "own-image", APP, "identity.type", "SystemAssigned"),
    ("a_secret_is_read_from_the_vault_with_the_identity", "own-image", APP, f"{CONFIGURATION}.secrets", []),
    ("a_secret_is_read_from_the_vault_with_the_identity", "own-image", APP, f"{CONFIGURATION}.secrets.0.value", "x"),
    ("every_place_names_the_same_port", "own-image", APP, f"{CONFIGURATION}.ingress.targetPort", 80),
    ("every_place_names_the_same_port", "own-image", APP, f"{CONTAINER}.probes.2.httpGet.port", 80),
    ("every_place_names_the_same_port", "own-image", APP, f"{CONTAINER}.env.0.value", "8080"),
    ("each_probe_asks_its_own_path_and_the_path_exists", "own-image", APP, f"{CONTAINER}.probes.0.httpGet.path", "/"),
    ("each_probe_asks_its_own_path_and_the_path_exists", "own-image", APP, f"{CONTAINER}.probes.1.type", "Readiness"),
    (
        "the_platform_waits_longer_than_the_service_drains",
        "own-image",
        APP,
        "properties.template.terminationGracePeriodSeconds",
        20,
    ),
    (
        "the_platform_waits_longer_than_a_start_is_repeated",
        "own-image",
        APP,
        f"{CONTAINER}.probes.0.failureThreshold",
        10,
    ),
    (
        "it_scales_by_simultaneous_requests_and_survives_the_loss_of_a_replica",
        "own-image",
        APP,
        "properties.template.scale.minReplicas",
        1,
    ),
    (
        "it_scales_by_simultaneous_requests_and_survives_the_loss_of_a_replica",
        "own-image",
        APP,
        "properties.template.scale.rules",
        [],
    ),
    ("what_people_set_on_the_app_is_handed_back", "azd-deploy-again", APP, f"{CONFIGURATION}.ingress", "[null()]"),
    ("what_people_set_on_the_app_is_handed_back", "own-image", APP, f"{CONFIGURATION}.ingress.external", False),
    (
        "the_container_is_made_as_the_store_needs_it",
        "first",
        f"{COSMOS}/sqlDatabases/containers",
        "properties.resource.partitionKey.paths",
        ["/subject"],
    ),
    (
        "the_container_is_made_as_the_store_needs_it",
        "first",
        f"{COSMOS}/sqlDatabases/containers",
        "properties.resource.defaultTtl",
        3600,
    ),
    (
        "the_container_is_made_as_the_store_needs_it",
        "first",
        f"{COSMOS}/sqlDatabases/containers",
        "properties.resource.indexingPolicy.excludedPaths",
        [],
    ),
    ("the_container_is_made_as_the_store_needs_it", "first", f"{COSMOS}/sqlDatabases/containers", "name", "a/b/c"),
    ("the_container_is_made_as_the_store_needs_it", "own-image", APP, f"{CONTAINER}.env.5.value", "other"),
    (
        "every_replica_sees_what_another_wrote_and_backups_are_continuous",
        "first",
        COSMOS,
        "properties.consistencyPolicy.defaultConsistencyLevel",
        "Session",
    ),
    (
        "every_replica_sees_what_another_wrote_and_backups_are_continuous",
        "first",
        COSMOS,
        "properties.enableMultipleWriteLocations",
        True,
    ),
    ("no_key_and_no_plain_http_opens_anything", "first", ACS, "properties.disableLocalAuth", False),
    ("no_key_and_no_plain_http_opens_anything", "first", COSMOS, "properties.disableLocalAuth", NOTHING),
    ("no_key_and_no_plain_http_opens_anything", "first", REGISTRY, "properties.adminUserEnabled", True),
    ("no_key_and_no_plain_http_opens_anything", "first", VAULT, "properties.enableRbacAuthorization", False),
    ("no_key_and_no_plain_http_opens_anything", "own-image", APP, f"{CONFIGURATION}.ingress.allowInsecure", True),
    (
        "a_private_network_leaves_no_other_way_in",
        "private-network",
        COSMOS,
        "properties.publicNetworkAccess",
        "Enabled",
    ),
    ("a_private_network_leaves_no_other_way_in", "private-network", ENVIRONMENT, "properties.vnetConfiguration", None),
    (
        "a_private_network_leaves_no_other_way_in",
        "private-network",
        "Microsoft.Network/privateEndpoints",
        "name",
        "pep-cosmos",
    ),
    # Contributor
    (
        "the_identity_has_these_roles_and_no_others",
        "first",
        "Microsoft.Authorization/roleAssignments",
        "properties.roleDefinitionId",
        "/providers/Microsoft.Authorization/roleDefinitions/b24988ac-6180-42a0-ab88-20f7382dd24c",
    ),
    (
        "the_identity_has_these_roles_and_no_others",
        "first",
        "Microsoft.Authorization/roleAssignments",
        "id",
        "/subscriptions/s/resourceGroups/rg-prod/providers/Microsoft.Authorization/roleAssignments/x",
    ),
    (
        "the_identity_may_do_with_mappings_what_the_store_does",
        "first",
        f"{COSMOS}/sqlRoleDefinitions",
        "properties.permissions.0.dataActions",
        ["Microsoft.DocumentDB/databaseAccounts/sqlDatabases/containers/items/*"],
    ),
    (
        "the_identity_may_do_with_mappings_what_the_store_does",
        "first",
        f"{COSMOS}/sqlRoleAssignments",
        "properties.scope",
        "/subscriptions/s",
    ),
    (
        "no_log_holds_who_the_users_are",
        "first",
        "Microsoft.Insights/diagnosticSettings",
        "properties.logs.0.category",
        "DataPlaneRequests",
    ),
    (
        "the_registrations_fit_what_the_service_accepts",
        "first",
        APPLICATION,
        "properties.api.oauth2PermissionScopes.0.value",
        "user_impersonation",
    ),
    (
        "the_registrations_fit_what_the_service_accepts",
        "first",
        APPLICATION,
        "properties.api.requestedAccessTokenVersion",
        1,
    ),
    (
        "the_registrations_fit_what_the_service_accepts",
        "first",
        f"{APPLICATION}/federatedIdentityCredentials",
        "properties.subject",
        "[reference('api').appId]",
    ),
    (
        "the_registrations_fit_what_the_service_accepts",
        "first",
        "Microsoft.Graph/servicePrincipals",
        "properties.appId",
        "1fd5118e-2576-4263-8130-9503064c837a",
    ),
    (
        "the_registrations_fit_what_the_service_accepts",
        "graph",
        APPLICATION,
        "properties.requiredResourceAccess",
        [{"resourceAppId": "00000003-0000-0000-c000-000000000000", "resourceAccess": [{"id": GUID, "type": "Scope"}]}],
    ),
    ("everything_carries_the_tag_by_which_azd_finds_it", "first", COSMOS, "tags", NOTHING),
    ("everything_carries_the_tag_by_which_azd_finds_it", "first", COSMOS, "tags.azd-env-name", "test"),
    ("everything_carries_the_tag_by_which_azd_finds_it", "own-image", APP, "tags.azd-service-name", "service"),
    ("no_output_is_a_secret", "first", "outputs", "SERVICE_API_URI", "[listKeys('x', 'y').primaryKey]"),
    ("no_output_is_a_secret", "first", "outputs", "API_KEY", "x"),
    ("a_placeholder_never_runs", "own-image", APP, f"{CONTAINER}.image", "mcr.microsoft.com/k8se/quickstart:latest"),
]


@pytest.mark.parametrize("name", PROFILES)
def test_what_is_deployed_is_what_was_reviewed(
    name: str, deployments: dict[str, Deployment], request: pytest.FixtureRequest
) -> None:
    if request.config.getoption("--write-snapshots"):
        STORED.mkdir(exist_ok=True)
        (STORED / f"{name}.json").write_text(written(deployments[name]))
    assert written(deployments[name]) == stored(name), "look at it with: make infra ARGS=--write-snapshots; git diff"


def test_no_snapshot_is_left_of_a_way_of_deploying_that_is_gone() -> None:
    assert {path.stem for path in STORED.glob("*.json")} == PROFILES.keys()


@pytest.mark.parametrize("name", PROFILES)
@pytest.mark.parametrize("contract", CONTRACTS, ids=BY_NAME)
def test_each_way_of_deploying_keeps(contract: Contract, name: str, deployments: dict[str, Deployment]) -> None:
    assert faults(contract, deployments[name]) == []


@pytest.mark.parametrize(
    ("contract", "name", "kind", "path", "instead"),
    BREACHES,
    ids=[f"{contract}-{number}" for number, (contract, *_) in enumerate(BREACHES)],
)
def test_a_breach_is_noticed(
    contract: str, name: str, kind: str, path: str, instead: Any, deployments: dict[str, Deployment]
) -> None:
    broken = Deployment(copy.deepcopy(dict(deployments[name].snapshot)))
    change(broken.outputs if kind == "outputs" else broken.all(kind)[0], path, instead)
    assert broken.snapshot != deployments[name].snapshot, "nothing was broken"
    assert faults(BY_NAME[contract], broken) != []


def test_each_contract_is_seen_to_notice_something() -> None:
    assert {contract for contract, *_ in BREACHES} == BY_NAME.keys()


def change(value: Any, path: str, instead: Any) -> None:
    """Puts something else at a path of names and indices, or takes it away."""
    *steps, last = [int(step) if step.isdigit() else step for step in path.split(".")]
    for step in steps:
        value = value[step]
    if instead is NOTHING:
        del value[last]
    else:
        value[last] = instead
