"""Before resources are made: asks what has no default, checks rights, refuses what would lose users or fail later."""

from collections.abc import Iterator
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Any

from infra.hooks.azd import (
    Azure,
    Environment,
    Refused,
    acs_resources,
    ask,
    group_path,
    run,
    say,
    tell_whether_the_app_exists,
)

ACS_DATA_LOCATIONS = (
    *("Africa", "Asia Pacific", "Australia", "Brazil", "Canada", "Europe", "France", "Germany", "India", "Japan"),
    *("Korea", "Norway", "Switzerland", "UAE", "UK", "United States"),
)
"""https://learn.microsoft.com/azure/communication-services/concepts/privacy#data-residency"""

FIXED = {
    "EXISTING_ACS_RESOURCE_ID": (
        "existing-acs-resource-id",
        "every mapping would point to the other ACS resource's users",
    ),
    "ACS_DATA_LOCATION": ("acs-data-location", "Azure can't move the data of an ACS resource"),
    "STORAGE_BACKEND": ("storage-backend", "the other store is empty: move the mappings with acs-auth migrate first"),
    "COSMOS_ACCOUNT_NAME": ("cosmos-account-name", "mappings made since are in the account that is left"),
    "COSMOS_CAPACITY": ("cosmos-capacity", "an account can't change it: make another one and move the mappings"),
    "COSMOS_LOCATION": ("cosmos-location", "an account can't move: add a read region and fail over"),
    "PRIVATE_NETWORK": ("private-network", "a Container Apps environment can't move into a network or out of it"),
    "ZONE_REDUNDANT": ("zone-redundant", "zones are chosen when environment and account are made"),
}
"""What can't be changed like any other setting: the resource group's tag that remembers it, and why."""
DEFAULTS = {
    "STORAGE_BACKEND": "cosmos",
    "COSMOS_CAPACITY": "serverless",
    "PRIVATE_NETWORK": "false",
    "ZONE_REDUNDANT": "false",
}
ALIKE = {"1": "true", "0": "false"}
GRAPH_PERMISSION = "User.ReadWrite"
"""What the service may do in Microsoft Graph on behalf of its callers."""
RIGHTS = ("Microsoft.Resources/deployments/write", "Microsoft.Authorization/roleAssignments/write")
PROVIDERS = (
    *("Microsoft.App", "Microsoft.Communication", "Microsoft.ContainerRegistry", "Microsoft.DocumentDB"),
    *("Microsoft.Insights", "Microsoft.KeyVault", "Microsoft.ManagedIdentity", "Microsoft.Network"),
    "Microsoft.OperationalInsights",
)


def preprovision(environment: Environment, azure: Azure) -> None:
    """Raises `Refused` with one sentence for each thing that stands against the deployment."""
    if not environment.get("AZURE_SUBSCRIPTION_ID") or not environment.get("AZURE_LOCATION"):
        raise Refused(
            "Choose a subscription and a region first: azd env set AZURE_SUBSCRIPTION_ID …, "
            "azd env set AZURE_LOCATION … (azd up asks for both)."
        )
    _ask_for_the_data_location(environment)
    group = azure.get(f"{group_path(environment)}?api-version=2024-03-01")
    tags: dict[str, str] = (group or {}).get("tags") or {}
    faults = [*_missing_rights(environment, azure), *_unknown_group(environment, azure, group, tags)]
    if "acs-auth-token" in tags:
        faults += _fixed_choices(environment, tags)
    if faults:
        raise Refused("\n".join(faults))
    _register_providers(environment, azure)
    if "acs-auth-token" in tags:
        tell_whether_the_app_exists(environment, azure, f"ca-api-{tags['acs-auth-token']}")
    _find_the_budget(environment, azure, tags)
    _find_a_deleted_vault(environment, azure)
    _tell_of_a_trial(environment, azure)
    _tell_of_missing_consent(environment, azure)


def _ask_for_the_data_location(environment: Environment) -> None:
    if environment.get("ACS_DATA_LOCATION") or environment.get("EXISTING_ACS_RESOURCE_ID"):
        return
    known = ", ".join(ACS_DATA_LOCATIONS)
    answer = ask(f"Where shall ACS keep data at rest? It can't be changed later ({known}):")
    chosen = next((each for each in ACS_DATA_LOCATIONS if each.lower() == answer.lower()), "")
    if not chosen:
        raise Refused(
            "Set where ACS keeps data at rest, which can't be changed later: "
            f"azd env set ACS_DATA_LOCATION … ({known})."
        )
    environment.set("ACS_DATA_LOCATION", chosen)


def _missing_rights(environment: Environment, azure: Azure) -> Iterator[str]:
    """What Azure would refuse half way. Where it does not tell, nobody is stopped."""
    scope = f"/subscriptions/{environment.get('AZURE_SUBSCRIPTION_ID')}"
    try:
        permissions = azure.items(f"{scope}/providers/Microsoft.Authorization/permissions?api-version=2022-04-01")
    except Refused as error:
        say(f"Your rights were not checked. {error}")
        return
    missing = [right for right in RIGHTS if not any(_allows(each, right) for each in permissions)]
    if permissions and missing:
        yield (
            f"You may not do {' and '.join(missing)} on the subscription: it takes the role Owner, or Contributor and "
            "Role Based Access Control Administrator."
        )


def _allows(permission: dict[str, list[str]], right: str) -> bool:
    def covers(patterns: list[str]) -> bool:
        return any(fnmatchcase(right.lower(), pattern.lower()) for pattern in patterns)

    return covers(permission.get("actions", [])) and not covers(permission.get("notActions", []))


def _unknown_group(
    environment: Environment, azure: Azure, group: dict[str, Any] | None, tags: dict[str, str]
) -> Iterator[str]:
    """A group with an ACS resource that these templates did not make: they would make a second one beside it."""
    if group is None or "acs-auth-token" in tags or environment.get("EXISTING_ACS_RESOURCE_ID"):
        return
    for each in acs_resources(environment, azure):
        yield (
            f"{group['name']} holds the ACS resource {each['name']}, and another one would be made beside it, in which "
            f"nobody's identity exists. To keep it: azd env set EXISTING_ACS_RESOURCE_ID {each['id']}"
        )


def _fixed_choices(environment: Environment, tags: dict[str, str]) -> Iterator[str]:
    accepted = {name.strip() for name in environment.get("ACCEPT_CHANGE_OF").split(",")}
    for name, (tag, reason) in FIXED.items():
        before, now = tags.get(f"acs-auth-{tag}", ""), environment.get(name) or DEFAULTS.get(name, "")
        if name == "ACS_DATA_LOCATION" and environment.get("EXISTING_ACS_RESOURCE_ID"):
            continue
        if _alike(before) != _alike(now) and name not in accepted:
            yield (
                f'{name} was "{before}" at the last deployment and is "{now}" now, but {reason}. '
                f'To go on as before: azd env set {name} "{before}". '
                f"If you mean it: azd env set ACCEPT_CHANGE_OF {name}"
            )


def _alike(value: str) -> str:
    text = value.strip().lower().replace(" ", "")
    return ALIKE.get(text, text)


def _register_providers(environment: Environment, azure: Azure) -> None:
    """Azure registers providers by itself for most people; a new subscription's first deployment can fail without."""
    subscription = f"/subscriptions/{environment.get('AZURE_SUBSCRIPTION_ID')}"
    for each in PROVIDERS:
        state = azure.get(f"{subscription}/providers/{each}?api-version=2021-04-01") or {}
        if state.get("registrationState") not in ("Registered", "Registering"):
            say(f"Registering the resource provider {each}.")
            if not azure.post(f"{subscription}/providers/{each}/register?api-version=2021-04-01"):
                raise Refused(
                    f"Somebody with the role Contributor must register it: az provider register --namespace {each}"
                )


def _find_the_budget(environment: Environment, azure: Azure, tags: dict[str, str]) -> None:
    """A budget's start can't be changed, and a new one may only begin in the current month."""
    if environment.get("MONTHLY_BUDGET") in ("", "0"):
        return
    name = f"budget-{tags.get('acs-auth-token', '')}"
    path = f"{group_path(environment)}/providers/Microsoft.Consumption/budgets/{name}?api-version=2023-11-01"
    budget = azure.get(path) if "acs-auth-token" in tags else None
    start = budget["properties"]["timePeriod"]["startDate"][:10] if budget else f"{datetime.now(UTC):%Y-%m}-01"
    environment.set("BUDGET_START_DATE", start)


def _find_a_deleted_vault(environment: Environment, azure: Azure) -> None:
    """A deleted key vault keeps its name, and its secrets, for 90 days: it is brought back."""
    subscription = f"/subscriptions/{environment.get('AZURE_SUBSCRIPTION_ID')}"
    provider = azure.get(f"{subscription}/providers/Microsoft.KeyVault?api-version=2021-04-01") or {}
    if provider.get("registrationState") != "Registered":  # then there never was a vault, and nothing can be listed
        environment.set("RECOVER_KEY_VAULT", "false")
        return
    vaults = azure.items(f"{subscription}/providers/Microsoft.KeyVault/deletedVaults?api-version=2024-11-01")
    ours = f"{group_path(environment)}/".lower()
    deleted = any(each["properties"]["vaultId"].lower().startswith(ours) for each in vaults)
    environment.set("RECOVER_KEY_VAULT", "true" if deleted else "false")


def _tell_of_a_trial(environment: Environment, azure: Azure) -> None:
    subscription = azure.get(f"/subscriptions/{environment.get('AZURE_SUBSCRIPTION_ID')}?api-version=2022-12-01") or {}
    quota = (subscription.get("subscriptionPolicies") or {}).get("quotaId", "")
    if quota.startswith(("FreeTrial", "AzureForStudents", "AzurePass")):
        say(
            "This is a trial subscription, in which Azure builds no images (ACR Tasks): "
            "start Docker, so that azd can build it here."
        )


def _tell_of_missing_consent(environment: Environment, azure: Azure) -> None:
    """The first deployment makes the registration, so nobody can have consented yet: it is told, and stops nothing."""
    if environment.get("STORAGE_BACKEND") != "graph":
        return
    api = environment.get("API_CLIENT_ID") or environment.get("DEPLOYED_API_CLIENT_ID")
    try:
        if api and GRAPH_PERMISSION in (azure.consents(api) or ()):
            return
    except Refused as error:
        say(str(error))
    say(
        f"The Graph store takes an administrator's consent to {GRAPH_PERMISSION}, without which every caller gets 403 "
        f"consent_required: az ad app permission admin-consent --id {api or 'with the id that is told at the end'}"
    )


if __name__ == "__main__":
    run(preprovision)
