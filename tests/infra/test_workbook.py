"""The dashboard asks for nothing that the service does not send, and shows all that it does."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTED = re.findall(r"`((?:acs_auth|http)\.[a-z_.]+)`", (ROOT / "docs" / "operations.md").read_text())
METRIC = r"(?:acs_auth|http\.server)\.[a-z_.]+"


def workbook() -> str:
    return (ROOT / "infra" / "workbook.json").read_text()


def metrics_asked_for(text: str) -> set[str]:
    """The metrics that the workbook's queries name."""
    queries = [item["content"].get("query", "") for item in json.loads(text)["items"]]
    named = re.compile(rf"(?<!\[)'({METRIC})'")  # after a bracket it is a dimension
    return {name for query in queries for name in named.findall(query)}


def metrics_sent() -> set[str]:
    """The metrics that the service makes, read from its source: that needs no exporter."""
    sources = [(ROOT / "quart_app" / name).read_text() for name in ("telemetry/opentelemetry.py", "app.py")]
    made = r'(?:create_\w+|gauge)\(\s*"([a-z_.]+)"'
    return {name for source in sources for name in re.findall(made, source)}


def metrics_of_ours() -> set[str]:
    """Those that Application Insights shows with their attributes: it makes a standard metric of every other."""
    return {name for name in metrics_sent() if name.startswith("acs_auth.")}


def test_every_metric_is_on_the_dashboard_and_no_other() -> None:
    assert metrics_asked_for(workbook()) == metrics_of_ours()


def test_every_metric_is_documented() -> None:
    assert metrics_sent() <= set(DOCUMENTED)


@pytest.mark.parametrize("name", sorted(metrics_of_ours()))
def test_a_renamed_metric_would_be_noticed(name: str) -> None:
    assert metrics_asked_for(workbook().replace(f"'{name}'", f"'{name}_renamed'")) != metrics_of_ours()
