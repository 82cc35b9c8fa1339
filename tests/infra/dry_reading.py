"""Writes the lists of docs/contribute/dry-reading.md: `python3 -m tests.infra.dry_reading`."""

import json
import re

from tests.infra.bicep import ROOT
from tests.infra.settings import FOUND, GIVEN, NOT_FOR_A_CONTAINER, SECRET

PAGE = ROOT / "docs/contribute/dry-reading.md"
TABLE = r"(?:\|.*\n)+"


def renewed(page: str) -> str:
    """The page with its lists as they must be; its prose stays."""
    for heading, found, wanted in (
        ("What the compiler says", r"(?:- `.*\n)+", _templates()),
        ("What each way of deploying asks of Azure", TABLE, _snapshots()),
        ("How each setting is deployed", TABLE, _settings()),
    ):
        before, title, section = page.partition(f"\n## {heading}\n")
        old = re.search(found, section)
        page = before + title + (section.replace(old[0], wanted, 1) if old else section)
    return page


def _templates() -> str:
    names = sorted(str(path.relative_to(ROOT / "infra")) for path in (ROOT / "infra").rglob("*.bicep"))
    return "".join(f"- `{name}`: 0 errors, 0 warnings\n" for name in names)


def _snapshots() -> str:
    lines = [
        f"| `{path.stem}` | {len(json.loads(path.read_text())['predictedResources'])} |\n"
        for path in sorted((ROOT / "tests/infra/snapshots").glob("*.json"))
    ]
    return "| Way of deploying | Resources |\n|---|---|\n" + "".join(lines)


def _settings() -> str:
    ways = {
        **dict.fromkeys(GIVEN, "given with `azd env set`, by this name"),
        **{name: f"a secret: {way}" for name, way in SECRET.items()},
        **{name: f"known to the templates: {way}" for name, way in FOUND.items()},
        **{name: f"not set: {way}" for name, way in NOT_FOR_A_CONTAINER.items()},
    }
    return "| Setting | How |\n|---|---|\n" + "".join(f"| `{name}` | {ways[name]} |\n" for name in sorted(ways))


if __name__ == "__main__":
    PAGE.write_text(renewed(PAGE.read_text()))
