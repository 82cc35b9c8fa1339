"""The deployment and the code agree; and each contract is seen to notice when they do not."""

import pytest

from tests.infra.contracts import (
    API,
    APPLICATIONS,
    COMMUNICATION,
    CONTRACTS,
    COSMOS,
    MAIN,
    MONITORING,
    PARAMETERS,
    REGISTER,
    REGISTRY,
    RESOURCES,
    TRUST,
    Contract,
    deployment_files,
    faults,
)

FILES = deployment_files()
WORKFLOW = ".github/workflows/image.yml"
ITEMS = "Microsoft.DocumentDB/databaseAccounts/sqlDatabases/containers/items"

# Contract, file, what stands there, what stands there instead.
MUTATIONS = [
    ("every_variable_is_a_setting", API, "'DOCS_CLIENT_ID'", "'DOC_CLIENT_ID'"),
    ("every_variable_is_a_setting", API, "{ name: 'PORT'", "{ name: 'LISTEN_PORT'"),
    ("the_service_starts_with_its_variables_and_either_store", API, "'ENTRA_TENANT_ID'", "'ENTRA_TENANT'"),
    (
        "the_service_starts_with_its_variables_and_either_store",
        API,
        "{ name: 'ENTRA_CLIENT_ID', value: apiClientId }",
        "",
    ),
    ("the_service_acts_as_its_managed_identity", API, "{ name: 'ACS_ENDPOINT', value: acsEndpoint }", ""),
    (
        "the_service_starts_with_its_variables_and_either_store",
        API,
        "{ name: 'COSMOS_ENDPOINT', value: cosmosEndpoint }",
        "",
    ),
    (
        "the_service_starts_with_its_variables_and_either_store",
        API,
        "{ name: 'ENTRA_MANAGED_IDENTITY_CLIENT_ID', value: identityClientId }",
        "",
    ),
    ("no_variable_is_a_secret", API, "'DOCS_CLIENT_ID'", "'COSMOS_KEY'"),
    ("the_service_acts_as_its_managed_identity", API, "value: identityClientId", "value: apiClientId"),
    ("the_service_acts_as_its_managed_identity", API, "type: 'UserAssigned'", "type: 'SystemAssigned'"),
    ("the_service_acts_as_its_managed_identity", TRUST, "subject: managedIdentityPrincipalId", "subject: apiClientId"),
    ("every_place_names_the_same_port", API, "var port = 5000", "var port = 8000"),
    ("every_place_names_the_same_port", API, "targetPort: port", "targetPort: 80"),
    ("every_place_names_the_same_port", API, "path: '/health/ready', port: port", "path: '/health/ready', port: 80"),
    ("every_place_names_the_same_port", API, "value: string(port)", "value: '8080'"),
    ("every_place_names_the_same_port", "Dockerfile", "EXPOSE 5000", "EXPOSE 8000"),
    ("every_place_names_the_same_port", "Dockerfile", "PORT=5000", "PORT=8000"),
    ("each_probe_asks_its_own_path_and_the_path_exists", API, "'/health/ready'", "'/health/live'"),
    ("each_probe_asks_its_own_path_and_the_path_exists", API, "'/health/startup'", "'/health/started'"),
    ("each_probe_asks_its_own_path_and_the_path_exists", API, "type: 'Liveness'", "type: 'Readiness'"),
    ("each_probe_asks_its_own_path_and_the_path_exists", "Dockerfile", "/health/live", "/"),
    (
        "the_platform_waits_longer_than_the_service_drains",
        API,
        "terminationGracePeriodSeconds: 40",
        "terminationGracePeriodSeconds: 20",
    ),
    (
        "it_scales_by_simultaneous_requests_and_survives_the_loss_of_a_replica",
        API,
        "http: { metadata",
        "tcp: { metadata",
    ),
    (
        "it_scales_by_simultaneous_requests_and_survives_the_loss_of_a_replica",
        MAIN,
        "minReplicas int = 2",
        "minReplicas int = 1",
    ),
    ("a_later_deployment_keeps_the_image", API, "exists ? running!.properties", "true ? running!.properties"),
    (
        "a_later_deployment_keeps_the_image",
        API,
        "existing = if (exists) {\n  name: name",
        "existing = if (exists) {\n  name: 'x'",
    ),
    ("a_later_deployment_keeps_the_image", PARAMETERS, "${SERVICE_API_RESOURCE_EXISTS=false}", "false"),
    ("a_later_deployment_keeps_the_image", MAIN, "EXISTS bool = true", "EXISTS bool = false"),
    (
        "the_same_deployment_finds_the_same_resources",
        MAIN,
        "uniqueString(subscription().id, ",
        "uniqueString(utcNow(), ",
    ),
    ("the_same_deployment_finds_the_same_resources", MAIN, "environmentName, location))", "location))"),
    ("the_same_deployment_finds_the_same_resources", RESOURCES, "'acs-${token}'", "'acs-${apiClientId}'"),
    ("the_container_is_made_as_the_store_needs_it", COSMOS, "paths: ['/id']", "paths: ['/subject']"),
    ("the_container_is_made_as_the_store_needs_it", COSMOS, "path: '/*'", "path: '/subject/?'"),
    (
        "the_container_is_made_as_the_store_needs_it",
        COSMOS,
        "id: containerName\n",
        "id: containerName\n      defaultTtl: 3600\n",
    ),
    ("the_container_is_made_as_the_store_needs_it", COSMOS, "'identity-mappings'", "'mappings'"),
    ("the_container_is_made_as_the_store_needs_it", COSMOS, "'acs-auth'", "'auth'"),
    (
        "the_container_is_made_as_the_store_needs_it",
        RESOURCES,
        "cosmos!.outputs.databaseName",
        "cosmos!.outputs.containerName",
    ),
    ("every_replica_sees_what_another_wrote_and_backups_are_continuous", COSMOS, "'Strong'", "'Session'"),
    (
        "every_replica_sees_what_another_wrote_and_backups_are_continuous",
        COSMOS,
        "enableMultipleWriteLocations: false",
        "enableMultipleWriteLocations: true",
    ),
    (
        "every_replica_sees_what_another_wrote_and_backups_are_continuous",
        COSMOS,
        "type: 'Continuous'",
        "type: 'Periodic'",
    ),
    ("every_replica_sees_what_another_wrote_and_backups_are_continuous", COSMOS, "'Tls12'", "'Tls'"),
    ("no_key_and_no_plain_http_opens_anything", COMMUNICATION, "disableLocalAuth: true", "disableLocalAuth: false"),
    ("no_key_and_no_plain_http_opens_anything", COSMOS, "disableLocalAuth: true", ""),
    ("no_key_and_no_plain_http_opens_anything", COSMOS, "MetadataWriteAccess: true", "MetadataWriteAccess: false"),
    ("no_key_and_no_plain_http_opens_anything", REGISTRY, "adminUserEnabled: false", "adminUserEnabled: true"),
    ("no_key_and_no_plain_http_opens_anything", API, "allowInsecure: false", "allowInsecure: true"),
    # Contributor
    (
        "the_identity_has_these_roles_and_no_others",
        REGISTRY,
        "7f951dda-4ed3-4680-a7ca-43fe172d538d",
        "b24988ac-6180-42a0-ab88-20f7382dd24c",
    ),
    ("the_identity_has_these_roles_and_no_others", COMMUNICATION, "  scope: service\n", ""),
    ("the_identity_may_do_with_mappings_what_the_store_does", COSMOS, f"'{ITEMS}/create'", f"'{ITEMS}/upsert'"),
    ("the_identity_may_do_with_mappings_what_the_store_does", COSMOS, f"'{ITEMS}/delete'", ""),
    ("the_identity_may_do_with_mappings_what_the_store_does", COSMOS, "/colls/${containerName}", ""),
    (
        "no_key_is_listed_and_no_output_is_a_secret",
        COSMOS,
        "account.properties.documentEndpoint",
        "account.listKeys().primaryMasterKey",
    ),
    (
        "no_key_is_listed_and_no_output_is_a_secret",
        RESOURCES,
        "output uri string = api.outputs.uri",
        "output apiKey string = 'x'",
    ),
    (
        "no_key_is_listed_and_no_output_is_a_secret",
        MONITORING,
        "= workspace.id\n",
        "= insights.properties.ConnectionString\n",
    ),
    ("no_log_holds_who_the_users_are", COSMOS, "'ControlPlaneRequests'", "'DataPlaneRequests'"),
    (
        "the_api_registration_fits_what_the_service_accepts",
        APPLICATIONS,
        "value: 'access_as_user'",
        "value: 'user_impersonation'",
    ),
    ("the_api_registration_fits_what_the_service_accepts", REGISTER, "value=='access_as_user'", "value=='user'"),
    ("the_api_registration_fits_what_the_service_accepts", TRUST, "TokenVersion: 2", "TokenVersion: 1"),
    ("the_api_registration_fits_what_the_service_accepts", TRUST, "'api://${apiClientId}'", "'api://acs-auth'"),
    ("the_api_registration_fits_what_the_service_accepts", TRUST, "1fd5118e", "00000000"),
    ("template_and_script_ask_for_the_same_permissions", TRUST, "de8ec1df", "00000000"),
    ("template_and_script_ask_for_the_same_permissions", REGISTER, "6290af7f", "00000000"),
    ("azd_finds_what_it_needs", "azure.yaml", "  api:", "  service:"),
    ("azd_finds_what_it_needs", MAIN, "output AZURE_CONTAINER_REGISTRY_ENDPOINT", "output AZURE_REGISTRY"),
    ("every_parameter_can_be_given_in_an_azd_environment", PARAMETERS, '"alertEmail"', '"email"'),
    (
        "every_parameter_can_be_given_in_an_azd_environment",
        PARAMETERS,
        "${STORAGE_BACKEND=cosmos}",
        "${STORAGE_BACKEND=graph}",
    ),
    ("the_image_holds_what_runs_and_nothing_else", ".dockerignore", "!storage/", "!storage/\n!local_azure/"),
    ("the_image_holds_what_runs_and_nothing_else", ".dockerignore", "*\n!LICENSE", "!LICENSE"),
    ("the_image_holds_what_runs_and_nothing_else", "Dockerfile", "USER 10001:10001\n", ""),
    ("the_image_holds_what_runs_and_nothing_else", "Dockerfile", "USER 10001:10001", "USER 0:0"),
    ("the_image_holds_what_runs_and_nothing_else", "Dockerfile", 'CMD ["serve"]', "CMD serve"),
    ("the_image_holds_what_runs_and_nothing_else", "Dockerfile", "STOPSIGNAL", "RUN apt-get update\nSTOPSIGNAL"),
    ("the_image_is_built_from_locks_by_any_builder", "Dockerfile", "/venv --require-hashes --only", "/venv --only"),
    ("the_image_is_built_from_locks_by_any_builder", "Dockerfile", "--wheel --require-hashes", "--wheel"),
    (
        "the_image_is_built_from_locks_by_any_builder",
        "Dockerfile",
        "RUN uv venv",
        "RUN --mount=type=cache,target=/c uv venv",
    ),
    ("the_image_is_built_from_locks_by_any_builder", "Makefile", "uv==", "uv==0"),
    ("the_image_is_built_from_locks_by_any_builder", "Dockerfile", "python:3.13-slim", "python:3.9-slim"),
    ("ci_runs_every_supported_python", ".github/workflows/ci.yml", '["3.11", "3.12", "3.13"]', '["3.11", "3.13"]'),
    ("every_action_is_pinned_by_commit", WORKFLOW, "@df4cb1c069e1874edd31b4311f1884172cec0e10 # v6.0.3", "@v6"),
    (
        "every_workflow_has_the_least_permissions",
        WORKFLOW,
        "permissions:\n  contents: read\nenv",
        "permissions: write-all\nenv",
    ),
    ("every_workflow_has_the_least_permissions", WORKFLOW, "packages: write # pushes the image", "packages: write"),
]

BY_NAME: dict[str, Contract] = {each.__name__: each for each in CONTRACTS}


@pytest.mark.parametrize("contract", CONTRACTS, ids=BY_NAME)
def test_the_deployment_keeps(contract: Contract) -> None:
    assert faults(contract, FILES) == []


@pytest.mark.parametrize(
    ("contract", "path", "right", "wrong"),
    MUTATIONS,
    ids=[f"{name}-{number}" for number, (name, *_) in enumerate(MUTATIONS)],
)
def test_a_deployment_that_breaks_a_contract_is_noticed(contract: str, path: str, right: str, wrong: str) -> None:
    assert right in FILES[path], "there is nothing to break"
    broken = {**FILES, path: FILES[path].replace(right, wrong)}
    assert faults(BY_NAME[contract], broken) != []


def test_each_contract_is_seen_to_notice_something() -> None:
    assert {name for name, *_ in MUTATIONS} == BY_NAME.keys()


def test_a_template_named_for_the_service_is_noticed() -> None:
    assert faults(BY_NAME["azd_finds_what_it_needs"], {**FILES, "infra/api.bicep": ""}) != []
