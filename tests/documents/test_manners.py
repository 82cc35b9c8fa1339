"""The project's manners: labels, forms, owners and release notes fit together, as far as that shows without GitHub."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.markdown import ROOT

GITHUB = ROOT / ".github"
FORMS = sorted(path for path in (GITHUB / "ISSUE_TEMPLATE").glob("*.yml") if path.name != "config.yml")


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def labels() -> list[dict[str, str]]:
    found: list[dict[str, str]] = read(GITHUB / "labels.yml")
    return found


def used_labels() -> set[str]:
    """The labels of the forms, of Dependabot, and of what workflows do with a label."""
    of_forms = {label for form in FORMS for label in read(form)["labels"]}
    of_dependabot = {label for update in read(GITHUB / "dependabot.yml")["updates"] for label in update["labels"]}
    texts = [path.read_text() for path in (GITHUB / "workflows").glob("*.yml")]
    return of_forms | of_dependabot | {label for text in texts for label in re.findall(r"--add-label ([\w-]+)", text)}


def test_every_label_that_is_used_is_made() -> None:
    assert {"dependencies", "defect", "wish", "question"} <= used_labels()
    assert used_labels() - {each["name"] for each in labels()} == set()


def test_labels_are_what_github_takes() -> None:
    names = [each["name"].lower() for each in labels()]
    assert len(set(names)) == len(names)
    for each in labels():
        assert set(each) == {"name", "color", "description"}
        assert re.fullmatch(r"[0-9a-f]{6}", each["color"])
        assert 0 < len(each["description"]) <= 100


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_a_form_has_what_github_wants_of_it(path: Path) -> None:
    form = read(path)
    assert {"name", "description", "body"} <= set(form)
    ids = [element["id"] for element in form["body"] if element["type"] != "markdown"]
    assert ids
    assert len(set(ids)) == len(ids)
    for element in form["body"]:
        assert element["type"] in {"markdown", "textarea", "input", "dropdown", "checkboxes"}
        assert "value" in element["attributes"] if element["type"] == "markdown" else element["attributes"]["label"]


def test_what_has_owners_is_there_and_each_line_names_one() -> None:
    lines = [line.split() for line in (GITHUB / "CODEOWNERS").read_text().splitlines() if line and line[0] != "#"]
    assert lines[0][0] == "*"
    for pattern, *owners in lines:
        assert owners
        assert all(owner.startswith("@") for owner in owners)
        assert pattern == "*" or (ROOT / pattern.strip("/")).is_dir()


def release_notes(changelog: str, tag: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    """What the workflow `release` makes of a changelog, by its own script."""
    steps = read(GITHUB / "workflows/release.yml")["jobs"]["release"]["steps"]
    script = next(step["run"] for step in steps if "awk" in step.get("run", ""))
    (tmp_path / "CHANGELOG.md").write_text(changelog)
    return subprocess.run(
        ["bash", "-euc", script[script.index("awk") :]],
        cwd=tmp_path,
        env={"GITHUB_REF_NAME": tag, "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.skipif(shutil.which("awk") is None, reason="awk is not installed")
def test_release_notes_are_the_changelogs_section_and_nothing_else(tmp_path: Path) -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    assert "\n## [Unreleased]\n" in text
    older = "\n\n## [0.0.9] - 2026-01-01\n\n### Added\n\n- Something older.\n"
    released = text.replace("## [Unreleased]", "## [Unreleased]\n\n## [9.8.7] - 2026-12-01") + older
    assert release_notes(released, "v9.8.7", tmp_path).returncode == 0
    notes = (tmp_path / "notes.md").read_text()
    assert notes.strip() == text.partition("## [Unreleased]")[2].strip()
    assert release_notes(released, "v9.8.8", tmp_path).returncode != 0
