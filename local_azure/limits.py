"""How much a stand-in takes before it answers 429."""

from local_azure.clock import Clock


class WindowLimit:
    """So much in each window of time, windows following one another from the clock's zero.

    ACS names its limits so, as a number in 30 s; whether its windows slide isn't said. What is refused doesn't count.
    https://learn.microsoft.com/azure/communication-services/concepts/service-limits
    `spent` and `refused` are what was taken and how often nothing was left, since the start.

    amount   for each window, in the unit of `take`: calls, or request units
    seconds  a window's length
    clock    in seconds
    """

    def __init__(self, amount: float, seconds: float, clock: Clock) -> None:
        self._amount = amount
        self._seconds = seconds
        self._clock = clock
        self._window = -1
        self._left = amount
        self.spent = 0.0
        self.refused = 0

    def take(self, cost: float = 1.0) -> float | None:
        """Take `cost`, if anything is left of this window: as in Cosmos DB, the last one may cost more than that.

        `None` when it was taken, else the seconds until the next window begins: above zero.
        """
        now = self._clock()
        window = int(now // self._seconds)
        if window != self._window:
            self._window, self._left = window, self._amount
        if self._left <= 0:
            self.refused += 1
            return max((window + 1) * self._seconds - now, 0.001)
        self._left -= cost
        self.spent += cost
        return None
