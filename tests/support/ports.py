"""Free ports for `acs-auth-local run`, and the options that name them."""

from local_azure.port_choice import free_port

PORT_OPTIONS = ("--port", "--entra-port", "--graph-port", "--acs-port", "--cosmos-port")


def some_free_ports() -> list[int]:
    """Another port that nobody uses at the moment for each of `PORT_OPTIONS`."""
    ports: set[int] = set()
    while len(ports) < len(PORT_OPTIONS):
        ports.add(free_port())
    return list(ports)


def port_arguments(ports: list[int]) -> list[str]:
    """The options with these ports, as they stand on the command line."""
    return [text for name, port in zip(PORT_OPTIONS, ports, strict=True) for text in (name, str(port))]
