"""Free ports for `acs-auth-local run`, and the options that name them."""

import socket

PORT_OPTIONS = ("--port", "--entra-port", "--graph-port", "--acs-port", "--cosmos-port")


def some_free_ports() -> list[int]:
    """A port that nobody uses at the moment for each of `PORT_OPTIONS`."""
    sockets = [socket.socket() for _ in PORT_OPTIONS]
    for opened in sockets:
        opened.bind(("127.0.0.1", 0))
    ports = [opened.getsockname()[1] for opened in sockets]
    for opened in sockets:
        opened.close()
    return ports


def port_arguments(ports: list[int]) -> list[str]:
    """The options with these ports, as they stand on the command line."""
    return [text for name, port in zip(PORT_OPTIONS, ports, strict=True) for text in (name, str(port))]
