"""What azd runs around its own steps (azure.yaml): `python3 -m infra.hooks.<step>`, with Python's library only."""

import sys

if sys.version_info < (3, 11):  # noqa: UP036 (azd takes whatever python3 there is)
    sys.exit(f"This project's azd hooks need Python 3.11 or newer as python3; this is {sys.version.split()[0]}.")
