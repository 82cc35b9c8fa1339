"""Whether telemetry arrives where it is sent, reported in one line when that changes.

The exporters' own lines are off: they hold instrumentation keys, what was to be sent, and what the other end answered.
"""

import logging

logger = logging.getLogger(__name__)


class Delivery:
    """Tells of the first failure of one kind of telemetry (`what`), and of the first success after it."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._failing = False

    def note(self, succeeded: bool) -> None:
        """One batch arrived, or did not and is lost."""
        if succeeded == self._failing:
            self._failing = not succeeded
            if succeeded:
                logger.info("%s arrive again.", self._what)
            else:
                logger.warning(
                    "%s do not arrive and are lost until they do. Check the connection string or the endpoint, the "
                    "network, and the daily cap of the workspace.",
                    self._what,
                )
