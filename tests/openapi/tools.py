"""The programs that read the OpenAPI document: each runs to its end, away from this machine's own settings."""

import asyncio
import os
from asyncio.subprocess import PIPE, STDOUT
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent.parent.parent / "clients" / "openapi"
TOOLS = "OPENAPI_TOOLS"
"""The environment variable by which `make openapi` says where the Python environment of the generator is."""

PATIENCE_SECONDS = 240
"""Only what hangs takes longer, on a busy machine too."""


@dataclass(frozen=True, slots=True)
class Tools:
    """Programs of the environment `generator` and of the installed Node.js packages; `home` is where they may write."""

    generator: Path
    home: Path

    async def npm(self, program: str, *arguments: str | Path, directory: Path = FOLDER) -> tuple[int, str]:
        """Run a program of the Node.js packages. Out come its exit status and what it printed."""
        return await self.run(FOLDER / "node_modules" / ".bin" / program, *arguments, directory=directory)

    async def python(
        self, program: str, *arguments: str | Path, directory: Path, **environment: str
    ) -> tuple[int, str]:
        """Run a program of the generator's environment."""
        return await self.run(self.generator / "bin" / program, *arguments, directory=directory, **environment)

    async def run(
        self, program: str | Path, *arguments: str | Path, directory: Path, **environment: str
    ) -> tuple[int, str]:
        """Run any program, with these environment variables besides."""
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
            stdin=asyncio.subprocess.DEVNULL,
            stdout=PIPE,
            stderr=STDOUT,
        )
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                output, _ = await child.communicate()
        except TimeoutError:
            child.kill()
            await child.wait()
            raise
        return child.returncode or 0, output.decode()
