"""The tests of `compiled/` need the Bicep compiler, so they run with `make infra` and not with `make test`."""

import os

collect_ignore = [] if os.environ.get("INFRA") else ["compiled"]
