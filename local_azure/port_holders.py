"""Who listens on a port of this machine, where the platform can tell."""

import shutil
import subprocess
from pathlib import Path

_LISTENING = "0A"  # the state TCP_LISTEN in /proc/net/tcp: proc_pid_net(5)


def holder(port: int) -> str | None:
    """The program that listens on the port, as "name (process 123)"; `None` when that can't be found out."""
    return _from_proc(port) if Path("/proc/net/tcp").exists() else _from_lsof(port)


def _from_proc(port: int) -> str | None:
    sockets = {f"socket:[{inode}]" for inode in _listening_inodes(port)}
    for process in Path("/proc").iterdir() if sockets else ():
        if process.name.isdecimal() and _holds(process, sockets):
            return f"{(process / 'comm').read_text(encoding='utf-8').strip()} (process {process.name})"
    return None


def _listening_inodes(port: int) -> list[str]:
    tables = [table for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")) if table.exists()]
    rows = [line.split() for table in tables for line in table.read_text(encoding="ascii").splitlines()[1:]]
    return [row[9] for row in rows if row[3] == _LISTENING and int(row[1].rpartition(":")[2], 16) == port]


def _holds(process: Path, sockets: set[str]) -> bool:
    try:
        return any(str(each.readlink()) in sockets for each in (process / "fd").iterdir())
    except OSError:  # somebody else's process, or one that just ended
        return False


def _from_lsof(port: int) -> str | None:
    lsof = shutil.which("lsof")
    if lsof is None:
        return None
    command = [lsof, "-nP", f"-iTCP:{port}", "-sTCP:LISTEN", "-Fpc"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return None
    fields = {line[0]: line[1:] for line in reversed(told.stdout.splitlines()) if line}
    return f"{fields['c']} (process {fields['p']})" if {"c", "p"} <= fields.keys() else None
