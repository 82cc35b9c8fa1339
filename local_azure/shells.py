"""How commands that a person may copy are written for each shell."""

import shlex
import sys
from collections.abc import Sequence
from typing import Protocol


class Shell(Protocol):
    """One shell's way to write things."""

    curl: str
    """The program curl: in Windows PowerShell the bare word means something else."""

    def setting(self, name: str, value: str) -> str:
        """Sets an environment variable."""
        ...

    def output_of(self, name: str, command: Sequence[str]) -> str:
        """Keeps what a command prints in a variable of the shell, which `"$NAME"` then stands for."""
        ...


class Posix:
    """sh, bash, zsh."""

    curl = "curl"

    def setting(self, name: str, value: str) -> str:
        """See `Shell.setting`."""
        return f"export {name}={shlex.quote(value)}"

    def output_of(self, name: str, command: Sequence[str]) -> str:
        """See `Shell.output_of`."""
        return f"{name}=$({shlex.join(command)})"


class PowerShell:
    """https://learn.microsoft.com/powershell/module/microsoft.powershell.core/about/about_quoting_rules."""

    curl = "curl.exe"

    def setting(self, name: str, value: str) -> str:
        """See `Shell.setting`."""
        return f"$env:{name} = {_quoted(value)}"

    def output_of(self, name: str, command: Sequence[str]) -> str:
        """See `Shell.output_of`."""
        return f"${name} = & {' '.join(_quoted(word) for word in command)}"


SHELLS: dict[str, Shell] = {"sh": Posix(), "powershell": PowerShell()}


def usual_shell() -> str:
    """The one of `SHELLS` that people have on this platform."""
    return "powershell" if sys.platform == "win32" else "sh"


def _quoted(text: str) -> str:
    doubled = text.replace("'", "''")
    return f"'{doubled}'"
