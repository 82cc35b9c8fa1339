"""Before everything is deleted: keeps the ids that are needed afterwards, and asks if identities would be lost."""

from infra.hooks.azd import Azure, Environment, Refused, acs_resources, ask, run, say

KEPT = {
    "KEPT_API_CLIENT_ID": "DEPLOYED_API_CLIENT_ID",
    "KEPT_BROWSER_CLIENT_ID": "DEPLOYED_BROWSER_CLIENT_ID",
    "KEPT_ACS_RESOURCE_ID": "DEPLOYED_ACS_RESOURCE_ID",
}
"""azd forgets outputs when it deletes what they are of; these names stay."""


def predown(environment: Environment, azure: Azure) -> None:
    """Raises `Refused` unless somebody says that the identities may go."""
    for kept, output in KEPT.items():
        if value := environment.get(output):
            environment.set(kept, value)
    lost = acs_resources(environment, azure)
    if not lost:
        return
    name = environment.get("AZURE_ENV_NAME")
    say(
        f"This deletes {', '.join(each['name'] for each in lost)}, and with it every user's identity, chats and calls.",
        "Nobody can restore them, and mappings that you keep elsewhere become worthless.",
    )
    if environment.get("DELETE_IDENTITIES_OF") != name and ask(f"To delete them, type {name}:") != name:
        raise Refused(f"Nothing was deleted. Without a terminal: azd env set DELETE_IDENTITIES_OF {name}")


if __name__ == "__main__":
    run(predown)
