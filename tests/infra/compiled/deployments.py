"""What a deployment would ask Azure for, as the compiler's snapshot tells it, for each way of deploying."""

import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tests.infra import azd
from tests.infra.bicep import Bicep

STORED = Path(__file__).parents[1] / "snapshots"
GUID = "11112222-bbbb-3333-cccc-4444dddd5555"
GROUP = "99998888-aaaa-7777-bbbb-6666cccc5555"
OWN_REGISTRY = "crig7zujg3x3jz4.azurecr.io"
EXISTING_ACS = (
    f"/subscriptions/{GUID}/resourceGroups/rg-acs/providers/Microsoft.Communication/communicationServices/acs-kept"
)

FIRST = {"AZURE_ENV_NAME": "prod", "AZURE_LOCATION": "westeurope", "ACS_DATA_LOCATION": "Europe"}
"""The least that must be chosen."""
OWN_IMAGE = {"CONTAINER_IMAGE": f"{OWN_REGISTRY}/acs-auth:1"}
KEPT_ACS = {"EXISTING_ACS_RESOURCE_ID": EXISTING_ACS, "ACS_DATA_LOCATION": ""}
NO_REGISTRATIONS = {"CREATE_APP_REGISTRATIONS": "false", "API_CLIENT_ID": GUID, "BROWSER_CLIENT_ID": GROUP}
PRIVATE = {"PRIVATE_NETWORK": "true", "INTERNAL_INGRESS": "true", "ZONE_REDUNDANT": "true"}
OIDC = {
    "OIDC_ISSUER": "https://issuer.example.com/",
    "OIDC_AUDIENCE": "acs-auth",
    "OIDC_REQUIRED_SCOPE": "access_as_user",
}
TWO_DOORS = {"TWO_DOORS": "true", "OIDC_ACS_TOKEN_SCOPES": "voip.join"}
ENVIRONMENTS = "/subscriptions/s/resourceGroups/rg-prod/providers/Microsoft.App/managedEnvironments"
CONFIGURATION: dict[str, Any] = {
    "name": "ca-api-ig7zujg3x3jz4",
    "location": "westeurope",
    "tags": {"azd-env-name": "prod"},
    "environmentId": f"{ENVIRONMENTS}/cae",
    "onlyFrontDoor": False,
    "public": True,
    "identityId": "/subscriptions/s/resourceGroups/rg/providers/Microsoft.ManagedIdentity/userAssignedIdentities/id",
    "registryServer": OWN_REGISTRY,
    "insightsName": "appi-ig7zujg3x3jz4",
    "actionGroupId": "",
    "token": "ig7zujg3x3jz4",
    "minReplicas": 2,
    "maxReplicas": 10,
    "concurrentRequests": 50,
    "variables": {"STORAGE_BACKEND": "cosmos", "COSMOS_PREFERRED_REGIONS": "westeurope"},
    "secrets": {"LOG_HASH_KEY": "https://kv.vault.azure.net/secrets/log-hash-key"},
    "jobs": {"commands": "caj-commands", "reconcile": "caj-reconcile", "reconcileSchedule": "", "operatorsGroupId": ""},
}
"""Of the form that main.bicep puts out; the compiler checks that form where main.bicep passes it on itself."""

PROFILES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "first": ("main", azd.parameters(FIRST)),
    "own-image": ("main", azd.parameters(FIRST | OWN_IMAGE)),
    "own-image-again": ("main", azd.parameters(FIRST | OWN_IMAGE | {"SERVICE_API_RESOURCE_EXISTS": "true"})),
    "image-from-outside": ("main", azd.parameters(FIRST | {"CONTAINER_IMAGE": "ghcr.io/owner/repository:1.0.0"})),
    "graph": ("main", azd.parameters(FIRST | OWN_IMAGE | {"STORAGE_BACKEND": "graph"})),
    "existing-acs": (
        "main",
        azd.parameters(FIRST | KEPT_ACS),
    ),
    "private-network": ("main", azd.parameters(FIRST | OWN_IMAGE | PRIVATE)),
    "several-regions": (
        "main",
        azd.parameters(FIRST | {"COSMOS_CAPACITY": "autoscale", "COSMOS_READ_REGIONS": "North Europe, francecentral,"}),
    ),
    "other-issuer": ("main", azd.parameters(FIRST | OWN_IMAGE | OIDC)),
    "two-doors": ("main", azd.parameters(FIRST | OWN_IMAGE | OIDC | TWO_DOORS)),
    "no-registrations": ("main", azd.parameters(FIRST | OWN_IMAGE | NO_REGISTRATIONS)),
    "budget-and-operators": (
        "main",
        azd.parameters(
            FIRST
            | OWN_IMAGE
            | {
                "ALERT_EMAIL": "ops@example.com",
                "MONTHLY_BUDGET": "100",
                "BUDGET_START_DATE": "2026-11-01",
                "OPERATORS_GROUP_ID": GROUP,
                "RECONCILE_SCHEDULE": "0 3 * * 0",
                "RESOURCE_TAGS": "cost-center=42, owner=team-a,",
            }
        ),
    ),
    "second-region": (
        "region",
        {
            "location": "North Europe",
            "configuration": CONFIGURATION | {"onlyFrontDoor": True, "public": False},
            "image": f"{OWN_REGISTRY}/acs-auth:2",
        },
    ),
    "front-door": (
        "front-door",
        {
            "name": "afd-ig7zujg3x3jz4",
            "tags": {"azd-env-name": "prod"},
            "origins": [
                {
                    "location": location,
                    "environmentId": f"{ENVIRONMENTS}/{location}",
                    "hostName": f"ca-api.{location}.azurecontainerapps.io",
                    "priority": priority,
                }
                for priority, location in enumerate(("westeurope", "northeurope"), start=1)
            ],
        },
    ),
    "azd-deploy": ("api", {"configuration": CONFIGURATION, "image": f"{OWN_REGISTRY}/acs-auth:2", "exists": False}),
    "azd-deploy-again": (
        "api",
        {"configuration": CONFIGURATION, "image": f"{OWN_REGISTRY}/acs-auth:3", "exists": True},
    ),
}
"""The ways of deploying that docs/deploy.md describes: the template, and its parameters."""


@dataclass(frozen=True)
class Deployment:
    """One snapshot. A resource's properties are literals where they are known before the deployment."""

    snapshot: Mapping[str, Any]

    @property
    def resources(self) -> list[dict[str, Any]]:
        """All resources, those of Microsoft Graph too."""
        resources: list[dict[str, Any]] = self.snapshot["predictedResources"]
        return resources

    @property
    def outputs(self) -> dict[str, Any]:
        """What is put out; not yet known values are expressions."""
        outputs: dict[str, Any] = self.snapshot.get("outputs", {})
        return outputs

    def all(self, kind: str) -> list[dict[str, Any]]:
        """The resources of one type, whatever its letters' case."""
        return [each for each in self.resources if each["type"].partition("@")[0].lower() == kind.lower()]

    def one(self, kind: str) -> dict[str, Any]:
        """The only resource of this type. Raises `KeyError`."""
        found = self.all(kind)
        if len(found) != 1:
            raise KeyError(f"{len(found)} resources of type {kind}")
        return found[0]

    @cached_property
    def app(self) -> dict[str, Any] | None:
        """The container app; `None` where the deployment comes before it."""
        found = self.all("Microsoft.App/containerApps")
        return found[0] if found else None

    @property
    def containers(self) -> Iterator[dict[str, Any]]:
        """The containers of the app and of the jobs."""
        for each in self.resources:
            if each["type"].lower() in ("microsoft.app/containerapps", "microsoft.app/jobs"):
                yield from each["properties"]["template"]["containers"]


def evaluated(bicep: Bicep) -> dict[str, Deployment]:
    """Every profile's deployment. Raises `RuntimeError` with what the compiler says of one that it can't evaluate."""

    def evaluate(name: str) -> Deployment:
        template, parameters = PROFILES[name]
        snapshot, text = bicep.snapshot(template, parameters, name)
        if not snapshot or snapshot["diagnostics"] or text.strip():
            raise RuntimeError(f"{name}: {text} {snapshot.get('diagnostics')}")
        return Deployment(snapshot)

    bicep.templates()
    with ThreadPoolExecutor(max_workers=2) as pool:
        return dict(zip(PROFILES, pool.map(evaluate, PROFILES), strict=True))


def stored(name: str) -> str:
    """The snapshot that is kept in the repository; nothing if there is none."""
    path = STORED / f"{name}.json"
    return path.read_text() if path.exists() else ""


def written(deployment: Deployment) -> str:
    """A snapshot as it is kept: readable in a review."""
    return json.dumps(deployment.snapshot, indent=1, sort_keys=True) + "\n"
