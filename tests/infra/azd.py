"""What the Azure Developer CLI makes of `infra/main.parameters.json` and an environment.

As azd 1.31 does it (https://github.com/Azure/azure-dev, cli/azd/pkg/infra/provisioning/bicep/bicep_provider.go:
`loadParameters`, `armParameterFileValue`): values are substituted, and what is empty because it is not set is left out.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from tests.infra.bicep import ROOT

PARAMETERS = json.loads((ROOT / "infra/main.parameters.json").read_text())["parameters"]
VARIABLE = re.compile(r"\$\{([A-Z0-9_]+)(?:=([^}]*))?\}")


def parameters(environment: Mapping[str, str]) -> dict[str, Any]:
    """The parameters of main.bicep, by name."""
    given = {name: _substituted(each["value"], environment) for name, each in PARAMETERS.items()}
    return {name: value for name, value in given.items() if value not in ("", None)}


def variables() -> set[str]:
    """Every variable that may be set in an azd environment."""
    return {name for name, _ in VARIABLE.findall(json.dumps(PARAMETERS))}


def _substituted(value: Any, environment: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {name: _substituted(each, environment) for name, each in value.items()}
    return VARIABLE.sub(lambda found: environment.get(found[1]) or found[2] or "", value)
