"""`acs-auth-local run` as a newcomer meets it: a process of its own, with the real service as its child."""

import asyncio
import os
import re
import shlex
import signal
import ssl
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest

from tests.support.ports import port_arguments, some_free_ports

READY = "Press Ctrl-C to stop."
PATIENCE_SECONDS = 120


@dataclass
class Running:
    """A running command and what it printed so far."""

    process: asyncio.subprocess.Process
    output: str
    service_url: str

    async def end(self, number: signal.Signals | None = None) -> int:
        """Wait for its end, after sending it a signal if there is one; its exit status."""
        if number is not None:
            self.process.send_signal(number)
        assert self.process.stdout is not None
        async with asyncio.timeout(PATIENCE_SECONDS):
            self.output += (await self.process.stdout.read()).decode()
            return await self.process.wait()

    async def access_token(self) -> str:
        """What the printed line `TOKEN=$(…)` would put into the variable."""
        printed = re.search(r"TOKEN=\$\((.+)\)", self.output)
        assert printed is not None
        command = shlex.split(printed[1])
        asking = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        output, _ = await asyncio.wait_for(asking.communicate(), PATIENCE_SECONDS)
        assert asking.returncode == 0
        return output.decode().strip()


def child_of(pid: int) -> int:
    """The only child of a process."""
    (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(child)


async def answers(host: str, port: int) -> bool:
    """Whether somebody listens there."""
    try:
        _, writer = await asyncio.open_connection(host, port)
    except ConnectionRefusedError:
        return False
    writer.close()
    await writer.wait_closed()
    return True


@asynccontextmanager
async def running(directory: Path, *options: str) -> AsyncIterator[Running]:
    """Start the command and read until it is ready or ends."""
    ports = some_free_ports()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "local_azure.cli", "run", "--state-dir", str(directory)),
        *port_arguments(ports),
        *options,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        assert process.stdout is not None
        output = ""
        async with asyncio.timeout(PATIENCE_SECONDS):
            async for line in process.stdout:
                output += line.decode()
                if READY in output:
                    break
        yield Running(process, output, f"http://localhost:{ports[0]}")
    finally:
        if process.returncode is None:
            process.terminate()
            await asyncio.wait_for(process.wait(), PATIENCE_SECONDS)


@pytest.mark.parametrize("storage", ["cosmos", "graph", "sqlite"])
async def test_run_shows_the_round_trip_and_a_restart_keeps_the_identity(tmp_path: Path, storage: str) -> None:
    async with running(tmp_path, "--storage", storage) as first:
        assert "development only" in first.output.splitlines()[0]
        assert "/api/user -> 201" in first.output
        assert "/api/token -> 201" in first.output
        identity = re.search(r'"acsUserIdentity": "(8:acs:[^"]+)"', first.output)
        assert identity is not None
        assert f'"skypeid": "{identity[1].removeprefix("8:")}"' in first.output
        assert f"In a browser: {first.service_url}\n" in first.output
        assert str(tmp_path / "ca.pem") in first.output
        assert await first.end(signal.SIGINT) == 0
        assert first.output.endswith("Stopped.\n")
        async with aiohttp.ClientSession() as session:
            with pytest.raises(aiohttp.ClientConnectorError):
                await session.get(f"{first.service_url}/health/live")
    async with running(tmp_path, "--storage", storage) as second:
        assert "/api/user -> 200" in second.output
        assert f'"acsUserIdentity": "{identity[1]}"' in second.output
        assert await second.end(signal.SIGTERM) == 0


async def test_the_story_is_not_interrupted_and_the_log_is_in_a_file(tmp_path: Path) -> None:
    async with running(tmp_path) as run:
        log = tmp_path / "service.log"
        assert re.search(rf"Service log +{log}\n", run.output)
        assert "/api/user" in log.read_text()
        lines = run.output.splitlines()
        assert not any(line in lines for line in log.read_text().splitlines() if line)
        assert "Traceback" not in run.output
        assert await run.end(signal.SIGTERM) == 0


async def test_browser_clients_of_loopback_may_call_and_others_that_were_named(tmp_path: Path) -> None:
    origins = {
        "http://localhost:3000": True,
        "http://127.0.0.1:5173": True,
        "http://localhost:1234": True,
        "http://localhost:4321": False,
        "https://localhost:3000": False,
    }
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    allowed = {}
    async with running(tmp_path, "--origin", "http://localhost:1234") as run, aiohttp.ClientSession() as session:
        for origin in origins:
            headers = {"Origin": origin, **asked}
            async with session.options(f"{run.service_url}/api/user", headers=headers) as answer:
                allowed[origin] = answer.headers.get("Access-Control-Allow-Origin") == origin
        assert await run.end(signal.SIGTERM) == 0
    assert allowed == origins


async def test_a_second_run_on_the_same_state_is_refused_in_words(tmp_path: Path) -> None:
    async with running(tmp_path) as first:
        async with running(tmp_path) as second:
            assert await second.end() == 1
            assert f"The stand-ins already run on {tmp_path} (process {first.process.pid})" in second.output
            assert "Traceback" not in second.output
        assert await first.end(signal.SIGTERM) == 0


async def test_other_commands_find_the_run_by_its_directory(tmp_path: Path) -> None:
    async with running(tmp_path) as run:
        scripting = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "local_azure.cli", "fault", "acs", "issue_access_token"),
            *("--status", "503", "--times", "0", "--state-dir", str(tmp_path)),
        )
        assert await asyncio.wait_for(scripting.wait(), PATIENCE_SECONDS) == 0
        assert "--entra-port" not in run.output
        headers = {"Authorization": f"Bearer {await run.access_token()}"}
        async with (
            aiohttp.ClientSession(run.service_url, headers=headers) as session,
            session.get("/api/token") as response,
        ):
            assert response.status == 503
        assert await run.end(signal.SIGTERM) == 0
    assert not (tmp_path / "run.json").exists()


async def test_the_printed_commands_do_what_they_promise(tmp_path: Path) -> None:
    async with running(tmp_path) as run:
        headers = {"Authorization": f"Bearer {await run.access_token()}"}
        printed = re.findall(r'  curl -i -H "Authorization: Bearer \$TOKEN" (.+)', run.output)
        url = run.service_url
        assert printed == [f"-X POST {url}/api/user", f"{url}/api/token", f"-X DELETE {url}/api/user"]
        answers = []
        async with aiohttp.ClientSession(run.service_url, headers=headers) as session:
            for method, path in (
                ("DELETE", "/api/user"),
                ("GET", "/api/user"),
                ("POST", "/api/user"),
                ("POST", "/api/user"),
                ("GET", "/api/token"),
            ):
                async with session.request(method, path) as response:
                    answers.append(response.status)
        assert answers == [204, 404, 201, 200, 201]
        assert await run.end(signal.SIGINT) == 0


async def test_without_the_service_the_settings_for_one_are_printed(tmp_path: Path) -> None:
    async with running(tmp_path, "--no-service", "--storage", "cosmos") as run:
        assert re.search(r"export ACS_CONNECTION_STRING='endpoint=https://localhost:\d+/;accesskey=.+'", run.output)
        assert f"export SSL_CERT_FILE={tmp_path / 'ca.pem'}" in run.output
        printed = dict(re.findall(r"  export (\w+)=(.+)", run.output))
        assert printed["HOST"] == "127.0.0.1"
        assert printed["PORT"] == run.service_url.rpartition(":")[2]
        assert printed["ENVIRONMENT"] == "development"
        assert printed["STORAGE_BACKEND"] == "cosmos"
        assert printed["SQLITE_PATH"] == str(tmp_path / "mappings.sqlite")
        assert "http://localhost:3000" in printed["CORS_ALLOWED_ORIGINS"].split(",")
        assert printed["NO_PROXY"] == "localhost,127.0.0.1"
        assert run.service_url not in run.output
        assert await run.end(signal.SIGTERM) == 0


async def test_the_settings_are_printed_for_powershell_when_that_is_asked_for(tmp_path: Path) -> None:
    async with running(tmp_path, "--no-service", "--shell", "powershell") as run:
        printed = dict(re.findall(r"^  \$env:(\w+) = '(.+)'$", run.output, re.MULTILINE))
        assert {"ACS_CONNECTION_STRING", "ENTRA_TENANT_ID", "HOST", "PORT", "NO_PROXY"} <= printed.keys()
        assert printed["SSL_CERT_FILE"] == str(tmp_path / "ca.pem")
        assert "export" not in run.output
        assert await run.end(signal.SIGTERM) == 0


async def test_the_commands_are_printed_for_powershell_when_that_is_asked_for(tmp_path: Path) -> None:
    async with running(tmp_path, "--shell", "powershell") as run:
        assert re.search(r"  \$TOKEN = & '.+' 'token' '--user' 'alex'", run.output)
        assert f'  curl.exe -i -H "Authorization: Bearer $TOKEN" {run.service_url}/api/token\n' in run.output
        assert await run.end(signal.SIGTERM) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere 127.0.0.2 is no address of the machine")
async def test_everything_listens_on_loopback_only_unless_another_address_is_named(tmp_path: Path) -> None:
    reachable = {}
    for host in ("127.0.0.1", "0.0.0.0"):
        async with running(tmp_path, "--host", host) as run:
            ports = [int(port) for port in re.findall(r"https?://localhost:(\d+)", run.output.partition("Signing")[0])]
            reachable[host] = [await answers("127.0.0.2", port) for port in ports]
            assert await run.end(signal.SIGTERM) == 0
    assert "listens on 0.0.0.0, not on loopback" in run.output
    assert reachable == {"127.0.0.1": [False] * 5, "0.0.0.0": [True] * 5}


@pytest.mark.parametrize("storage", ["cosmos", "graph"])
async def test_the_round_trip_works_without_a_secret(tmp_path: Path, storage: str) -> None:
    async with running(tmp_path, "--no-secrets", "--storage", storage) as run:
        assert "/api/token -> 201" in run.output
        assert await run.end(signal.SIGTERM) == 0


async def test_the_settings_of_a_service_without_a_secret_are_printed(tmp_path: Path) -> None:
    async with running(tmp_path, "--no-secrets", "--no-service") as run:
        assert re.search(r"export ACS_ENDPOINT=https://localhost:\d+/", run.output)
        assert "export ENTRA_MANAGED_IDENTITY_CLIENT_ID=" in run.output
        for secret in ("ACS_CONNECTION_STRING", "COSMOS_KEY", "ENTRA_CLIENT_SECRET"):
            assert secret not in run.output
        assert await run.end(signal.SIGTERM) == 0


async def test_the_users_of_another_issuer_can_call_as_well(tmp_path: Path) -> None:
    async with running(tmp_path, "--two-doors") as run, aiohttp.ClientSession() as session:
        printed = re.search(r"TOKEN=\$\((.+--door oidc)\)", run.output)
        assert printed is not None
        run.output = printed[0]
        created = []
        for _ in range(2):
            headers = {"Authorization": f"Bearer {await run.access_token()}"}
            async with session.post(f"{run.service_url}/api/user", headers=headers) as answer:
                created.append((answer.status, await answer.json()))
        assert [status for status, _ in created] == [201, 200]
        assert created[0][1] == created[1][1]
        assert await run.end(signal.SIGTERM) == 0


async def test_the_answer_for_a_deleted_identity_is_chosen_at_the_start(tmp_path: Path) -> None:
    async with running(tmp_path, "--no-service", "--deleted-identity", "401", "Gone", "No more.") as run:
        connection = re.search(r"endpoint=(https://localhost:\d+)", run.output)
        assert connection is not None
        async with (
            aiohttp.ClientSession() as session,
            session.get(
                f"{connection[1]}/local/deleted-identity", ssl=ssl.create_default_context(cafile=tmp_path / "ca.pem")
            ) as answer,
        ):
            assert await answer.json() == {"status": 401, "code": "Gone", "message": "No more."}
        assert await run.end(signal.SIGTERM) == 0


async def test_a_service_starts_with_the_printed_settings_and_no_others(tmp_path: Path) -> None:
    async with running(tmp_path, "--no-service", "--storage", "graph") as run:
        lines = [line.strip() for line in run.output.splitlines() if line.startswith("  export ")]
        script = f'{"; ".join(lines)}; exec "{sys.executable}" -m quart_app.cli check-config'
        environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(Path.cwd())}
        checking = await asyncio.create_subprocess_exec(
            *("sh", "-c", script),
            env=environment,
            cwd=tmp_path,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await asyncio.wait_for(checking.communicate(), PATIENCE_SECONDS)
        assert checking.returncode == 0, output.decode()
        assert await run.end(signal.SIGTERM) == 0


async def test_a_service_that_cannot_start_ends_the_run_with_its_own_message(tmp_path: Path) -> None:
    (tmp_path / "mappings.sqlite").mkdir()
    async with running(tmp_path) as run:
        assert await run.end() != 0
        assert "mapping store" in run.output
        assert "ended before it was ready" in run.output
        assert str(tmp_path / "service.log") in run.output
        assert "Traceback" not in run.output


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the child in /proc")
async def test_a_service_that_dies_ends_the_run_with_its_status(tmp_path: Path) -> None:
    async with running(tmp_path) as run:
        os.kill(child_of(run.process.pid), signal.SIGKILL)
        assert await run.end() == 128 + signal.SIGKILL
        assert "The service ended unexpectedly with signal SIGKILL" in run.output
