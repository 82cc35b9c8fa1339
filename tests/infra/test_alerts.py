"""Whoever is woken by an alert finds a paragraph that says what to do."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def alerts() -> set[str]:
    """The names of all alerts, in the templates and among the queries."""
    templates = [(ROOT / "infra" / name).read_text() for name in ("api.bicep", "resources.bicep")]
    of_platform = {
        name for text in templates for name in re.findall(r"name: '([a-z-]+)'\n\s+severity: \d\n\s+description:", text)
    }
    of_queries = {each["name"] for each in json.loads((ROOT / "infra/alerts.json").read_text())}
    return of_platform | of_queries | {"availability"}


def runbook() -> dict[str, str]:
    """The sections of the page on alerts, by name."""
    text = (ROOT / "docs/operate/alerts.md").read_text()
    return dict(re.findall(r"^## (\S+)\n\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL))


def test_each_alert_has_a_paragraph_and_each_paragraph_an_alert() -> None:
    assert set(runbook()) == alerts()
    assert {"latency", "restarts", "replicas", "throttled", "error-ratio"} <= alerts()


@pytest.mark.parametrize("name", sorted(alerts()))
def test_a_paragraph_says_more_than_the_alert_does(name: str) -> None:
    assert len(re.split(r"[.:;] ", runbook()[name])) >= 2
    assert len(runbook()[name]) > 120


def test_what_is_deployed_counts_as_many_alerts_as_the_page_on_deployment_says() -> None:
    assert len(alerts()) == 10
    assert "ten [alerts]" in (ROOT / "docs/deploy.md").read_text()
