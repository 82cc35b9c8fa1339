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
    return {name for query in queries for name in re.findall(f"'({METRIC})'", query)}


def metrics_sent() -> set[str]:
    """The metrics that the service makes, read from its source: that needs no exporter."""
    sources = [(ROOT / "quart_app" / name).read_text() for name in ("telemetry/opentelemetry.py", "app.py")]
    attributes = {"acs_auth.request_id", "acs_auth.refusal_reason"}
    return {name for source in sources for name in re.findall(f'"({METRIC})"', source)} - attributes


def test_every_metric_is_on_the_dashboard_and_no_other() -> None:
    assert metrics_asked_for(workbook()) == metrics_sent()


def test_every_metric_is_documented() -> None:
    assert metrics_sent() <= set(DOCUMENTED)


@pytest.mark.parametrize("name", sorted(metrics_sent()))
def test_a_renamed_metric_would_be_noticed(name: str) -> None:
    assert metrics_asked_for(workbook().replace(f"'{name}'", f"'{name}_renamed'")) != metrics_sent()
