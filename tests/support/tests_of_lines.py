"""Tells which tests run which lines: `python -m tests.support.tests_of_lines OUTPUT TESTS…`, for `make mutants`."""

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import coverage
import pytest

PACKAGES = ["quart_app", "storage", "upstream"]


class EachTestItsContext:
    """A plugin of pytest: what runs from a test's set-up to its end is noted as that test's."""

    def __init__(self, measuring: coverage.Coverage) -> None:
        self._measuring = measuring
        self.seconds: dict[str, float] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """See pytest."""
        self._measuring.switch_context(item.nodeid)
        began = time.monotonic()
        try:
            return (yield)
        finally:
            self.seconds[item.nodeid] = time.monotonic() - began
            self._measuring.switch_context("")


def main(output: Path, tests: list[str]) -> int:
    """Run `tests` in this process and write a JSON object. The exit status is pytest's.

    seconds  how long each test takes, by its id
    lines    file, then line, then the ids of the tests that ran it; none for a line that runs while a module is
             imported, or in another process
    """
    measuring = coverage.Coverage(data_file=None, config_file=False, source_pkgs=PACKAGES)
    measuring.start()
    each = EachTestItsContext(measuring)
    status = pytest.main(["-q", "-n", "0", "-p", "no:cacheprovider", *tests], plugins=[each])
    measuring.stop()
    data = measuring.get_data()
    lines = {
        str(Path(name).relative_to(Path.cwd())): {
            line: sorted(filter(None, contexts)) for line, contexts in data.contexts_by_lineno(name).items()
        }
        for name in data.measured_files()
    }
    output.write_text(json.dumps({"seconds": each.seconds, "lines": lines}))
    return status


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
