"""How long a start takes until the first token is issued, beside what importing the same libraries takes."""

import asyncio
import os
import statistics
import sys
import time
from asyncio.subprocess import PIPE
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmark.processes import BenchmarkFailed, Cores, answered, starting_service
from local_azure.service_process import environment

_OURS = {
    "cosmos": "storage.cosmos",
    "graph": "storage.graph, quart_app.auth.on_behalf_of.tokens",
    "sqlite": "storage.sqlite",
}

_LIST = """
import sys, quart_app.cli, quart_app.serving.server, {modules}
ours = {{"quart_app", "storage", "__main__"}}
known = sys.stdlib_module_names | ours
print("\\n".join(name for name, module in sys.modules.items()
    if name.partition(".")[0] not in known and getattr(module, "__spec__", None) is not None))
"""

# Without the interpreter's own end, which a start does not have either.
_IMPORT = """
import importlib, os, sys
for name in sys.argv[1].split(","):
    importlib.import_module(name)
os._exit(0)
"""


@dataclass(frozen=True, slots=True)
class Start:
    """Medians in seconds: from the start of the process to its first 201, and of bare imports; MiB after that 201.

    `cold` is one start without byte code, as in a container whose image has none.
    """

    to_first_token: float
    imports: float
    resident: float
    cold: float


async def measure_start(
    storage: str, settings: Mapping[str, str], token: str, cores: Cores, directory: Path, times: int
) -> Start:
    """Start the service `times` times, in turn with a process that only imports the libraries that it imports."""
    libraries = await _libraries(storage)
    starts, imports, resident = [], [], 0.0

    async def start(settings: Mapping[str, str]) -> tuple[float, float]:
        started = time.perf_counter()
        async with starting_service(settings, cores, directory / "start.log") as child:
            await answered(child, "GET", "/api/token", {"Authorization": f"Bearer {token}"}, 201)
            return time.perf_counter() - started, child.resident_mebibytes()

    cold, _ = await start({**settings, "PYTHONPYCACHEPREFIX": str(directory / f"nothing-{storage}")})
    for number in range(times + 1):
        to_first_token, resident = await start(settings)
        imported = await _import(libraries, settings, cores)
        if number:  # the first one fills the file system's cache and writes byte code
            starts.append(to_first_token)
            imports.append(imported)
    return Start(statistics.median(starts), statistics.median(imports), resident, cold)


async def _libraries(storage: str) -> list[str]:
    """Every module beyond the standard library and our own that a start with this store loads."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _LIST.format(modules=_OURS[storage]), stdout=PIPE, env=environment(os.environ, {})
    )
    told, _ = await process.communicate()
    if process.returncode:
        raise BenchmarkFailed("The service's modules can't be imported; the reason is above.")
    return told.decode().split()


async def _import(libraries: list[str], settings: Mapping[str, str], cores: Cores) -> float:
    variables = environment(os.environ, settings)  # aiohttp reads the certificates that they name
    started = time.perf_counter()
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", _IMPORT, ",".join(libraries), env=variables)
    if cores.measured:
        psutil.Process(process.pid).cpu_affinity(list(cores.measured))
    if await process.wait():
        raise BenchmarkFailed("A library can't be imported by itself; the reason is above.")
    return time.perf_counter() - started
