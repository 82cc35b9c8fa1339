"""What the deployment and the code must agree on. Each contract yields its faults, in sentences; none is good.

They read texts, not files, so that a test can show each of them a deployment that breaks it.
"""

import json
import os
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import yaml
from quart import Quart

from quart_app.serving.server import DRAIN_SECONDS
from quart_app.settings import (
    GROUPS,
    CosmosSettings,
    EntraSettings,
    InvalidSettings,
    ServerSettings,
    TeamsSettings,
    is_secret,
    load_settings,
    variable_name,
    variable_names,
)
from quart_app.web.readiness import Readiness
from quart_app.web.routes.health import health_routes
from storage.cosmos import INDEXING_POLICY, PARTITION_KEY_PATH
from tests.infra.bicep import Expression, Template, Value, at, texts

ROOT = Path(__file__).parents[2]
Files = Mapping[str, str]
"""The deployment's files: path in the project, text."""
Contract = Callable[[Files], Iterator[str]]

ALERTS, API, BUDGET, COMMUNICATION, COSMOS, IDENTITY, MONITORING, NETWORK, REGISTRY = (
    f"infra/modules/{name}.bicep"
    for name in ("alerts", "api", "budget", "communication", "cosmos", "identity", "monitoring", "network", "registry")
)
MAIN, RESOURCES = "infra/main.bicep", "infra/resources.bicep"
APPLICATIONS, TRUST, REGISTER = (f"infra/entra/{name}" for name in ("applications.bicep", "trust.bicep", "register.sh"))
PARAMETERS = "infra/main.parameters.json"

GUID = "11112222-bbbb-3333-cccc-4444dddd5555"
COSMOS_DEFAULTS = {name: field.default for name, field in CosmosSettings.model_fields.items()}
DEPLOYED = {
    "CORS_ALLOWED_ORIGINS": "",
    "ENTRA_AUTHORITY_HOST": "https://login.microsoftonline.com/",
    "ENTRA_TENANT_ID": GUID,
    "ENTRA_CLIENT_ID": GUID,
    "ENTRA_MANAGED_IDENTITY_CLIENT_ID": GUID,
    "TEAMS_CLIENT_IDS": GUID,
    "ACS_ENDPOINT": "https://acs-abc.europe.communication.azure.com",
    "DOCS_CLIENT_ID": GUID,
    "APPLICATIONINSIGHTS_CONNECTION_STRING": f"InstrumentationKey={GUID};IngestionEndpoint=https://example.com/",
}
"""What Azure puts in place of the expressions, by variable."""
DEPLOYED_STORE = {
    "cosmos": {
        "STORAGE_BACKEND": "cosmos",
        "COSMOS_ENDPOINT": "https://cosmos-abc.documents.azure.com:443/",
        "COSMOS_DATABASE": COSMOS_DEFAULTS["database"],
        "COSMOS_CONTAINER": COSMOS_DEFAULTS["container"],
    },
    "graph": {
        "STORAGE_BACKEND": "graph",
        "GRAPH_SEAL_KEYS": "bm90IHJhbmRvbSBhdCBhbGwsIGJ1dCBsb25nIGVub3VnaA==",
        "COSMOS_ENDPOINT": "",
        "COSMOS_DATABASE": "",
        "COSMOS_CONTAINER": "",
    },
}
PROBES = {"Startup": "/health/startup", "Liveness": "/health/live", "Readiness": "/health/ready"}
ROLES = {
    REGISTRY: {"7f951dda-4ed3-4680-a7ca-43fe172d538d"},  # AcrPull
    COMMUNICATION: {"09976791-48a7-449e-bb21-39d1a415f350"},  # Communication and Email Service Owner
}
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
PERMISSIONS = {
    "userReadWrite": "b4e74841-8e56-480b-be8b-910348b18b4c",
    "teamsManageCalls": "de8ec1df-066a-4817-bc5d-9a985b986262",
    "teamsManageChats": "6290af7f-b407-49f9-92d5-bf584fdc4019",
}


def deployment_files() -> dict[str, str]:
    """Every file that the contracts look at."""
    patterns = (
        "Dockerfile",
        ".dockerignore",
        "azure.yaml",
        "Makefile",
        "pyproject.toml",
        "infra/**/*.*",
        ".github/**/*.yml",
    )
    paths = {path for pattern in patterns for path in ROOT.glob(pattern) if path.is_file()}
    return {path.relative_to(ROOT).as_posix(): path.read_text() for path in sorted(paths)}


def faults(contract: Contract, files: Files) -> list[str]:
    """What breaks the contract; a part that is missing does, too."""
    try:
        return list(contract(files))
    except KeyError as error:
        return [f"there is no {error}"]


def every_variable_is_a_setting(files: Files) -> Iterator[str]:
    yield from (f"{name} is not a setting" for name in _variables(files) if name not in variable_names())


def the_service_starts_with_its_variables_and_either_store(files: Files) -> Iterator[str]:
    for store, of_store in DEPLOYED_STORE.items():
        deployed = {**DEPLOYED, **of_store}
        given = {
            name: deployed.get(name, "") if isinstance(value, Expression) else str(value)
            for name, value in _variables(files).items()
        }
        with _environment(given):
            try:
                load_settings(env_file=None)
            except InvalidSettings as error:
                yield from (f"{store}: {fault}" for fault in error.faults)


def no_variable_is_a_secret(files: Files) -> Iterator[str]:
    secrets = {
        variable_name(group, field)
        for group in GROUPS.values()
        for field in group.model_fields
        if is_secret(group, field)
    }
    secrets.discard("APPLICATIONINSIGHTS_CONNECTION_STRING")  # with it one can send telemetry, and read none
    yield from (f"{name} is a secret" for name in sorted(_variables(files).keys() & secrets))


def the_service_acts_as_its_managed_identity(files: Files) -> Iterator[str]:
    variables = _variables(files)
    if variables.get("ENTRA_MANAGED_IDENTITY_CLIENT_ID") != Expression("identityClientId"):
        yield "ENTRA_MANAGED_IDENTITY_CLIENT_ID is not the identity's client id"
    if variables.get("ACS_ENDPOINT") != Expression("acsEndpoint"):
        yield "ACS_ENDPOINT, with which the identity goes, is not set"
    if at(_app(files), "identity", "type") != "UserAssigned":
        yield "the container app has another identity, too"
    subject = at(_template(files, TRUST).resources["managedIdentity"].body, "subject")
    if subject != Expression("managedIdentityPrincipalId"):
        yield "the API's registration does not trust the managed identity"


def every_place_names_the_same_port(files: Files) -> Iterator[str]:
    default = str(ServerSettings.model_fields["port"].default)
    places = {
        "the ingress": at(_app(files), "properties", "configuration", "ingress", "targetPort"),
        "PORT": _variables(files).get("PORT"),
        "EXPOSE": _instruction(files, "EXPOSE"),
        "the image's PORT": _match(r"\bPORT=(\d+)", files["Dockerfile"]),
        **{f"the {kind} probe": at(probe, "httpGet", "port") for kind, probe in _probes(files).items()},
    }
    for place, value in places.items():
        port = str(_template(files, API).resolved(value))
        if port != default:
            yield f"{place} says {port}, the service listens on {default}"


def each_probe_asks_its_own_path_and_the_path_exists(files: Files) -> Iterator[str]:
    asked = {kind: at(probe, "httpGet", "path") for kind, probe in _probes(files).items()}
    if asked != PROBES:
        yield f"the probes ask {asked}"
    app = Quart("probed")
    app.register_blueprint(health_routes(Readiness({})))
    routes = {rule.rule for rule in app.url_map.iter_rules()}
    yield from (f"there is no {path}" for path in asked.values() if path not in routes)
    if PROBES["Liveness"] not in _instruction(files, "HEALTHCHECK"):
        yield "the image's health check asks another path"


def the_platform_waits_longer_than_the_service_drains(files: Files) -> Iterator[str]:
    grace = at(_app(files), "properties", "template", "terminationGracePeriodSeconds")
    if not isinstance(grace, int) or grace < DRAIN_SECONDS + 10:
        yield f"killed after {grace} s, while finishing may take {DRAIN_SECONDS} s and closing some more"


def it_scales_by_simultaneous_requests_and_survives_the_loss_of_a_replica(files: Files) -> Iterator[str]:
    scale = at(_app(files), "properties", "template", "scale")
    if "concurrentRequests" not in str(at(scale, "rules", 0, "http", "metadata")):
        yield "there is no HTTP rule"
    for path in (MAIN, RESOURCES):
        least, most = (_template(files, path).parameters[name] for name in ("minReplicas", "maxReplicas"))
        if not isinstance(least, int) or not isinstance(most, int) or not 2 <= least < most:
            yield f"{path}: {least} to {most} replicas by default"


def a_later_deployment_keeps_the_image(files: Files) -> Iterator[str]:
    api = _template(files, API)
    running = api.resources["running"]
    if not running.existing or running.body["name"] != _app(files)["name"]:
        yield "the app that runs is not looked up"
    image = "".join(texts(at(_container(files), "image")))
    if "exists ? running!.properties.template.containers[0].image" not in image:
        yield "the running image is replaced"
    if _parameters(files)["apiExists"] != "${SERVICE_API_RESOURCE_EXISTS=false}":
        yield "azd's word that the app exists is not passed on"
    if _template(files, MAIN).outputs.get("SERVICE_API_RESOURCE_EXISTS") is not True:
        yield "a pipeline does not learn from the last deployment that the app exists"


def the_same_deployment_finds_the_same_resources(files: Files) -> Iterator[str]:
    """Mappings hold for one ACS resource: its name must not change."""
    for path, template in _templates(files):
        yield from (f"{path} calls {name}" for name in sorted(template.calls & {"utcNow", "newGuid"}))
    token = Expression("toLower(uniqueString(subscription().id, environmentName, location))")
    if _template(files, MAIN).variables["token"] != token:
        yield "the names do not depend on subscription, environment and region alone"
    name = at(_template(files, RESOURCES).modules["communication"].body, "params", "name")
    if name != Expression("createAcs ? 'acs-${token}' : last(acsIdParts)!"):
        yield "the name of the ACS resource"


def the_container_is_made_as_the_store_needs_it(files: Files) -> Iterator[str]:
    cosmos = _template(files, COSMOS)
    container = at(
        cosmos.resource("Microsoft.DocumentDB/databaseAccounts/sqlDatabases/containers"), "properties", "resource"
    )
    assert isinstance(container, dict)
    if at(container, "partitionKey", "paths") != [PARTITION_KEY_PATH]:
        yield "the partition key"
    if container["indexingPolicy"] != INDEXING_POLICY:
        yield "the indexing policy"
    if "defaultTtl" in container:
        yield "items expire"
    passed = at(_template(files, RESOURCES).modules["api"].body, "params")
    for setting, name in (("database", "Database"), ("container", "Container")):
        if cosmos.resolved(cosmos.outputs[f"{setting}Name"]) != COSMOS_DEFAULTS[setting]:
            yield f"the {setting} is not called {COSMOS_DEFAULTS[setting]}, as the code does by default"
        if f"cosmos!.outputs.{setting}Name" not in "".join(texts(at(passed, f"cosmos{name}"))):
            yield f"the service is told of another {setting}"


def every_replica_sees_what_another_wrote_and_backups_are_continuous(files: Files) -> Iterator[str]:
    wanted: dict[tuple[str, ...], Value] = {
        ("consistencyPolicy", "defaultConsistencyLevel"): "Strong",
        ("enableMultipleWriteLocations",): False,
        ("backupPolicy", "type"): "Continuous",
        ("minimalTlsVersion",): "Tls12",
    }
    yield from _deviations(files, COSMOS, "Microsoft.DocumentDB/databaseAccounts", wanted)


def no_key_and_no_plain_http_opens_anything(files: Files) -> Iterator[str]:
    acs, account = "Microsoft.Communication/communicationServices", "Microsoft.DocumentDB/databaseAccounts"
    registry, app = "Microsoft.ContainerRegistry/registries", "Microsoft.App/containerApps"
    yield from _deviations(files, COMMUNICATION, acs, {("disableLocalAuth",): True})
    keyless: dict[tuple[str, ...], Value] = {("disableLocalAuth",): True, ("disableKeyBasedMetadataWriteAccess",): True}
    yield from _deviations(files, COSMOS, account, keyless)
    yield from _deviations(files, REGISTRY, registry, {("adminUserEnabled",): False, ("anonymousPullEnabled",): False})
    yield from _deviations(files, API, app, {("configuration", "ingress", "allowInsecure"): False})


def the_identity_has_these_roles_and_no_others(files: Files) -> Iterator[str]:
    for path, template in _templates(files):
        assigned = [
            each.body for each in template.resources.values() if each.kind.startswith("Microsoft.Authorization/role")
        ]
        ids = {
            found
            for body in assigned
            for found in _guids(template.resolved(at(body, "properties", "roleDefinitionId")))
        }
        if ids != ROLES.get(path, set()):
            yield f"{path} assigns {ids}"
        yield from (f"{path} assigns a role on the whole group" for body in assigned if "scope" not in body)


def the_identity_may_do_with_mappings_what_the_store_does(files: Files) -> Iterator[str]:
    resources = _template(files, COSMOS).resources
    of_role = {
        name: set(texts(at(resources[name].body, "properties", "permissions", 0, "dataActions")))
        for name in ("mappingRole", "metadataRole")
    }
    if of_role["mappingRole"] != COSMOS_ACTIONS:
        yield f"in the container it may {sorted(of_role['mappingRole'])}"
    if of_role["metadataRole"] != {"Microsoft.DocumentDB/databaseAccounts/readMetadata"}:
        yield f"in the account it may {sorted(of_role['metadataRole'])}"
    scopes = {
        str(at(each.body, "properties", "roleDefinitionId")): at(each.body, "properties", "scope")
        for each in resources.values()
        if "/sqlRoleAssignments@" in each.kind
    }
    if scopes != {
        str(Expression("mappingRole.id")): Expression("'${account.id}/dbs/${databaseName}/colls/${containerName}'"),
        str(Expression("metadataRole.id")): Expression("account.id"),
    }:
        yield f"the roles hold in {scopes}"


def no_key_is_listed_and_no_output_is_a_secret(files: Files) -> Iterator[str]:
    secret = re.compile(r"key|secret|password|connection.?string|credential", re.IGNORECASE)
    for path, template in _templates(files):
        yield from (f"{path} calls {name}" for name in sorted(template.calls) if re.match(r"list[A-Z]", name))
        for name, value in template.outputs.items():
            if any(secret.search(text) for text in (name, *texts(value))):
                yield f"{path}: output {name}"


def no_log_holds_who_the_users_are(files: Files) -> Iterator[str]:
    """DataPlaneRequests names items, AuthOperational identities; both stand for people."""
    for path, template in _templates(files):
        for each in template.resources.values():
            if each.kind.startswith("Microsoft.Insights/diagnosticSettings"):
                found = {"DataPlaneRequests", "AuthOperational", "allLogs"} & set(texts(each.body))
                yield from (f"{path} keeps {category}" for category in sorted(found))


def the_api_registration_fits_what_the_service_accepts(files: Files) -> Iterator[str]:
    entra = EntraSettings.model_validate({"ENTRA_TENANT_ID": GUID, "ENTRA_CLIENT_ID": GUID})
    trust, applications = _template(files, TRUST), _template(files, APPLICATIONS)
    if at(applications.variables["scopes"], 0, "value") != entra.required_scope:
        yield "the scope"
    if f"'{entra.required_scope}'" not in files[REGISTER]:
        yield "the scope in the script"
    for template in (trust, applications):
        if at(template.resources["api"].body, "api", "requestedAccessTokenVersion") != 2:
            yield "the token version"
    uris = at(trust.resources["api"].body, "identifierUris", 0)
    if str(uris) != str(Expression("'api://${apiClientId}'")) or f"api://{GUID}" not in entra.accepted_audiences:
        yield "the App ID URI"
    acs = trust.variables["acs"]
    if acs not in TeamsSettings.model_fields["audiences"].default or f"\nacs={acs}\n" not in files[REGISTER]:
        yield "the application id of ACS"


def template_and_script_ask_for_the_same_permissions(files: Files) -> Iterator[str]:
    for name, guid in PERMISSIONS.items():
        if _template(files, TRUST).variables.get(name) != guid:
            yield f"{name} in the template"
        if f"\n{re.sub('[A-Z]', lambda found: '_' + found[0].lower(), name)}={guid}\n" not in files[REGISTER]:
            yield f"{name} in the script"


def azd_finds_what_it_needs(files: Files) -> Iterator[str]:
    (service,) = yaml.safe_load(files["azure.yaml"])["services"]
    if at(_template(files, RESOURCES).modules["api"].body, "params", "serviceName") != service:
        yield "the container app is not tagged with the service's name"
    outputs = _template(files, MAIN).outputs.keys()
    needed = {"AZURE_LOCATION", "AZURE_RESOURCE_GROUP", "AZURE_CONTAINER_REGISTRY_ENDPOINT", "SERVICE_API_NAME"}
    yield from (f"there is no output {name}" for name in sorted(needed - outputs))
    # azd would deploy such a file instead of replacing the image (Azure/azure-dev: service_target_containerapp.go).
    yield from (f"{path} changes how azd deploys" for path in files if path.startswith(f"infra/{service}."))


def every_parameter_can_be_given_in_an_azd_environment(files: Files) -> Iterator[str]:
    given, declared = _parameters(files), _template(files, MAIN).parameters
    if given.keys() != declared.keys():
        yield f"given or declared alone: {sorted(given.keys() ^ declared.keys())}"
    for name, value in given.items():
        default = declared.get(name)
        text = "" if isinstance(default, Expression) else json.dumps(default).strip('"')
        if not re.fullmatch(rf"\$\{{[A-Z_]+(={re.escape(text)})?\}}", value) or ("=" in value) != bool(text):
            yield f"{name} is {value}, its default {text}"


def the_image_holds_what_runs_and_nothing_else(files: Files) -> Iterator[str]:
    dockerfile = files["Dockerfile"]
    last = dockerfile.rpartition("\nFROM ")[2]
    kept = {line.strip("!/") for line in files[".dockerignore"].splitlines() if line.startswith("!")}
    if kept != {"LICENSE", "README.md", "pyproject.toml", "quart_app", "requirements", "storage", "upstream"}:
        yield f"the build sees {sorted(kept)}"
    if "*" not in files[".dockerignore"].splitlines():
        yield "the build sees everything"
    if re.search(r"^(RUN|ADD)\b", last, re.MULTILINE):
        yield "the last stage does more than to copy"
    if not re.search(r"^USER [1-9]\d*:[1-9]\d*$", last, re.MULTILINE):
        yield "it runs as root, or as a name that the platform cannot check"
    if not re.search(r'^ENTRYPOINT \["acs-auth"\]\nCMD \["serve"\]$', last, re.MULTILINE):
        yield "it is started through a shell, or starts something else"


def the_image_is_built_from_locks_by_any_builder(files: Files) -> Iterator[str]:
    dockerfile = files["Dockerfile"]
    if not re.search(r"uv pip install [^&]*--require-hashes [^&]*--requirement requirements/run\.txt", dockerfile):
        yield "packages are not those of the lock"
    if not re.search(r"uv build [^&]*--require-hashes [^&]*--build-constraint requirements/dev\.txt", dockerfile):
        yield "the build back end is not that of the lock"
    # Remote builds of Azure Container Registry have no BuildKit.
    yield from (
        f"BuildKit alone knows {word}" for word in ("--mount", "--link", "<<", "# syntax=") if word in dockerfile
    )
    uv, of_make = (
        _match(rf"\buv{sign}([\d.]+)", text) for sign, text in ((":", dockerfile), ("==", files["Makefile"]))
    )
    if uv != of_make:
        yield f"the image is built with uv {uv}, the lock with {of_make}"
    python = _match(r"python:([\d.]+)-slim", dockerfile)
    if python not in _supported_pythons(files):
        yield f"Python {python} is not tested"


def ci_runs_every_supported_python(files: Files) -> Iterator[str]:
    tested = yaml.safe_load(files[".github/workflows/ci.yml"])["jobs"]["test"]["strategy"]["matrix"]["python"]
    if tested != _supported_pythons(files):
        yield f"tested are {tested}, supported {_supported_pythons(files)}"


def every_action_is_pinned_by_commit(files: Files) -> Iterator[str]:
    for path, text in _workflows(files):
        for action in re.findall(r"\buses: *(.*)", text):
            if not re.fullmatch(r"[\w.-]+/[\w./-]+@[0-9a-f]{40} # v[\d.]+", action):
                yield f"{path}: {action}"


def every_workflow_has_the_least_permissions(files: Files) -> Iterator[str]:
    for path, text in _workflows(files):
        workflow = yaml.safe_load(text)
        if workflow.get("permissions") != {"contents": "read"}:
            yield f"{path}: every job may {workflow.get('permissions')}"
        for name, job in workflow["jobs"].items():
            written = {scope for scope, access in job.get("permissions", {}).items() if access == "write"}
            explained = set(re.findall(r"^ +([a-z-]+): write +# \w", text, re.MULTILINE))
            yield from (
                f"{path}: {name} may write {scope}, for no reason given" for scope in sorted(written - explained)
            )


CONTRACTS: list[Contract] = [
    each
    for name, each in list(globals().items())
    if getattr(each, "__annotations__", {}) == {"files": Files, "return": Iterator[str]} and not name.startswith("_")
]
"""All of them."""


_parsed = cache(Template)


def _template(files: Files, path: str) -> Template:
    return _parsed(files[path])


def _templates(files: Files) -> Iterator[tuple[str, Template]]:
    yield from ((path, _parsed(text)) for path, text in files.items() if path.endswith(".bicep"))


def _workflows(files: Files) -> Iterator[tuple[str, str]]:
    yield from ((path, text) for path, text in files.items() if path.startswith(".github/workflows/"))


def _app(files: Files) -> dict[str, Value]:
    return _template(files, API).resource("Microsoft.App/containerApps")


def _container(files: Files) -> Value:
    return at(_app(files), "properties", "template", "containers", 0)


def _variables(files: Files) -> dict[str, Value]:
    """The environment variables of the container, with the values that are known before the deployment."""
    variables = at(_container(files), "env")
    assert isinstance(variables, list)
    api = _template(files, API)
    return {str(at(each, "name")): api.resolved(at(each, "value")) for each in variables}


def _probes(files: Files) -> dict[str, Value]:
    probes = at(_container(files), "probes")
    assert isinstance(probes, list)
    return {str(at(each, "type")): each for each in probes}


def _parameters(files: Files) -> dict[str, str]:
    return {name: given["value"] for name, given in json.loads(files[PARAMETERS])["parameters"].items()}


def _deviations(files: Files, path: str, kind: str, wanted: Mapping[tuple[str, ...], Value]) -> Iterator[str]:
    properties = at(_template(files, path).resource(kind), "properties")
    for steps, value in wanted.items():
        found: Any = properties
        for step in steps:
            found = found.get(step) if isinstance(found, dict) else None
        if found != value:
            yield f"{path}: {'.'.join(steps)} is {found}, not {value}"


def _guids(value: Value) -> set[str]:
    return {guid for text in texts(value) for guid in re.findall(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", text)}


def _supported_pythons(files: Files) -> list[str]:
    classifiers = tomllib.loads(files["pyproject.toml"])["project"]["classifiers"]
    return re.findall(r"Python :: (3\.\d+)", "\n".join(classifiers))


def _instruction(files: Files, name: str) -> str:
    """What the last such instruction of the Dockerfile says; nothing if there is none."""
    text = files["Dockerfile"].replace("\\\n", " ")
    return "".join(re.findall(rf"^{name} (.*)$", text, re.MULTILINE)[-1:])


def _match(pattern: str, text: str) -> str | None:
    found = re.search(pattern, text)
    return found[1] if found else None


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    with mock.patch.dict(os.environ, variables, clear=True):
        yield
