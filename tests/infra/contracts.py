"""What the image, the workflows and the files for azd must be. Each contract yields its faults; none is good.

They read texts, not files, so that a test can show each of them files that break it. What the templates deploy is
looked at in `compiled/`, with the compiler.
"""

import re
import tomllib
from collections.abc import Callable, Iterator, Mapping

import yaml

from quart_app.settings import EntraSettings, ServerSettings, TeamsSettings
from tests.infra.bicep import ROOT

Files = Mapping[str, str]
"""The deployment's files: path in the project, text."""
Contract = Callable[[Files], Iterator[str]]

REGISTER = "infra/entra/register.py"

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
    return {path.relative_to(ROOT).as_posix(): path.read_text() for path in sorted(paths) if path.suffix != ".pyc"}


def faults(contract: Contract, files: Files) -> list[str]:
    """What breaks the contract; a part that is missing does, too."""
    try:
        return list(contract(files))
    except KeyError as error:
        return [f"there is no {error}"]


def the_image_listens_and_is_probed_as_the_service_says(files: Files) -> Iterator[str]:
    port = str(ServerSettings.model_fields["port"].default)
    for place, value in {
        "EXPOSE": _instruction(files, "EXPOSE"),
        "PORT": _match(r"\bPORT=(\d+)", files["Dockerfile"]),
    }.items():
        if value != port:
            yield f"{place} says {value}, the service listens on {port}"
    if "/health/live" not in _instruction(files, "HEALTHCHECK"):
        yield "the health check asks another path"


def the_script_asks_for_what_the_service_accepts(files: Files) -> Iterator[str]:
    script = files[REGISTER]
    for name, guid in PERMISSIONS.items():
        constant = re.sub("[A-Z]", lambda found: "_" + found[0], name).upper()
        if f'\n{constant} = "{guid}"\n' not in script:
            yield name
    if f'\nSCOPE = "{EntraSettings.model_fields["required_scope"].default}"\n' not in script:
        yield "the scope"
    if _match(r'\nACS_APPLICATION = "(\S+)"\n', script) not in TeamsSettings.model_fields["audiences"].default:
        yield "the application id of ACS"


def azd_deploys_the_service_by_its_own_template(files: Files) -> Iterator[str]:
    """https://github.com/Azure/azure-dev: service_target_containerapp.go looks for infra/<service>.bicepparam."""
    (service,) = yaml.safe_load(files["azure.yaml"])["services"]
    yield from (
        f"there is no infra/{service}.{suffix}"
        for suffix in ("bicep", "bicepparam")
        if f"infra/{service}.{suffix}" not in files
    )
    if f"'azd-service-name': '{service}'" not in files["infra/api.bicep"]:
        yield "azd does not find the container app"


def every_hook_is_there_for_each_shell(files: Files) -> Iterator[str]:
    hooks = yaml.safe_load(files["azure.yaml"])["hooks"]
    for name, hook in hooks.items():
        module = f"infra.hooks.{name}"
        if f"infra/hooks/{name}.py" not in files:
            yield f"there is no {module}"
        runs = {shell: hook[shell]["run"] for shell in ("posix", "windows")}
        if runs != {"posix": f"python3 -m {module}", "windows": f"python -m {module}"}:
            yield f"{name} runs {runs}"


def a_pipeline_asks_for_a_newer_azd_than_the_one_that_knows_new_repositories(files: Files) -> Iterator[str]:
    """Repositories made after July 2026 have immutable OIDC subjects, which azd knows since 1.30.0 (azure-dev#9430)."""
    wanted = yaml.safe_load(files["azure.yaml"])["requiredVersions"]["azd"]
    if wanted != ">= 1.30.0":
        yield f"azd {wanted}"


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
        f"only BuildKit knows {word}" for word in ("--mount", "--link", "<<", "# syntax=") if word in dockerfile
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


def _workflows(files: Files) -> Iterator[tuple[str, str]]:
    yield from ((path, text) for path, text in files.items() if path.startswith(".github/workflows/"))


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
