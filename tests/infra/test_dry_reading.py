"""What docs/contribute/dry-reading.md lists is what there is, and each step of azd has its source."""

import re

import pytest

from tests.infra.dry_reading import PAGE, renewed

TEXT = PAGE.read_text()


def test_settings_templates_and_snapshots_are_listed_as_they_are() -> None:
    assert renewed(TEXT) == TEXT, "python3 -m tests.infra.dry_reading writes the lists"


@pytest.mark.parametrize(
    "line",
    [
        "| `LOG_HASH_KEY` | a secret: made once in the key vault, and given by reference |\n",
        "- `modules/vault.bicep`: 0 errors, 0 warnings\n",
        "| `front-door` | 6 |\n",
    ],
)
def test_a_line_that_is_missing_would_be_noticed(line: str) -> None:
    assert line in TEXT
    broken = TEXT.replace(line, "")
    assert renewed(broken) == TEXT


def test_each_step_has_its_line_in_one_version_of_azd() -> None:
    versions = re.findall(r"https://github.com/Azure/azure-dev/blob/([^/]+)/\S+#L\d+", TEXT)
    assert set(versions) == {"azure-dev-cli_1.31.2"}
    assert len(versions) > 30
