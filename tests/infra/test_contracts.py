"""Image, workflows and azd's files are as they must be; and each contract is seen to notice when they are not."""

import pytest

from tests.infra.contracts import CONTRACTS, REGISTER, Contract, deployment_files, faults

FILES = deployment_files()
WORKFLOW = ".github/workflows/image.yml"

# Contract, file, what stands there, what stands there instead.
MUTATIONS = [
    ("the_image_listens_and_is_probed_as_the_service_says", "Dockerfile", "EXPOSE 5000", "EXPOSE 8000"),
    ("the_image_listens_and_is_probed_as_the_service_says", "Dockerfile", "PORT=5000", "PORT=8000"),
    ("the_image_listens_and_is_probed_as_the_service_says", "Dockerfile", "/health/live", "/"),
    ("the_script_asks_for_what_the_service_accepts", REGISTER, '"access_as_user"', '"user"'),
    ("the_script_asks_for_what_the_service_accepts", REGISTER, "6290af7f", "00000000"),
    ("the_script_asks_for_what_the_service_accepts", REGISTER, "1fd5118e", "00000000"),
    ("azd_deploys_the_service_by_its_own_template", "azure.yaml", "\n  api:", "\n  service:"),
    ("azd_deploys_the_service_by_its_own_template", "infra/api.bicep", "'azd-service-name': 'api'", ""),
    ("every_hook_is_there_for_each_shell", "azure.yaml", "python -m infra.hooks.predown", "python -m infra.hooks.down"),
    ("every_hook_is_there_for_each_shell", "azure.yaml", "  predown:", "  postdown:"),
    (
        "a_pipeline_asks_for_a_newer_azd_than_the_one_that_knows_new_repositories",
        "azure.yaml",
        ">= 1.30.0",
        ">= 1.24.3",
    ),
    ("the_image_holds_what_runs_and_nothing_else", ".dockerignore", "!storage/", "!storage/\n!local_azure/"),
    ("the_image_holds_what_runs_and_nothing_else", ".dockerignore", "*\n!LICENSE", "!LICENSE"),
    ("the_image_holds_what_runs_and_nothing_else", "Dockerfile", "USER 10001:10001\n", ""),
    ("the_image_holds_what_runs_and_nothing_else", "Dockerfile", "USER 10001:10001", "USER 0:0"),
    ("the_image_holds_what_runs_and_nothing_else", "Dockerfile", 'CMD ["serve"]', "CMD serve"),
    ("the_image_holds_what_runs_and_nothing_else", "Dockerfile", "STOPSIGNAL", "RUN apt-get update\nSTOPSIGNAL"),
    ("the_image_is_built_from_locks_by_any_builder", "Dockerfile", "/venv --require-hashes --only", "/venv --only"),
    ("the_image_is_built_from_locks_by_any_builder", "Dockerfile", "--wheel --require-hashes", "--wheel"),
    (
        "the_image_is_built_from_locks_by_any_builder",
        "Dockerfile",
        "RUN uv venv",
        "RUN --mount=type=cache,target=/c uv venv",
    ),
    ("the_image_is_built_from_locks_by_any_builder", "Makefile", "uv==", "uv==0"),
    ("the_image_is_built_from_locks_by_any_builder", "Dockerfile", "python:3.13-slim", "python:3.9-slim"),
    ("ci_runs_every_supported_python", ".github/workflows/ci.yml", '["3.11", "3.12", "3.13"]', '["3.11", "3.13"]'),
    ("every_action_is_pinned_by_commit", WORKFLOW, "@df4cb1c069e1874edd31b4311f1884172cec0e10 # v6.0.3", "@v6"),
    (
        "every_workflow_has_the_least_permissions",
        WORKFLOW,
        "permissions:\n  contents: read\njobs",
        "permissions: write-all\njobs",
    ),
    ("every_workflow_has_the_least_permissions", WORKFLOW, "packages: write # pushes the image", "packages: write"),
]

BY_NAME: dict[str, Contract] = {each.__name__: each for each in CONTRACTS}


@pytest.mark.parametrize("contract", CONTRACTS, ids=BY_NAME)
def test_the_deployment_keeps(contract: Contract) -> None:
    assert faults(contract, FILES) == []


@pytest.mark.parametrize(
    ("contract", "path", "right", "wrong"),
    MUTATIONS,
    ids=[f"{name}-{number}" for number, (name, *_) in enumerate(MUTATIONS)],
)
def test_a_deployment_that_breaks_a_contract_is_noticed(contract: str, path: str, right: str, wrong: str) -> None:
    assert right in FILES[path], "there is nothing to break"
    broken = {**FILES, path: FILES[path].replace(right, wrong)}
    assert faults(BY_NAME[contract], broken) != []


def test_each_contract_is_seen_to_notice_something() -> None:
    assert {name for name, *_ in MUTATIONS} == BY_NAME.keys()
