"""Which ports a run takes, and what it says about those that it can't have."""

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from local_azure import port_choice
from local_azure.environment import Ports
from local_azure.port_choice import AskedPorts, PortsBusy, choose
from local_azure.port_holders import holder

SYSTEM_CHOOSES = 0


@contextlib.contextmanager
def listening(port: int = SYSTEM_CHOOSES, host: str = "127.0.0.1") -> Iterator[int]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as opened:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opened.bind((host, port))
        opened.listen()
        yield opened.getsockname()[1]


def is_free(port: int) -> bool:
    with contextlib.suppress(OSError), listening(port):
        return True
    return False


def free_row(length: int) -> int:
    """The first of `length` free ports in a row, out of a range that other test processes don't look at."""
    own = 10_000 + os.getpid() % 1000 * 20
    candidates = (own + offset for offset in range(0, 20_000, 20))
    return next(start for start in candidates if all(is_free(start + number) for number in range(length)))


@pytest.fixture
def base(monkeypatch: pytest.MonkeyPatch) -> int:
    """Ten free ports in a row, of which the first is the default."""
    base = free_row(10)
    monkeypatch.setattr(port_choice, "DEFAULT_BASE", base)
    return base


def test_the_stand_ins_follow_the_service(base: int) -> None:
    chosen = choose(AskedPorts(), with_service=True)
    assert (chosen.service, chosen.note) == (base, None)
    assert chosen.stand_ins == Ports(base + 1, base + 2, base + 3, base + 4)


def test_a_base_port_moves_them_all_and_single_ports_are_kept(base: int) -> None:
    chosen = choose(AskedPorts(base=base + 3, acs=base), with_service=True)
    assert chosen.service == base + 3
    assert chosen.stand_ins == Ports(base + 4, base + 5, base, base + 7)


def test_a_taken_default_of_the_service_gives_way_with_a_sentence(base: int) -> None:
    with listening(base), listening(base + 5):
        chosen = choose(AskedPorts(), with_service=True)
    assert chosen.service == base + 6
    assert chosen.stand_ins == Ports(base + 1, base + 2, base + 3, base + 4)
    assert chosen.note is not None
    assert chosen.note.startswith(f"Port {base} is in use")
    assert chosen.note.endswith(f", so the service listens on port {base + 6}; choose another one with --port.")


@pytest.mark.parametrize("asked", ["base", "service"])
def test_a_port_that_was_asked_for_does_not_give_way(base: int, asked: str) -> None:
    with listening(base), pytest.raises(PortsBusy, match=f"Port {base} is in use"):
        choose(AskedPorts(**{asked: base}), with_service=True)


def test_without_the_service_its_port_does_not_matter(base: int) -> None:
    with listening(base):
        chosen = choose(AskedPorts(), with_service=False)
    assert (chosen.note, chosen.stand_ins.entra) == (None, base + 1)


@pytest.mark.parametrize("host", ["0.0.0.0", "::1"])
def test_a_port_of_all_addresses_or_of_the_other_localhost_is_taken_too(base: int, host: str) -> None:
    try:
        with listening(base, host):
            assert choose(AskedPorts(), with_service=True).service == base + 5
    except OSError:
        pytest.skip("this machine has no such address")


def test_what_stands_in_the_way_is_told_for_all_ports_at_once(base: int, monkeypatch: pytest.MonkeyPatch) -> None:
    holders = {base + 1: "one (process 1)", base + 2: "one (process 1)", base + 4: None}
    monkeypatch.setattr(port_choice, "holder", holders.get)
    with listening(base + 1), listening(base + 2), listening(base + 4), pytest.raises(PortsBusy) as raised:
        choose(AskedPorts(), with_service=True)
    assert str(raised.value) == (
        f"Ports {base + 1} and {base + 2} are in use by one (process 1) and port {base + 4} is in use: free them, or "
        "choose others with --entra-port, --graph-port and --cosmos-port, or all together with --base-port."
    )


def test_one_port_cannot_serve_twice(base: int) -> None:
    with pytest.raises(PortsBusy, match=f"Port {base + 1} is wanted by --entra-port already: .*--acs-port"):
        choose(AskedPorts(acs=base + 1), with_service=True)


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="the platform does not tell")
def test_who_holds_a_port_is_told(base: int) -> None:
    with listening(base):
        who = holder(base)
    assert who is not None
    assert who.endswith(f" (process {os.getpid()})")
    assert holder(base) is None
