"""Writes the stored snapshots as plain ARM templates, which Checkov can read: `python3 -m tests.infra.arm DIRECTORY`.

Everything in them is evaluated, so a scanner sees what is deployed and no parameter. Python's library only.
"""

import json
import sys
from pathlib import Path

SNAPSHOTS = Path(__file__).parent / "snapshots"


def main(directory: Path) -> None:
    """Writes one template for each way of deploying."""
    directory.mkdir(parents=True, exist_ok=True)
    for path in SNAPSHOTS.glob("*.json"):
        resources = json.loads(path.read_text())["predictedResources"]
        template = {
            "$schema": "https://schema.management.azure.com/schemas/2019-04-01/deploymentTemplate.json#",
            "contentVersion": "1.0.0.0",
            "resources": [each for each in resources if not each["type"].startswith("Microsoft.Graph")],
        }
        (directory / path.name).write_text(json.dumps(template, indent=1))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
