"""Callers who come all at once are served in turn."""

import asyncio
import socket
from typing import Any

import hypercorn.asyncio

from quart_app.serving import server
from quart_app.serving.event_loop import event_loop_factory

CALLERS = 64
MOST_TURNS = 5_000


async def _turns_until_all_are_served() -> list[int]:
    """In which turn of the event loop each request of a burst reached the application."""
    turn, served, stop = 0, [], asyncio.Event()

    async def application(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            served.append(turn)
            await send({"type": "http.response.start", "status": 204, "headers": []})
            await send({"type": "http.response.body", "body": b""})

    bound = socket.socket()
    bound.bind(("127.0.0.1", 0))
    bound.setblocking(False)
    address = bound.getsockname()
    config = server._config(bound, 1.0)
    serving = asyncio.create_task(hypercorn.asyncio.serve(application, config, shutdown_trigger=stop.wait, mode="asgi"))
    callers: list[socket.socket] = []
    while not callers:  # until it listens
        await asyncio.sleep(0)
        try:
            callers.append(socket.create_connection(address))
        except ConnectionRefusedError:
            continue
    callers += [socket.create_connection(address) for _ in range(CALLERS - 1)]
    for caller in callers:
        caller.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    while len(served) < CALLERS and turn < MOST_TURNS:
        await asyncio.sleep(0)
        turn += 1
    for caller in callers:
        caller.close()
    stop.set()
    await serving
    return served


def test_the_last_of_a_burst_does_not_wait_for_a_turn_for_each_who_came_before() -> None:
    with asyncio.Runner(loop_factory=event_loop_factory()) as runner:
        served = runner.run(_turns_until_all_are_served())
    assert len(served) == CALLERS
    assert max(served) - min(served) < CALLERS / 4
