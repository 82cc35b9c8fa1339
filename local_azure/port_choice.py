"""Which ports a run listens on, and what prevents it."""

import contextlib
import errno
import random
import socket
import sys
from collections import defaultdict
from dataclasses import dataclass, fields

from local_azure.environment import LOOPBACK, Ports
from local_azure.port_holders import holder

DEFAULT_BASE = 5000
_ATTEMPTS = 200
_SELDOM_USED = range(10_000, 32_000)


@dataclass(frozen=True, slots=True)
class AskedPorts:
    """What the user asked for; `None` leaves the choice here. `base` is the service's port, the stand-ins' follow."""

    base: int | None = None
    service: int | None = None
    entra: int | None = None
    graph: int | None = None
    acs: int | None = None
    cosmos: int | None = None


@dataclass(frozen=True, slots=True)
class ChosenPorts:
    """The ports of a run. `note` is a sentence to print, about a port that nobody asked for and that was taken."""

    service: int
    stand_ins: Ports
    note: str | None = None


class PortsBusy(Exception):
    """One or more ports can't be had; the message names them all."""


def choose(asked: AskedPorts, *, with_service: bool) -> ChosenPorts:
    """Choose the ports, which are all free at the moment. Raises `PortsBusy`."""
    base = asked.base or DEFAULT_BASE
    names = [field.name for field in fields(Ports)]
    wanted = {name: getattr(asked, name) or base + number for number, name in enumerate(names, start=1)}
    stand_ins = Ports(**wanted)
    service = asked.service or base
    note = None
    nobody_asked = asked.service is None and asked.base is None
    if with_service and nobody_asked and (obstacle := _obstacle(service)) is not None:
        taken, service = service, _next_free(base + len(names) + 1, set(wanted.values()))
        note = f"Port {taken} {obstacle}, so the service listens on port {service}; choose another one with --port."
    _require_free({**({"": service} if with_service else {}), **wanted})
    return ChosenPorts(service, stand_ins, note)


def free_port() -> int:
    """Some port that is free at the moment. Raises `PortsBusy`.

    It is below the range from which systems assign ports, so that nobody gets it by chance before it is used.
    """
    for port in random.Random().sample(_SELDOM_USED, _ATTEMPTS):  # noqa: S311 (any will do)
        if _obstacle(port) is None:
            return port
    raise PortsBusy(f"No free port was found between {_SELDOM_USED.start} and {_SELDOM_USED.stop - 1}.")


def _require_free(wanted: dict[str, int]) -> None:
    """`wanted` are ports by stand-in, the service's with an empty name."""
    options = {name: f"--{name}-port" if name else "--port" for name in wanted}
    obstacles: defaultdict[str, list[int]] = defaultdict(list)
    blamed: list[str] = []
    seen: dict[int, str] = {}
    for name, port in wanted.items():
        obstacle = f"is wanted by {options[seen[port]]} already" if port in seen else _obstacle(port)
        seen.setdefault(port, name)
        if obstacle is not None:
            obstacles[obstacle].append(port)
            blamed.append(options[name])
    if not obstacles:
        return
    told = _listed([_sentence(ports, obstacle) for obstacle, ports in obstacles.items()])
    remedy = "free it, or choose another one" if len(blamed) == 1 else "free them, or choose others"
    raise PortsBusy(f"{told[0].upper()}{told[1:]}: {remedy} with {_listed(blamed)}, or all together with --base-port.")


def _sentence(ports: list[int], obstacle: str) -> str:
    numbers = _listed([str(port) for port in ports])
    return f"port {numbers} {obstacle}" if len(ports) == 1 else f"ports {numbers} {obstacle.replace('is ', 'are ', 1)}"


def _obstacle(port: int) -> str | None:
    """Why the port can't be had, as a predicate; `None` if it can."""
    if _answers(port):
        return _in_use(port)
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listening:
        if sys.platform != "win32":  # there it would let two programs listen on one port
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listening.bind((LOOPBACK, port))
            listening.listen(1)  # only a listening socket keeps another one with SO_REUSEADDR away
        except OSError as error:
            return _in_use(port) if error.errno == errno.EADDRINUSE else f"can't be used ({error.strerror})"
    return None


def _answers(port: int) -> bool:
    """Whether somebody listens: on all addresses, where macOS still lets us bind one, or on the other localhost."""
    for host in (LOOPBACK, "::1"):
        with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=1):
            return True
    return False


def _in_use(port: int) -> str:
    who = holder(port)
    return "is in use" if who is None else f"is in use by {who}"


def _next_free(start: int, taken: set[int]) -> int:
    for port in range(start, start + _ATTEMPTS):
        if port not in taken and _obstacle(port) is None:
            return port
    raise PortsBusy(f"None of the ports {start} to {start + _ATTEMPTS - 1} is free: choose one with --port.")


def _listed(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
