"""Clients that others' generators make of the OpenAPI document take a user through the whole API."""

import json
import shlex
import shutil
import sys
from pathlib import Path

import jwt
import pytest

from local_azure.environment import LocalAzure
from tests.openapi.tools import FOLDER, Tools
from tests.support.markdown import ROOT, page


@pytest.fixture
def workshop(tmp_path: Path, documents: list[Path]) -> Path:
    """A directory to generate into, with the document."""
    directory = tmp_path / "workshop"
    directory.mkdir()
    shutil.copy(documents[0], directory / "openapi.json")
    return directory


def documented(program: str) -> list[str]:
    """The command that the documentation gives with this program."""
    lines = [line for block in page(ROOT / "docs" / "clients.md").blocks("sh") for line in block.splitlines()]
    (command,) = (line for line in lines if line.startswith(f"{program} "))
    return shlex.split(command)


async def test_a_client_in_typescript_is_generated_type_checked_and_run(
    service: str, tools: Tools, workshop: Path, local_azure: LocalAzure
) -> None:
    for name in ("journey.ts", "package.json", "tsconfig.json"):
        shutil.copy(FOLDER / name, workshop)
    (workshop / "node_modules").symlink_to(FOLDER / "node_modules")
    (await tools.run(*documented("npx"), directory=workshop)).succeeded()
    (await tools.npm("tsc", "--project", workshop)).succeeded()
    token = local_azure.entra.access_token("alex")
    done = await tools.run("node", "build/journey.js", service, directory=workshop, ACCESS_TOKEN=token)
    _assert_whole(done.succeeded(), local_azure)


async def test_a_client_in_python_is_generated_type_checked_and_run(
    service: str, tools: Tools, workshop: Path, local_azure: LocalAzure
) -> None:
    shutil.copy(FOLDER / "journey.py", workshop)
    (await tools.run(*documented("openapi-python-client"), "--fail-on-warning", directory=workshop)).succeeded()
    python = tools.generator / "bin" / "python"
    mypy = (sys.executable, "-m", "mypy", "--strict", "--config-file=", "--follow-imports=silent")
    (await tools.run(*mypy, "--python-executable", python, "journey.py", directory=workshop)).succeeded()
    token = local_azure.entra.access_token("alex")
    done = await tools.run(python, "journey.py", service, directory=workshop, ACCESS_TOKEN=token)
    _assert_whole(done.succeeded(), local_azure)


def _assert_whole(printed: str, local_azure: LocalAzure) -> None:
    """The journey led where `journey.ts` and `journey.py` say."""
    told = json.loads(printed)
    token = told.pop("token")
    with pytest.raises(jwt.InvalidTokenError, match="revoked"):
        local_azure.acs.verify_token(token)  # by the sign-out
    claims = jwt.decode(token, options={"verify_signature": False})
    identity = told["created"]
    assert identity.startswith("8:acs:")
    assert claims["acsScope"] == "voip.join"
    assert claims["exp"] - claims["iat"] == 60 * 60
    assert identity == f"8:{claims['skypeid']}"
    assert told == {
        "statuses": [201, 200, 201, 400, 204, 204, 404, 401],
        "created": identity,
        "found": identity,
        "issuedTo": identity,
        "tooMuch": "scope_not_allowed",
        "gone": "identity_not_found",
        "refused": "invalid_token",
    }
