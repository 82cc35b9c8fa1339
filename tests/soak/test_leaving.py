"""`python -m soak leaving`, in short."""

import asyncio
import re
import sys

PATIENCE_SECONDS = 300.0


async def test_clients_that_leave_while_acs_is_slow_leave_nothing_behind() -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "soak", "leaving", "--clients", "1000", "--at-once", "100", "--seed", "7"),
        stdout=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(PATIENCE_SECONDS):
        told, _ = await process.communicate()
    assert process.returncode == 0, told.decode()
    assert len(re.findall(r"^held: ", told.decode(), re.MULTILINE)) == 4
