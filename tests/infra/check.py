"""`make infra`: builds, lints and format-checks the templates, and tests what they would deploy."""

import os
import sys

import pytest

from tests.infra.bicep import MISSING, find_compiler


def main() -> int:
    """The exit status: 0 also where there is no compiler, which is said; naming one that is not there is a failure."""
    try:
        compiler = find_compiler()
    except FileNotFoundError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    if compiler is None:
        sys.stderr.write(f"NOT CHECKED: {MISSING}\n")
        return 0
    os.environ["INFRA"] = "1"
    return pytest.main(["tests/infra/compiled", "--quiet", "--numprocesses=2", "--dist=loadfile", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
