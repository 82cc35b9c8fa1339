"""Every template as Microsoft's compiler, linter and formatter see it."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from infra.hooks.preprovision import ACS_DATA_LOCATIONS
from tests.infra.bicep import ROOT, Bicep, find_compiler


def test_no_template_has_an_error_a_warning_or_another_format(bicep: Bicep) -> None:
    assert bicep.findings() == []


@pytest.mark.parametrize(
    ("file", "right", "wrong", "said"),
    [
        ("modules/registry.bicep", "adminUserEnabled", "adminUserEnabld", "BCP089"),
        (
            "modules/identity.bicep",
            "param location string",
            "param location string\nparam idle string",
            "no-unused-params",
        ),
        ("modules/identity.bicep", "2024-11-30", "2024-11-31", "BCP081"),
        ("modules/identity.bicep", "  name: name", "    name: name", "not as `bicep format` writes it"),
    ],
)
def test_a_mistake_is_a_finding(tmp_path: Path, file: str, right: str, wrong: str, said: str) -> None:
    compiler = find_compiler()
    assert compiler
    bicep = Bicep(compiler, tmp_path)
    path = bicep.infra / file
    text = path.read_text()
    assert right in text
    path.write_text(text.replace(right, wrong))
    assert any(said in finding for finding in bicep.findings())


def test_no_key_is_listed_and_nothing_of_a_registry_is_used(bicep: Bicep) -> None:
    texts = {path: str(template) for path, template in bicep.templates().items()}
    assert [path for path, text in texts.items() if re.search(r"\blist[A-Z]\w*\(", text)] == []
    sources = [path.read_text() for path in bicep.infra.rglob("*.bicep")]
    assert not any("br/public:" in text or "'br:" in text for text in sources)


def test_writes_to_a_cosmos_db_account_wait_for_each_other(bicep: Bicep) -> None:
    """An account refuses a write during another one, so all of them stand in one line."""
    writes = {
        name: resource
        for name, resource in bicep.templates()["modules/cosmos"]["resources"].items()
        if resource["type"].startswith("Microsoft.DocumentDB/databaseAccounts")
    }
    assert unordered(writes) == []
    assert all(each["copy"].get("batchSize") == 1 for each in writes.values() if "copy" in each)


def test_two_writes_at_once_would_be_noticed(bicep: Bicep) -> None:
    writes = {
        name: {**resource, "dependsOn": [each for each in resource.get("dependsOn", []) if each != "metadataRole"]}
        for name, resource in bicep.templates()["modules/cosmos"]["resources"].items()
        if resource["type"].startswith("Microsoft.DocumentDB/databaseAccounts")
    }
    assert unordered(writes) != []


def test_a_secret_is_made_once_only(bicep: Bicep) -> None:
    made = [
        each for each in bicep.templates()["modules/vault"]["resources"].values() if each["type"].endswith("/secrets")
    ]
    assert len(made) == 2
    assert all("onlyIfNotExists" in each["@options"] for each in made)


def test_the_service_is_told_of_a_secret_after_it_may_read_it(bicep: Bicep) -> None:
    """Container Apps reads a secret when the app is written, so role and secret come first: in the vault's module."""
    template = bicep.templates()["resources"]["resources"]
    assert {"vault", "registry"} <= set(template["api"]["dependsOn"])


def test_the_portals_form_gives_parameters_of_the_template(bicep: Bicep) -> None:
    given = json.loads((ROOT / "infra/portal.json").read_text())["parameters"]["outputs"]
    parameters = bicep.templates()["resources"]["parameters"]
    assert given.keys() - parameters.keys() == set()
    switches = {name for name in given if parameters[name]["type"] == "bool"}
    assert switches == {"privateNetwork", "internalIngress"}


def test_the_portals_form_offers_each_place_for_data(bicep: Bicep) -> None:
    """The same places as azd's hook."""
    text = (bicep.infra / "portal.json").read_text()
    assert re.findall(r'"label": "([^"]+)", "value": "\1"', text) == list(ACS_DATA_LOCATIONS)


def unordered(writes: dict[str, Any]) -> list[tuple[str, str]]:
    """Pairs of resources of which neither waits for the other."""

    def before(name: str) -> set[str]:
        direct = {each for each in writes[name].get("dependsOn", []) if each in writes}
        return direct.union(*(before(each) for each in direct))

    earlier = {name: before(name) for name in writes}
    names = sorted(writes)
    return [
        (one, other)
        for number, one in enumerate(names)
        for other in names[number + 1 :]
        if one not in earlier[other] and other not in earlier[one]
    ]
