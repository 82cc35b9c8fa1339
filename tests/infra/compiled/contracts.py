"""What a deployment must be so that the service works and nobody gets in. Each contract yields its faults.

They read what Azure would be asked for, not how it is written, so a test can show each of them one that breaks it.
"""

import base64
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from unittest import mock

from quart import Quart

from quart_app.serving.server import CLOSING_SECONDS, DRAIN_SECONDS, STARTING_SECONDS, TELEMETRY_SECONDS
from quart_app.settings import (
    GROUPS,
    CosmosSettings,
    EntraSettings,
    InvalidSettings,
    ServerSettings,
    TeamsSettings,
    load_settings,
    variable_name,
    variable_names,
)
from quart_app.web.readiness import Readiness
from quart_app.web.routes.health import health_routes
from storage.cosmos import INDEXING_POLICY, PARTITION_KEY_PATH
from tests.infra.compiled.deployments import GUID, Deployment
from tests.infra.contracts import PERMISSIONS
from tests.infra.settings import SECRET

Contract = Callable[[Deployment], Iterator[str]]

PORT = ServerSettings.model_fields["port"].default
PROBES = {"Startup": "/health/startup", "Liveness": "/health/live", "Readiness": "/health/ready"}
ACS, COSMOS = "Microsoft.Communication/communicationServices", "Microsoft.DocumentDB/databaseAccounts"
APP, JOB, ENVIRONMENT = "Microsoft.App/containerApps", "Microsoft.App/jobs", "Microsoft.App/managedEnvironments"
REGISTRY, VAULT = "Microsoft.ContainerRegistry/registries", "Microsoft.KeyVault/vaults"
NETWORK_PREFIX = "Microsoft.Network/"
APPLICATION = "Microsoft.Graph/applications"

STANDING_FOR = {
    "ACS_ENDPOINT": "https://acs-abc.europe.communication.azure.com",
    "APPLICATIONINSIGHTS_CONNECTION_STRING": f"InstrumentationKey={GUID};IngestionEndpoint=https://example.com/",
    "COSMOS_ENDPOINT": "https://cosmos-abc.documents.azure.com:443/",
    "DOCS_CLIENT_ID": GUID,
    "ENTRA_AUTHORITY_HOST": "https://login.microsoftonline.com/",
    "ENTRA_CLIENT_ID": GUID,
    "ENTRA_MANAGED_IDENTITY_CLIENT_ID": GUID,
    "GRAPH_SEAL_KEYS": base64.b64encode(bytes(range(32))).decode(),
    "LOG_HASH_KEY": "a secret",
    "TEAMS_CLIENT_IDS": GUID,
}
"""What Azure puts in place of expressions and references, by variable."""

ROLES = {
    "7f951dda-4ed3-4680-a7ca-43fe172d538d": "/providers/Microsoft.ContainerRegistry/registries/",  # AcrPull
    # Communication and Email Service Owner
    "09976791-48a7-449e-bb21-39d1a415f350": "/providers/Microsoft.Communication/communicationServices/",
    "4633458b-17de-408a-b874-0445c86b69e6": "/providers/Microsoft.KeyVault/vaults/",  # Key Vault Secrets User
    "b9a307c4-5aa3-4b52-ba60-2b17c136cd7b": "/providers/Microsoft.App/jobs/",  # Container Apps Jobs Operator
}
"""Each role that is assigned, and the kind of resource on which it is."""
COSMOS_ACTIONS = {
    f"Microsoft.DocumentDB/databaseAccounts/{action}"
    for action in (
        "readMetadata",  # of the container, when the store opens
        "sqlDatabases/containers/executeQuery",  # to list mappings
        "sqlDatabases/containers/items/create",
        "sqlDatabases/containers/items/read",
        "sqlDatabases/containers/items/replace",  # to mark a mapping that is being deleted
        "sqlDatabases/containers/items/delete",
    )
}
"""What the store does: https://learn.microsoft.com/azure/cosmos-db/nosql/reference-data-plane-security"""
NOT_TAGGED = {
    "microsoft.graph/",
    "microsoft.authorization/",
    "microsoft.consumption/",
    "microsoft.insights/diagnosticsettings",
}
"""What can't carry tags, by how its type begins; child resources can't either."""


def faults(contract: Contract, deployment: Deployment) -> list[str]:
    """What breaks the contract; a part that is missing does, too."""
    try:
        return list(contract(deployment))
    except (KeyError, IndexError, TypeError) as error:
        return [f"something is missing: {error!r}"]


def every_variable_is_a_setting(deployment: Deployment) -> Iterator[str]:
    known = {
        *variable_names(),
        "OTEL_TRACES_SAMPLER",
        "OTEL_TRACES_SAMPLER_ARG",
        "APPLICATIONINSIGHTS_SDKSTATS_DISABLED",
    }
    for container in deployment.containers:
        yield from (f"{name} is not a setting" for name in _variables(container) if name not in known)


def the_service_starts_with_its_variables(deployment: Deployment) -> Iterator[str]:
    if not deployment.outputs.get("SERVICE_API_CONFIGURATION"):
        return  # azd's own deployment of the service: its configuration is the other's output
    for container in deployment.containers:
        given = {
            name: STANDING_FOR[name] if value == "secret" or value.startswith("[") else value
            for name, value in _variables(container).items()
        }
        with _environment(given):
            try:
                load_settings(env_file=None)
            except InvalidSettings as error:
                yield from error.faults


def no_variable_shows_a_secret(deployment: Deployment) -> Iterator[str]:
    secrets = {
        variable_name(group, name)
        for group in GROUPS.values()
        for name, field in group.model_fields.items()
        if "SecretStr" in str(field.annotation)
    } - {"APPLICATIONINSIGHTS_CONNECTION_STRING"}  # with it one can send telemetry, and read none
    for container in deployment.containers:
        shown = {each["name"] for each in container["env"] if "value" in each}
        yield from (f"{name} is shown" for name in sorted(shown & secrets))


def a_secret_is_read_from_the_vault_with_the_identity(deployment: Deployment) -> Iterator[str]:
    for each in deployment.all(APP) + deployment.all(JOB):
        (identity,) = each["identity"]["userAssignedIdentities"]
        if each["identity"]["type"] != "UserAssigned":
            yield f"{each['name']} has another identity, too"
        held = {secret["name"]: secret for secret in each["properties"]["configuration"]["secrets"]}
        for container in each["properties"]["template"]["containers"]:
            used = {variable["secretRef"] for variable in container["env"] if "secretRef" in variable}
            yield from (f"there is no secret {name}" for name in sorted(used ^ held.keys()))
        for name, secret in held.items():
            if secret.keys() != {"name", "keyVaultUrl", "identity"} or secret["identity"] != identity:
                yield f"{name} is not read from the vault with the identity"


def every_place_names_the_same_port(deployment: Deployment) -> Iterator[str]:
    if deployment.app is None:
        return
    (container,) = deployment.app["properties"]["template"]["containers"]
    ingress = deployment.app["properties"]["configuration"]["ingress"]
    places = {f"the {probe['type']} probe": probe["httpGet"]["port"] for probe in container["probes"]}
    places["PORT"] = int(_variables(container)["PORT"])
    if isinstance(ingress, dict):
        places["the ingress"] = ingress["targetPort"]
    yield from (f"{place} says {port}, the service listens on {PORT}" for place, port in places.items() if port != PORT)


def each_probe_asks_its_own_path_and_the_path_exists(deployment: Deployment) -> Iterator[str]:
    if deployment.app is None:
        return
    (container,) = deployment.app["properties"]["template"]["containers"]
    asked = {probe["type"]: probe["httpGet"]["path"] for probe in container["probes"]}
    if asked != PROBES:
        yield f"the probes ask {asked}"
    probed = Quart("probed")
    probed.register_blueprint(health_routes(Readiness({})))
    routes = {rule.rule for rule in probed.url_map.iter_rules()}
    yield from (f"there is no {path}" for path in asked.values() if path not in routes)


def the_platform_waits_longer_than_the_service_drains(deployment: Deployment) -> Iterator[str]:
    if deployment.app is not None:
        grace = deployment.app["properties"]["template"]["terminationGracePeriodSeconds"]
        longest_delay = 10  # SHUTDOWN_DELAY_SECONDS
        stopping = longest_delay + DRAIN_SECONDS + CLOSING_SECONDS + TELEMETRY_SECONDS
        if grace <= stopping + 2:
            yield f"killed after {grace} s, while stopping may take {stopping} s"


def the_platform_waits_longer_than_a_start_is_repeated(deployment: Deployment) -> Iterator[str]:
    if deployment.app is not None:
        (container,) = deployment.app["properties"]["template"]["containers"]
        (probe,) = (each for each in container["probes"] if each["type"] == "Startup")
        patience = probe["periodSeconds"] * probe["failureThreshold"]
        if patience <= STARTING_SECONDS + 20:  # the last try takes a while, too
            yield f"restarted after {patience} s, while a start is repeated for {STARTING_SECONDS} s"


def it_scales_by_simultaneous_requests_and_survives_the_loss_of_a_replica(deployment: Deployment) -> Iterator[str]:
    if deployment.app is not None:
        scale = deployment.app["properties"]["template"]["scale"]
        if "concurrentRequests" not in scale["rules"][0]["http"]["metadata"]:
            yield "there is no HTTP rule"
        if not 2 <= scale["minReplicas"] < scale["maxReplicas"]:
            yield f"{scale['minReplicas']} to {scale['maxReplicas']} replicas"


def what_people_set_on_the_app_is_handed_back(deployment: Deployment) -> Iterator[str]:
    """Of an app that exists, the ingress is computed from what it has: domains, addresses, whether it is on."""
    if deployment.app is None:
        return
    ingress = deployment.app["properties"]["configuration"]["ingress"]
    if isinstance(ingress, dict):
        if ingress["customDomains"] or ingress["ipSecurityRestrictions"] or not ingress["external"]:
            yield f"a new app starts with {ingress}"
        return
    for kept in ("customDomains", "ipSecurityRestrictions"):
        if not re.search(
            rf"'{kept}', if\(parameters\('exists'\), reference\('[^']*/running'[^)]*\)\.outputs\.{kept}\.value", ingress
        ):
            yield f"{kept} are not handed back"
    if "null(), createObject('external', true()" not in ingress:
        yield "an ingress that was switched off is switched on again"


def the_container_is_made_as_the_store_needs_it(deployment: Deployment) -> Iterator[str]:
    defaults = {name: field.default for name, field in CosmosSettings.model_fields.items()}
    for made in deployment.all(f"{COSMOS}/sqlDatabases/containers"):
        _, database, name = made["name"].split("/")
        container = made["properties"]["resource"]
        if (database, name, container["id"]) != (defaults["database"], defaults["container"], defaults["container"]):
            yield f"{database}/{name} is not called as the code calls it by default"
        if container["partitionKey"]["paths"] != [PARTITION_KEY_PATH]:
            yield "the partition key"
        if container["indexingPolicy"] != INDEXING_POLICY:
            yield "the indexing policy"
        if "defaultTtl" in container:
            yield "items expire"
        for each in deployment.containers:
            told = _variables(each)
            if (told["COSMOS_DATABASE"], told["COSMOS_CONTAINER"]) != (database, name):
                yield "the service is told of another container"


def every_replica_sees_what_another_wrote_and_backups_are_continuous(deployment: Deployment) -> Iterator[str]:
    for account in deployment.all(COSMOS):
        yield from _deviations(
            account,
            {
                "consistencyPolicy.defaultConsistencyLevel": "Strong",
                "enableMultipleWriteLocations": False,
                "backupPolicy.type": "Continuous",
                "minimalTlsVersion": "Tls12",
            },
        )


def no_key_and_no_plain_http_opens_anything(deployment: Deployment) -> Iterator[str]:
    wanted: dict[str, dict[str, object]] = {
        ACS: {"disableLocalAuth": True},
        COSMOS: {"disableLocalAuth": True, "disableKeyBasedMetadataWriteAccess": True},
        REGISTRY: {"adminUserEnabled": False, "anonymousPullEnabled": False},
        VAULT: {"enableRbacAuthorization": True, "enablePurgeProtection": True, "enableSoftDelete": True},
        "Microsoft.OperationalInsights/workspaces": {"features.disableLocalAuth": True},
    }
    for kind, properties in wanted.items():
        for each in deployment.all(kind):
            yield from _deviations(each, properties)
    ingress = deployment.app["properties"]["configuration"]["ingress"] if deployment.app else None
    if isinstance(ingress, dict) and ingress["allowInsecure"] is not False:
        yield "plain http is answered"


def a_private_network_leaves_no_other_way_in(deployment: Deployment) -> Iterator[str]:
    private = any(each["type"].startswith(NETWORK_PREFIX) for each in deployment.resources)
    for account in deployment.all(COSMOS):
        yield from _deviations(account, {"publicNetworkAccess": "Disabled" if private else "Enabled"})
    for environment in deployment.all(ENVIRONMENT):
        network = environment["properties"].get("vnetConfiguration")
        if private and (not network or not network["infrastructureSubnetId"].endswith("/subnets/apps")):
            yield "the service is outside the network"
        if not private and (network or environment["properties"]["zoneRedundant"]):
            yield "the service has a network, or zones, of which nothing was said"
    for endpoint in deployment.all("Microsoft.Network/privateEndpoints"):
        (connection,) = endpoint["properties"]["privateLinkServiceConnections"]
        account_name = connection["properties"]["privateLinkServiceId"].rpartition("/")[2]
        if endpoint["name"] != f"pep-{account_name}":
            yield f"{endpoint['name']} does not follow its target {account_name}"


def the_identity_has_these_roles_and_no_others(deployment: Deployment) -> Iterator[str]:
    for assigned in deployment.all("Microsoft.Authorization/roleAssignments"):
        role = assigned["properties"]["roleDefinitionId"].rpartition("/")[2]
        scope = re.match(
            r"(?:\[format\('\{0\}/[^']*', ')?([^']*?)(?:/providers/Microsoft.Authorization|', )", assigned["id"]
        )
        if role not in ROLES:
            yield f"role {role} is assigned"
        elif ROLES[role].lower() not in assigned["id"].lower():
            yield f"role {role} is assigned on {scope[1] if scope else assigned['id']}"


def the_identity_may_do_with_mappings_what_the_store_does(deployment: Deployment) -> Iterator[str]:
    allowed = {
        each["properties"]["roleName"]: set(each["properties"]["permissions"][0]["dataActions"])
        for each in deployment.all(f"{COSMOS}/sqlRoleDefinitions")
    }
    if deployment.all(COSMOS) and allowed != {
        "Identity mappings": COSMOS_ACTIONS,
        "Account metadata": {"Microsoft.DocumentDB/databaseAccounts/readMetadata"},
    }:
        yield f"the roles allow {allowed}"
    mapping_roles = {
        each["id"]
        for each in deployment.all(f"{COSMOS}/sqlRoleDefinitions")
        if each["properties"]["roleName"] == "Identity mappings"
    }
    for assigned in deployment.all(f"{COSMOS}/sqlRoleAssignments"):
        in_container = assigned["properties"]["scope"].endswith("/dbs/acs-auth/colls/identity-mappings")
        if (assigned["properties"]["roleDefinitionId"] in mapping_roles) != in_container:
            yield f"a role holds in {assigned['properties']['scope']}"


def no_log_holds_who_the_users_are(deployment: Deployment) -> Iterator[str]:
    """DataPlaneRequests names items, AuthOperational identities; both stand for people."""
    for each in deployment.all("Microsoft.Insights/diagnosticSettings"):
        kept = {log.get("category", log.get("categoryGroup")) for log in each["properties"]["logs"]}
        for category in sorted(kept & {"DataPlaneRequests", "AuthOperational", "allLogs", "audit"}):
            yield f"{category} is kept"


def the_registrations_fit_what_the_service_accepts(deployment: Deployment) -> Iterator[str]:
    entra = EntraSettings(ENTRA_TENANT_ID=GUID, ENTRA_CLIENT_ID=GUID)  # type: ignore[call-arg]
    applications = [each["properties"] for each in deployment.all(APPLICATION)]
    for api in (each for each in applications if each["uniqueName"].endswith("-api")):
        if [scope["value"] for scope in api["api"]["oauth2PermissionScopes"]] != [entra.required_scope]:
            yield "the scope"
        if api["api"]["requestedAccessTokenVersion"] != 2:
            yield "the token version"
        if api["optionalClaims"]["accessToken"] != [{"name": "xms_cc"}]:
            yield "the claim that tells whether a client understands claims challenges"
        uris = api.get("identifierUris")
        if uris and not re.fullmatch(r"\[format\('api://\{0\}', reference\('api'\)\.appId\)\]", uris[0]):
            yield "the App ID URI"
    permissions = {
        access["id"]
        for each in applications
        for resource in each.get("requiredResourceAccess", [])
        if resource["resourceAppId"] != "[reference('api').appId]"
        for access in resource["resourceAccess"]
    }
    if permissions - set(PERMISSIONS.values()):
        yield f"the script does not ask for {permissions - set(PERMISSIONS.values())}"
    asked = {
        resource["resourceAppId"] for each in applications for resource in each.get("requiredResourceAccess", [])
    } - {"[reference('api').appId]", "00000003-0000-0000-c000-000000000000"}
    if asked - set(TeamsSettings.model_fields["audiences"].default):
        yield f"permissions of {asked} are asked for"
    for credential in deployment.all(f"{APPLICATION}/federatedIdentityCredentials"):
        if not credential["properties"]["subject"].endswith(".principalId]"):
            yield "the API's registration does not trust the managed identity"
    if any(
        each["properties"].get("appId") == "1fd5118e-2576-4263-8130-9503064c837a"
        for each in deployment.all("Microsoft.Graph/servicePrincipals")
    ):
        yield "Microsoft's own service principal is written"


def everything_carries_the_tag_by_which_azd_finds_it(deployment: Deployment) -> Iterator[str]:
    for each in deployment.resources:
        kind = each["type"].lower()
        if not any(kind.startswith(begin) for begin in NOT_TAGGED) and "tags" not in each and kind.count("/") == 1:
            yield f"{each['type']} {each.get('name')} has no tags"
        if each.get("tags", {"azd-env-name": "prod"}).get("azd-env-name") != "prod":
            yield f"{each['name']} is another environment's"
    # The second region's app is not azd's: it would not know which one to deploy.
    if deployment.app is not None and deployment.app["tags"].get("azd-service-name") not in ("api", "none"):
        yield "azd does not find the container app"


def no_output_is_a_secret(deployment: Deployment) -> Iterator[str]:
    secret = re.compile(r"list[A-Z]\w*\(|key(?!vault)|password|connection.?string", re.IGNORECASE)
    for name, value in deployment.outputs.items():
        text = str(value).replace("KeyVault", "")
        for setting in SECRET:  # the name says where a secret goes, and is none
            text = text.replace(setting, "").replace(setting.lower().replace("_", "-"), "")
        if secret.search(name) or secret.search(text):
            yield f"output {name}"


def a_placeholder_never_runs(deployment: Deployment) -> Iterator[str]:
    for container in deployment.containers:
        if not re.search(r"/[^/]+:[^:]+$", container["image"]) or "mcr.microsoft.com" in container["image"]:
            yield f"the image is {container['image']}"


CONTRACTS: list[Contract] = [
    each
    for name, each in list(globals().items())
    if getattr(each, "__annotations__", {}) == {"deployment": Deployment, "return": Iterator[str]}
]
"""All of them."""


def _variables(container: Mapping[str, Any]) -> dict[str, str]:
    """The environment variables of a container; what comes from the vault reads `secret`."""
    return {each["name"]: each.get("value", "secret") for each in container["env"]}


def _deviations(resource: Mapping[str, Any], wanted: Mapping[str, object]) -> Iterator[str]:
    for path, value in wanted.items():
        found: Any = resource["properties"]
        for step in path.split("."):
            found = found.get(step) if isinstance(found, dict) else None
        if found != value:
            yield f"{resource['name']}: {path} is {found}, not {value}"


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    with mock.patch.dict(os.environ, variables, clear=True):
        yield
