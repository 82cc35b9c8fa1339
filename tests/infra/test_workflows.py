"""Steps of the workflows that are more than a command, run with stand-ins for the programs that they ask."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.infra.bicep import ROOT

DOCKER = """#!/bin/sh
test "$1 $2 $3" = "buildx imagetools inspect" || exit 2
case "$4" in
*uv:*) echo sha256:1111 ;;
*python:*) echo sha256:2222 ;;
*) exit 1 ;;
esac
"""
FROM = re.compile(r"^FROM (\S*/\S*)", re.MULTILINE)


def script(workflow: str, step: str) -> str:
    """What a step runs."""
    jobs = yaml.safe_load((ROOT / f".github/workflows/{workflow}.yml").read_text())["jobs"]
    (found,) = [each for job in jobs.values() for each in job["steps"] if each.get("name") == step]
    assert "${{" not in found["run"]
    return str(found["run"])


def run(text: str, directory: Path) -> subprocess.CompletedProcess[str]:
    """Runs a step as GitHub does."""
    return subprocess.run(
        ["bash", "-e", "-c", text],
        cwd=directory,
        env={"PATH": f"{directory}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    docker = tmp_path / "docker"
    docker.write_text(DOCKER)
    docker.chmod(0o700)
    shutil.copyfile(ROOT / "Dockerfile", tmp_path / "Dockerfile")
    return tmp_path


def base_images(directory: Path) -> list[str]:
    return FROM.findall((directory / "Dockerfile").read_text())


def test_base_images_are_pinned_by_the_digests_that_the_registries_answer(checkout: Path) -> None:
    named = [image.partition("@")[0] for image in base_images(checkout)]
    for _ in range(2):  # the second time there are digests already
        done = run(script("dependencies", "Pin the base images"), checkout)
        assert (done.returncode, done.stderr) == (0, "")
        assert base_images(checkout) == [
            f"{image}@{'sha256:1111' if '/uv:' in image else 'sha256:2222'}" for image in named
        ]
    before = (ROOT / "Dockerfile").read_text()
    assert re.sub("@sha256:[0-9a-f]+", "", (checkout / "Dockerfile").read_text()) == re.sub(
        "@sha256:[0-9a-f]+", "", before
    ), "nothing else has changed"


def test_nothing_is_pinned_where_a_registry_does_not_answer(checkout: Path) -> None:
    (checkout / "docker").write_text("#!/bin/sh\nexit 1\n")
    before = (checkout / "Dockerfile").read_text()
    assert run(script("dependencies", "Pin the base images"), checkout).returncode != 0
    assert (checkout / "Dockerfile").read_text() == before


def test_a_release_is_built_from_pinned_base_images_only(checkout: Path) -> None:
    refuse = script("image", "Refuse a release whose base images are not pinned by digest")
    dockerfile = checkout / "Dockerfile"
    dockerfile.write_text(re.sub("@sha256:[0-9a-f]+", "", dockerfile.read_text()))
    done = run(refuse, checkout)
    assert done.returncode == 1
    assert "workflow dependencies" in done.stdout
    run(script("dependencies", "Pin the base images"), checkout)
    assert run(refuse, checkout).returncode == 0
