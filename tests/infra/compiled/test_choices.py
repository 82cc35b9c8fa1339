"""A choice that can't be read, or contradicts another one, stops the deployment with a sentence."""

import json
from collections.abc import Mapping

import pytest

from tests.infra import azd
from tests.infra.bicep import Bicep
from tests.infra.compiled.contracts import APPLICATION, COSMOS, ENVIRONMENT
from tests.infra.compiled.deployments import CONFIGURATION, EXISTING_ACS, FIRST, Deployment

REFUSED = [
    ({"PRIVATE_NETWORK": "yes"}, 'PRIVATE_NETWORK must be true or false, not "yes".'),
    ({"ZONE_REDUNDANT": "Yes"}, 'ZONE_REDUNDANT must be true or false, not "Yes".'),
    ({"INTERNAL_INGRESS": "on"}, 'INTERNAL_INGRESS must be true or false, not "on".'),
    ({"CREATE_APP_REGISTRATIONS": "no"}, 'CREATE_APP_REGISTRATIONS must be true or false, not "no".'),
    ({"MONTHLY_BUDGET": "99.50"}, 'MONTHLY_BUDGET must be a whole number, not "99.50".'),
    ({"MIN_REPLICAS": "ten"}, 'MIN_REPLICAS must be a whole number, not "ten".'),
    ({"MAX_REPLICAS": "-1"}, 'MAX_REPLICAS must be a whole number, not "-1".'),
    ({"CONCURRENT_REQUESTS": "0"}, "CONCURRENT_REQUESTS must be at least 1."),
    ({"COSMOS_MAX_THROUGHPUT": "1500"}, "COSMOS_MAX_THROUGHPUT must be a multiple of 1000."),
    ({"INTERNAL_INGRESS": "true"}, "INTERNAL_INGRESS=true needs PRIVATE_NETWORK=true"),
    (
        {"ONLY_FRONT_DOOR": "true", "PRIVATE_NETWORK": "true"},
        "ONLY_FRONT_DOOR=true and PRIVATE_NETWORK=true are two ways",
    ),
    ({"ZONE_REDUNDANT": "true"}, "ZONE_REDUNDANT=true needs PRIVATE_NETWORK=true"),
    ({"MIN_REPLICAS": "20", "MAX_REPLICAS": "2"}, "MIN_REPLICAS (20) must not be more than MAX_REPLICAS (2)."),
    ({"COSMOS_READ_REGIONS": "northeurope"}, "COSMOS_READ_REGIONS needs COSMOS_CAPACITY=autoscale"),
    (
        {"COSMOS_READ_REGIONS": "West Europe", "COSMOS_CAPACITY": "autoscale"},
        "COSMOS_READ_REGIONS must not name westeurope",
    ),
    (
        {"COSMOS_READ_REGIONS": "northeurope,northeurope", "COSMOS_CAPACITY": "autoscale"},
        "COSMOS_READ_REGIONS names one of its values twice",
    ),
    ({"BROWSER_REDIRECT_URIS": "https://a/,https://a/"}, "BROWSER_REDIRECT_URIS names one of its values twice"),
    ({"CORS_ALLOWED_ORIGINS": "*"}, "CORS_ALLOWED_ORIGINS takes exact origins"),
    ({"ACS_DATA_LOCATION": ""}, "Set ACS_DATA_LOCATION"),
    ({"EXISTING_ACS_RESOURCE_ID": "acs-kept"}, "EXISTING_ACS_RESOURCE_ID must be /subscriptions/ID/"),
    ({"CREATE_APP_REGISTRATIONS": "false"}, "Set API_CLIENT_ID"),
    ({"MONTHLY_BUDGET": "100", "BUDGET_START_DATE": "2026-11-01"}, "MONTHLY_BUDGET needs ALERT_EMAIL"),
    ({"MONTHLY_BUDGET": "100", "ALERT_EMAIL": "ops@example.com"}, "MONTHLY_BUDGET needs BUDGET_START_DATE"),
    ({"RESOURCE_TAGS": "owner"}, "RESOURCE_TAGS must be NAME=VALUE pairs"),
    ({"OIDC_ISSUER": "https://issuer.example.com/"}, "OIDC_ISSUER needs OIDC_AUDIENCE"),
    (
        {"OIDC_ISSUER": "https://issuer.example.com/", "OIDC_AUDIENCE": "a", "STORAGE_BACKEND": "graph"},
        "STORAGE_BACKEND=graph is for users of Microsoft Entra ID",
    ),
    ({"TWO_DOORS": "true"}, "TWO_DOORS=true needs OIDC_ISSUER"),
    (
        {
            "TWO_DOORS": "true",
            "OIDC_ISSUER": "https://issuer.example.com/",
            "OIDC_AUDIENCE": "a",
            "CREATE_APP_REGISTRATIONS": "false",
        },
        "Set API_CLIENT_ID",
    ),
    (
        {"ENTRA_RESOLVE_SCOPE": "resolve_users", "STORAGE_BACKEND": "graph"},
        "ENTRA_RESOLVE_SCOPE needs STORAGE_BACKEND=cosmos",
    ),
    ({"STORAGE_BACKEND": "Cosmos"}, "cosmos"),
]


@pytest.mark.parametrize(("given", "sentence"), REFUSED, ids=[",".join(given) for given, _ in REFUSED])
def test_nothing_is_deployed(given: Mapping[str, str], sentence: str, bicep: Bicep) -> None:
    snapshot, said = bicep.snapshot("main", azd.parameters({**FIRST, **given}))
    assert snapshot == {}
    assert sentence in said


def test_all_faults_are_told_at_once(bicep: Bicep) -> None:
    _, said = bicep.snapshot("main", azd.parameters(FIRST | {"INTERNAL_INGRESS": "true", "MIN_REPLICAS": "11"}))
    assert "INTERNAL_INGRESS=true needs" in said
    assert "MIN_REPLICAS (11)" in said


@pytest.mark.parametrize("text", ["TRUE", "1", " true "])
def test_a_switch_may_be_written_in_several_ways(text: str, bicep: Bicep) -> None:
    deployment = deployed(bicep, {"PRIVATE_NETWORK": text})
    assert deployment.one(COSMOS)["properties"]["publicNetworkAccess"] == "Disabled"


@pytest.mark.parametrize("text", ["", "0", "False"])
def test_a_switch_that_is_off_or_empty_is_off(text: str, bicep: Bicep) -> None:
    assert deployed(bicep, {"PRIVATE_NETWORK": text}).one(ENVIRONMENT)["properties"].get("vnetConfiguration") is None


@pytest.mark.parametrize(
    ("console", "registered"), [("true", True), ("TRUE", True), ("1", True), ("false", False), ("", False)]
)
def test_the_console_may_sign_in_where_it_is_switched_on(console: str, registered: bool, bicep: Bicep) -> None:
    deployment = deployed(bicep, {"CONSOLE": console})
    (redirects,) = [
        each["properties"]["spa"]["redirectUris"] for each in deployment.all(APPLICATION) if "spa" in each["properties"]
    ]
    docs = redirects[1]
    assert "/docs/oauth2-redirect.html" in docs
    assert redirects[2:] == ([docs.replace("/docs/oauth2-redirect.html", "/")] if registered else [])


def test_lists_may_have_blanks_and_a_comma_at_the_end(bicep: Bicep) -> None:
    deployment = deployed(bicep, {"BROWSER_REDIRECT_URIS": "https://a/, https://b/,"})
    (redirects,) = [
        each["properties"]["spa"]["redirectUris"] for each in deployment.all(APPLICATION) if "spa" in each["properties"]
    ]
    assert redirects[:2] == ["https://a/", "https://b/"]
    assert len(redirects) == 3


def test_an_existing_acs_resource_is_not_made_again(bicep: Bicep) -> None:
    deployment = deployed(bicep, {"EXISTING_ACS_RESOURCE_ID": EXISTING_ACS, "ACS_DATA_LOCATION": ""})
    assert deployment.all("Microsoft.Communication/communicationServices") == []
    assert deployment.outputs["DEPLOYED_ACS_RESOURCE_ID"].lower() == EXISTING_ACS.lower()


def test_every_setting_that_is_given_reaches_the_container(bicep: Bicep) -> None:
    given = {name: f"value-of-{name}" for name in azd.PARAMETERS["serviceSettings"]["value"] if "OIDC" not in name}
    deployment = deployed(bicep, {**given, "CONTAINER_IMAGE": "ghcr.io/owner/repository:1"})
    for container in deployment.containers:
        variables = {each["name"]: each.get("value") for each in container["env"]}
        assert {name: variables.get(name) for name in given} == given


def test_the_scope_for_colleagues_identities_is_made_only_if_it_is_wanted_and_given_to_no_client(bicep: Bicep) -> None:
    deployment = deployed(bicep, {"ENTRA_RESOLVE_SCOPE": "resolve_users"})
    applications = [each["properties"] for each in deployment.all(APPLICATION)]
    for api in (each for each in applications if each["uniqueName"].endswith("-api")):
        usual, besides = api["api"]["oauth2PermissionScopes"]
        assert (usual["value"], usual["type"]) == ("access_as_user", "User")
        assert (besides["value"], besides["type"]) == ("resolve_users", "Admin")
        assert besides["id"] != usual["id"]
    assert besides["id"] not in json.dumps(
        [
            [each.get("requiredResourceAccess"), each.get("api", {}).get("preAuthorizedApplications")]
            for each in applications
        ]
    )


def test_an_unknown_setting_is_refused(bicep: Bicep) -> None:
    parameters = azd.parameters(FIRST)
    snapshot, said = bicep.snapshot("main", {**parameters, "serviceSettings": {"ACS_TOKEN_SCOPE": "chat"}})
    assert snapshot == {}
    assert "ACS_TOKEN_SCOPE" in said


@pytest.mark.parametrize(
    "missing", ["SERVICE_API_CONFIGURATION", "SERVICE_API_IMAGE_NAME", "SERVICE_API_RESOURCE_EXISTS"]
)
def test_azd_deploys_nothing_without_knowing_what_runs(missing: str, bicep: Bicep) -> None:
    known = {
        "SERVICE_API_CONFIGURATION": json.dumps(CONFIGURATION),
        "SERVICE_API_IMAGE_NAME": "cr.azurecr.io/acs-auth:1",
        "SERVICE_API_RESOURCE_EXISTS": "true",
    }
    parameters, said = bicep.parameters("api.bicepparam", known)
    assert (parameters["exists"], said) == (True, [])
    _, said = bicep.parameters("api.bicepparam", {name: value for name, value in known.items() if name != missing})
    assert any(missing in each for each in said)


def deployed(bicep: Bicep, given: Mapping[str, str]) -> Deployment:
    snapshot, said = bicep.snapshot("main", azd.parameters({**FIRST, **given}))
    assert snapshot, said
    return Deployment(snapshot)
