"""azure.yaml against azd's own schema, where there is a copy of it.

The copy is not ours to keep: https://raw.githubusercontent.com/Azure/azure-dev/main/schemas/v1.0/azure.yaml.json
"""

import json
import os
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tests.infra.bicep import ROOT

VARIABLE = "AZURE_YAML_SCHEMA"
AZURE_YAML = (ROOT / "azure.yaml").read_text()


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    path = os.environ.get(VARIABLE)
    if not path:
        pytest.skip(f"{VARIABLE} does not name a copy of azd's schema")
    loaded: dict[str, Any] = json.loads(Path(path).read_text())
    return loaded


def test_azd_understands_azure_yaml(schema: dict[str, Any]) -> None:
    jsonschema.validate(yaml.safe_load(AZURE_YAML), schema)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("provider: bicep", "provider: Bicep!"),
        ("name: acs-auth-server", "name: ACS"),
        ("remoteBuild: true", "remoteBuild: 1"),
    ],
)
def test_the_schema_notices_a_mistake(schema: dict[str, Any], right: str, wrong: str) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(yaml.safe_load(AZURE_YAML.replace(right, wrong)), schema)
