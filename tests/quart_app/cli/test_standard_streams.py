"""Standard streams as a command may find them: closed, full, or of a terminal that lacks a character."""

import asyncio
import errno
import io
import json
import signal
import sys
from asyncio.subprocess import PIPE, Process
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import aiohttp
import pytest

from local_azure.environment import LocalAzure
from quart_app.cli import main
from tests.support.service_process import PATIENCE_SECONDS, environment_for

ACS_AUTH = f"exec {sys.executable} -m quart_app.cli"


@pytest.fixture
def environment(local_azure: LocalAzure, tmp_path: Path) -> dict[str, str]:
    return environment_for(local_azure, tmp_path)


async def shell(environment: dict[str, str], command: str) -> Process:
    return await asyncio.create_subprocess_exec("sh", "-c", command, env=environment, stdout=PIPE, stderr=PIPE)


async def ended(process: Process) -> tuple[int | None, str, str]:
    async with asyncio.timeout(PATIENCE_SECONDS):
        out, err = await process.communicate()
    return process.returncode, out.decode("latin-1"), err.decode("latin-1")


@pytest.mark.parametrize("closed", ["<&-", "<&- >&-", "<&- >&- 2>&-", "2>&-"])
async def test_the_service_serves_and_stops_with_closed_streams(environment: dict[str, str], closed: str) -> None:
    process = await shell(environment, f"{ACS_AUTH} serve {closed}")
    try:
        async with asyncio.timeout(PATIENCE_SECONDS), aiohttp.ClientSession() as session:
            while True:
                try:
                    async with session.get(f"http://127.0.0.1:{environment['PORT']}/health/live") as answer:
                        assert answer.status == 200
                        break
                except aiohttp.ClientConnectionError:
                    assert process.returncode is None
                    await asyncio.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        assert (await ended(process))[0] == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.mark.parametrize("command", ["check-config", "check-config --json", "--help", "migrate --help"])
async def test_output_that_finds_no_room_is_told_by_the_exit_status(environment: dict[str, str], command: str) -> None:
    status, _, err = await ended(await shell(environment, f"{ACS_AUTH} {command} > /dev/full"))
    assert (status, err) == (1, "The output can't be written (No space left on device).\n")
    status, _, _ = await ended(await shell(environment, f"{ACS_AUTH} {command} > /dev/full 2> /dev/full"))
    assert status == 1


async def test_trouble_with_the_input_is_not_told_as_trouble_with_the_output(environment: dict[str, str]) -> None:
    status, out, err = await ended(await shell(environment, f"{ACS_AUTH} explain-token 0> /dev/null"))
    assert (status, out) == (1, "")
    assert "Bad file descriptor" in err
    assert "The output can't be written" not in err


def test_a_caller_in_python_may_put_any_stream_in_the_place_of_standard_output() -> None:
    with redirect_stdout(io.StringIO()) as output:
        main(["--version"], prog_name="acs-auth", standalone_mode=False)
    assert output.getvalue().startswith("acs-auth")


def test_a_stream_without_a_descriptor_that_finds_no_room_is_told_like_any_other() -> None:
    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

    with redirect_stdout(Full()), redirect_stderr(io.StringIO()) as errors, pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert (ended.value.code, errors.getvalue()) == (1, "The output can't be written (No space left on device).\n")


@pytest.mark.parametrize("encoding", ["latin-1", "ascii"])
async def test_a_character_that_a_terminal_lacks_stops_nothing(environment: dict[str, str], encoding: str) -> None:
    environment |= {"PYTHONIOENCODING": encoding, "DOCS_CLIENT_ID": "\u043a\u043b\u044e\u0447-\u00e4"}
    status, out, err = await ended(await shell(environment, f"{ACS_AUTH} migrate --help"))
    assert (status, err) == (0, "")
    assert "COSMOS_" in out
    status, out, err = await ended(await shell(environment, f"{ACS_AUTH} check-config --json"))
    assert (status, err) == (0, "")
    assert json.loads(out)["settings"]["DOCS_CLIENT_ID"] == environment["DOCS_CLIENT_ID"]


async def test_a_log_reader_that_stops_holds_up_nobody(environment: dict[str, str]) -> None:
    process = await shell(environment, f"{ACS_AUTH} serve")
    assert process.stderr is not None
    url = f"http://127.0.0.1:{environment['PORT']}"
    try:
        async with asyncio.timeout(PATIENCE_SECONDS), aiohttp.ClientSession() as session:
            while b"Running on" not in await process.stderr.readline():
                pass
            # From here on nobody reads; asyncio itself takes a bounded part out of the pipe, and the pipe holds 64 KiB.
            for _ in range(1500):
                async with session.get(f"{url}/api/user") as answer:
                    assert answer.status == 401
            async with session.get(f"{url}/health/live") as answer:
                assert answer.status == 200
        process.send_signal(signal.SIGTERM)
        status, _, err = await ended(process)
        assert status == 0
        assert err.count("/api/user") == 1500
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
