"""The programs that read the OpenAPI document: each runs to its end, away from this machine's own settings."""

import asyncio
import os
from asyncio.subprocess import DEVNULL, PIPE
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent.parent.parent / "clients" / "openapi"
TOOLS = "OPENAPI_TOOLS"
"""The environment variable by which `make openapi` says where the Python environment of the generator is."""

PATIENCE_SECONDS = 240
"""Only what hangs takes longer, on a busy machine too."""


@dataclass(frozen=True, slots=True)
class Done:
    """How a program ended: its exit status, its output and its errors."""

    status: int
    output: str
    errors: str

    def succeeded(self) -> str:
        """The output; fails unless the program succeeded."""
        assert self.status == 0, self.output + self.errors
        return self.output


@dataclass(frozen=True, slots=True)
class Tools:
    """Programs of the Python environment `generator` and of the installed Node.js packages.

    `home` is where they may keep what they want to remember.
    """

    generator: Path
    home: Path

    async def npm(self, program: str, *arguments: str | Path) -> Done:
        """Run a program of the Node.js packages."""
        return await self.run(FOLDER / "node_modules" / ".bin" / program, *arguments, directory=FOLDER)

    async def run(self, program: str | Path, *arguments: str | Path, directory: Path, **environment: str) -> Done:
        """Run any program, with these environment variables besides; those of `generator` are found first."""
        child = await asyncio.create_subprocess_exec(
            program,
            *arguments,
            cwd=directory,
            env={
                "PATH": f"{self.generator / 'bin'}{os.pathsep}{os.environ['PATH']}",
                "HOME": str(self.home),
                "REDOCLY_TELEMETRY": "off",
                "REDOCLY_SUPPRESS_UPDATE_NOTICE": "true",
                **environment,
            },
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=PIPE,
        )
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                output, errors = await child.communicate()
        except TimeoutError:
            child.kill()
            await child.wait()
            raise
        return Done(child.returncode or 0, output.decode(), errors.decode())
