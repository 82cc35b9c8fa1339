"""The tests of `compiled/` need the Bicep compiler, so they run with `make infra` and not with `make test`."""

import os

import pytest

collect_ignore = [] if os.environ.get("INFRA") else ["compiled"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-snapshots", action="store_true", help="keep what the templates now deploy")
