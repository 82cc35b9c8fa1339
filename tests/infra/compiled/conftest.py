"""The compiler and what it makes of the templates, once for all tests of this folder."""

from pathlib import Path

import pytest

from tests.infra.bicep import Bicep, find_compiler
from tests.infra.compiled.deployments import Deployment, evaluated


@pytest.fixture(scope="session")
def bicep(tmp_path_factory: pytest.TempPathFactory) -> Bicep:
    compiler = find_compiler()
    assert compiler, "run this with make infra"
    return Bicep(compiler, Path(tmp_path_factory.mktemp("bicep")))


@pytest.fixture(scope="session")
def deployments(bicep: Bicep) -> dict[str, Deployment]:
    return evaluated(bicep)
