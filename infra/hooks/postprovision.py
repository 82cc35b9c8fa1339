"""After resources were made: what an administrator must still do, and the settings for local work."""

from infra.hooks.azd import Azure, Environment, Refused, folder, run, say

ACS_APPLICATION = "1fd5118e-2576-4263-8130-9503064c837a"


def postprovision(environment: Environment, azure: Azure) -> None:
    """Tells; nothing here stops what follows."""
    api, browser = environment.get("DEPLOYED_API_CLIENT_ID"), environment.get("DEPLOYED_BROWSER_CLIENT_ID")
    say(
        "",
        f"Service         {environment.get('SERVICE_API_URI')}",
        f"Sign in there   {environment.get('SERVICE_API_URI')}/docs",
    )
    if api:
        say(f"API             {api}", f"Browser client  {browser or '(none)'}")
        _tell_of_consent(environment, azure, api, browser)
    _write_settings(environment)


def _tell_of_consent(environment: Environment, azure: Azure, api: str, browser: str) -> None:
    if not _acs_is_in_the_tenant(azure):
        say(
            "",
            "For Teams users an administrator must add ACS's own application to the tenant, once:",
            f"  az ad sp create --id {ACS_APPLICATION}",
        )
    if environment.get("STORAGE_BACKEND") == "graph":
        say(
            "",
            "The Graph store answers 403 consent_required until an administrator has consented:",
            f"  az ad app permission admin-consent --id {api}",
        )
    if browser:
        say(
            "", "So that nobody is asked for Teams permissions:", f"  az ad app permission admin-consent --id {browser}"
        )


def _acs_is_in_the_tenant(azure: Azure) -> bool:
    """Whether ACS's own application is there, or could be added; false also if Microsoft Graph can't be asked."""
    try:
        return azure.principal(ACS_APPLICATION) is True or azure.add_principal(ACS_APPLICATION)
    except Refused as error:
        say(str(error))
        return False


def _write_settings(environment: Environment) -> None:
    """For `acs-auth token` and for reading: a credential of Azure is not in it."""
    settings = {
        "ENTRA_TENANT_ID": environment.get("AZURE_TENANT_ID"),
        "ENTRA_CLIENT_ID": environment.get("DEPLOYED_API_CLIENT_ID"),
        "DOCS_CLIENT_ID": environment.get("DEPLOYED_BROWSER_CLIENT_ID"),
        "ACS_ENDPOINT": environment.get("DEPLOYED_ACS_ENDPOINT"),
        "STORAGE_BACKEND": environment.get("STORAGE_BACKEND") or "cosmos",
    }
    path = folder(environment) / "service.env"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{name}={value}\n" for name, value in settings.items() if value))
    say("", f"Settings for local work: {path}")


if __name__ == "__main__":
    run(postprovision)
