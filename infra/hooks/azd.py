"""What a hook needs of azd and of Azure: the environment's values, questions, and Azure Resource Manager."""

import json
import os
import shutil
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

RESOURCE_MANAGER = "https://management.azure.com"
GRAPH = "https://graph.microsoft.com"
TIMEOUT_SECONDS = 30
MOST_PAGES = 1000


class Refused(Exception):
    """The step must not go on; the message is a whole sentence that says what to do."""


class Environment(Protocol):
    """An azd environment."""

    def get(self, name: str) -> str:
        """The value of a variable, without blanks around it; empty if it is not set."""

    def set(self, name: str, value: str) -> None:
        """Keeps a value for this and later runs."""


class Azure(Protocol):
    """The part of Azure that a hook asks."""

    def get(self, path: str) -> dict[str, Any] | None:
        """What stands at a path of Azure Resource Manager; `None` if nothing does. Raises `Refused`."""

    def items(self, path: str) -> list[dict[str, Any]]:
        """All items of a list, page after page; none where nothing stands at the path. Raises `Refused`."""

    def post(self, path: str) -> bool:
        """Asks for an action; false if that is not allowed. Raises `Refused`."""

    def principal(self, client_id: str) -> bool | None:
        """Whether an application has a service principal in the tenant; `None` if it can't be told."""

    def add_principal(self, client_id: str) -> bool:
        """Makes an application's service principal; false if that is not allowed."""

    def consents(self, client_id: str) -> set[str] | None:
        """The delegated permissions that somebody gave an application for everybody; `None` if they can't be told."""


class AzdEnvironment:
    """The environment that azd runs the hook with."""

    def __init__(self, variables: Mapping[str, str] = os.environ) -> None:
        self._variables = dict(variables)

    def get(self, name: str) -> str:
        return self._variables.get(name, "").strip()

    def set(self, name: str, value: str) -> None:
        if self.get(name) != value:
            _azd("env", "set", name, value, "--environment", self.get("AZURE_ENV_NAME"))
            self._variables[name] = value


class AzdAzure:
    """Azure, with the sign-in of azd. Each address may be another one, for tests."""

    def __init__(self, tenant: str = "", resource_manager: str = RESOURCE_MANAGER, graph: str = GRAPH) -> None:
        self._tenant = tenant
        self._resource_manager = resource_manager
        self._graph = graph
        self._tokens: dict[str, str] = {}

    def get(self, path: str) -> dict[str, Any] | None:
        status, body = self._ask("GET", f"{self._resource_manager}{path}", RESOURCE_MANAGER)
        if status == 404:
            return None
        if status != 200:
            raise Refused(f"Azure answered {status} for {path.partition('?')[0]}: {_reason(body)}")
        return body

    def items(self, path: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for _ in range(MOST_PAGES):
            page = self.get(path) or {}
            found += page.get("value", [])
            following = str(page.get("nextLink") or "")
            if not following.startswith(self._resource_manager):
                return found
            path = following.removeprefix(self._resource_manager)
        raise Refused(f"Azure's list at {path.partition('?')[0]} has no end.")

    def post(self, path: str) -> bool:
        status, body = self._ask("POST", f"{self._resource_manager}{path}", RESOURCE_MANAGER)
        if status not in (200, 201, 202, 204, 403):
            raise Refused(f"Azure answered {status} for {path.partition('?')[0]}: {_reason(body)}")
        return status != 403

    def principal(self, client_id: str) -> bool | None:
        status, _ = self._ask("GET", f"{self._graph}/v1.0/servicePrincipals(appId='{client_id}')", GRAPH)
        return {200: True, 404: False}.get(status)

    def add_principal(self, client_id: str) -> bool:
        status, _ = self._ask("POST", f"{self._graph}/v1.0/servicePrincipals", GRAPH, {"appId": client_id})
        return status == 201

    def consents(self, client_id: str) -> set[str] | None:
        # https://learn.microsoft.com/graph/api/serviceprincipal-list-oauth2permissiongrants
        path = f"/v1.0/servicePrincipals(appId='{client_id}')/oauth2PermissionGrants"
        status, body = self._ask("GET", f"{self._graph}{path}", GRAPH)
        if status != 200:
            return None
        grants = [each for each in body.get("value", []) if each.get("consentType") == "AllPrincipals"]
        return {scope for each in grants for scope in str(each.get("scope", "")).split()}

    def _ask(
        self, method: str, url: str, resource: str, body: dict[str, str] | None = None
    ) -> tuple[int, dict[str, Any]]:
        request = urllib.request.Request(  # noqa: S310 (the addresses are ours)
            url,
            method=method,
            headers={"Authorization": f"Bearer {self._token(resource)}", "Content-Type": "application/json"},
            data=json.dumps(body or {}).encode() if method == "POST" else None,
        )
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:  # noqa: S310
                return answer.status, _json(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, _json(error.read())
        except OSError as error:
            raise Refused(f"{url.split('/')[2]} can't be reached: {error}.") from error

    def _token(self, resource: str) -> str:
        """An access token; a hook is done long before one expires."""
        if resource not in self._tokens:
            tenant = ("--tenant-id", self._tenant) if self._tenant else ()
            answer = _azd("auth", "token", "--output", "json", "--scope", f"{resource}/.default", *tenant)
            self._tokens[resource] = json.loads(answer)["token"]
        return self._tokens[resource]


def run(hook: Callable[[Environment, Azure], None]) -> None:
    """Runs a hook; ends the process with 1 and one sentence for each fault if the step must not go on."""
    environment = AzdEnvironment()
    try:
        hook(environment, AzdAzure(environment.get("AZURE_TENANT_ID")))
    except Refused as error:
        sys.exit(str(error))


def say(*lines: str) -> None:
    """Tells the person at the terminal."""
    sys.stderr.write("".join(f"{line}\n" for line in lines))


def ask(question: str) -> str:
    """What the person answers; empty where there is nobody to answer."""
    if not sys.stdin.isatty():
        return ""
    sys.stderr.write(f"{question} ")
    sys.stderr.flush()
    return sys.stdin.readline().strip()


def group_path(environment: Environment) -> str:
    """The resource group's path in Azure Resource Manager."""
    subscription, name = environment.get("AZURE_SUBSCRIPTION_ID"), environment.get("AZURE_ENV_NAME")
    return f"/subscriptions/{subscription}/resourceGroups/rg-{name}"


def acs_resources(environment: Environment, azure: Azure) -> list[dict[str, Any]]:
    """The ACS resources in the resource group, with name and id; none where there is no group. Raises `Refused`."""
    kind = urllib.parse.quote("resourceType eq 'Microsoft.Communication/communicationServices'")
    return azure.items(f"{group_path(environment)}/resources?$filter={kind}&api-version=2021-04-01")


def tell_whether_the_app_exists(environment: Environment, azure: Azure, name: str) -> None:
    """Keeps for the templates whether the container app is there: what people set on it by hand is then handed back.

    azd finds it out, too, but for `azd up` only after it has read the parameters. Raises `Refused`.
    """
    app = azure.get(f"{group_path(environment)}/providers/Microsoft.App/containerApps/{name}?api-version=2025-07-01")
    environment.set("SERVICE_API_RESOURCE_EXISTS", "true" if app else "false")


def folder(environment: Environment) -> Path:
    """Where azd keeps the environment; git ignores it."""
    return Path(".azure") / environment.get("AZURE_ENV_NAME")


def _azd(*arguments: str) -> str:
    azd = shutil.which("azd")
    if azd is None:
        raise Refused("azd is not on the path.")
    command: Sequence[str] = (azd, *arguments)
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)  # noqa: S603 (azd itself)
    if done.returncode:
        raise Refused(f"azd {' '.join(arguments[:2])} failed: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def _json(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _reason(body: dict[str, Any]) -> str:
    error = body.get("error")
    return str(error.get("message", error)) if isinstance(error, dict) else "no reason was given."
