"""How each setting of the service reaches a container in Azure. One that stands nowhere here makes a test fail."""

from quart_app.settings import variable_names
from tests.infra import azd

GIVEN = {
    "CORS_ALLOWED_ORIGINS",
    "STORAGE_BACKEND",
    *azd.PARAMETERS["serviceSettings"]["value"],
}
"""Parameters of the deployment, by the setting's own name in the azd environment."""

SECRET = {
    "GRAPH_SEAL_KEYS": "made once in the key vault for the graph store, and given by reference",
    "LOG_HASH_KEY": "made once in the key vault, and given by reference",
}

FOUND = {
    "ACS_ENDPOINT": "the ACS resource",
    "APPLICATIONINSIGHTS_CONNECTION_STRING": "Application Insights; it lets one send telemetry, and read none",
    "COSMOS_CONTAINER": "the container of cosmos.bicep",
    "COSMOS_DATABASE": "the database of cosmos.bicep",
    "COSMOS_ENDPOINT": "the Cosmos DB account",
    "COSMOS_PREFERRED_REGIONS": "the app's own region, where COSMOS_READ_REGIONS adds regions to the account",
    "DOCS_CLIENT_ID": "BROWSER_CLIENT_ID, or the registration that is made",
    "ENTRA_AUTHORITY_HOST": "the cloud",
    "ENTRA_CLIENT_ID": "API_CLIENT_ID, or the registration that is made",
    "ENTRA_MANAGED_IDENTITY_CLIENT_ID": "the managed identity",
    "ENTRA_TENANT_ID": "the tenant of the subscription",
    "PORT": "fixed: ingress, probes and image agree on it",
}
"""What the templates know by themselves."""

NOT_FOR_A_CONTAINER = {
    "ACS_CONNECTION_STRING": "keys are switched off: the managed identity calls ACS",
    "COSMOS_CREATE_IF_MISSING": "for development; the deployment makes the container",
    "COSMOS_KEY": "keys are switched off: the managed identity reads and writes",
    "ENTRA_CLIENT_CERTIFICATE_PATH": "the managed identity is the credential",
    "ENTRA_CLIENT_SECRET": "the managed identity is the credential",
    "ENVIRONMENT": "production, which is the default",
    "GRAPH_BASE_URL": "the templates are for the public cloud, whose Microsoft Graph is the default",
    "HOST": "every interface, which is the default",
    "SQLITE_PATH": "a container's disk does not last",
}

COMING = {
    *("ENTRA_ALLOWED_CLIENTS", "ENTRA_ALLOW_GUESTS"),
    "GRAPH_ACCEPT_UNSEALED_UNTIL",
}
"""Parameters for settings that the service may not have yet. One that is not set reaches no container."""


def unclassified() -> list[str]:
    """Settings of which nobody has said how they are deployed."""
    known = GIVEN | SECRET.keys() | FOUND.keys() | NOT_FOR_A_CONTAINER.keys()
    return [name for name in variable_names() if name not in known]
