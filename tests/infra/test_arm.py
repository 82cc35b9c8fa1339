"""What a security scanner is given."""

import json
from pathlib import Path

from tests.infra import arm


def test_every_way_of_deploying_is_written_without_what_is_no_azure_resource(tmp_path: Path) -> None:
    arm.main(tmp_path / "arm")
    written = {path.name: json.loads(path.read_text()) for path in (tmp_path / "arm").glob("*.json")}
    assert written.keys() == {path.name for path in arm.SNAPSHOTS.glob("*.json")} != set()
    for template in written.values():
        assert template["resources"]
        assert not any(each["type"].startswith("Microsoft.Graph") for each in template["resources"])
