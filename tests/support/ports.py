"""Free ports for `acs-auth-local run`, and the options that name them."""

from local_azure.port_choice import free_port

PORT_OPTIONS = ("--port", "--entra-port", "--graph-port", "--acs-port", "--cosmos-port")


def some_free_ports() -> list[int]:
    """A port that nobody uses at the moment for each of `PORT_OPTIONS`."""
    return [free_port() for _ in PORT_OPTIONS]


def port_arguments(ports: list[int]) -> list[str]:
    """The options with these ports, as they stand on the command line."""
    return [text for name, port in zip(PORT_OPTIONS, ports, strict=True) for text in (name, str(port))]
