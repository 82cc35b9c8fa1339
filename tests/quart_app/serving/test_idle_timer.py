"""A connection that is idle is ended after a while, and at once when the server stops."""

import asyncio

from quart_app.serving.hypercorn_patch import IdleTimer, Termination
from tests.support import virtual_time

SECONDS = 300.0


class Ended:
    """When the connection was ended, if it was."""

    def __init__(self, termination: Termination) -> None:
        self.times: list[float] = []
        self.timer = IdleTimer(SECONDS, termination, lambda: self.times.append(asyncio.get_running_loop().time()))


def test_it_counts_from_the_last_time_that_the_connection_became_idle() -> None:
    async def main() -> list[float]:
        ended = Ended(Termination())
        begun = asyncio.get_running_loop().time()
        await ended.timer.restart()
        await asyncio.sleep(SECONDS - 1)
        await ended.timer.restart()
        await asyncio.sleep(2 * SECONDS)
        return [at - begun for at in ended.times]

    assert virtual_time.run(main()) == [2 * SECONDS - 1]


def test_a_request_stops_it() -> None:
    async def main() -> list[float]:
        ended = Ended(termination := Termination())
        await ended.timer.restart()
        await ended.timer.stop()
        await termination.set()
        await asyncio.sleep(2 * SECONDS)
        return ended.times

    assert virtual_time.run(main()) == []


def test_when_the_server_stops_idle_connections_end_at_once_and_others_when_they_become_idle() -> None:
    async def main() -> list[float]:
        idle, busy = Ended(termination := Termination()), Ended(termination)
        begun = asyncio.get_running_loop().time()
        await idle.timer.restart()
        await busy.timer.restart()
        await busy.timer.stop()
        await asyncio.sleep(1)
        await termination.set()
        await asyncio.sleep(1)
        await busy.timer.restart()
        await asyncio.sleep(1)
        return [at - begun for at in [*idle.times, *busy.times]]

    assert virtual_time.run(main()) == [1, 2]
