"""A rolling replacement under load, behind nginx: `python -m soak.rolling [--delay SECONDS]`.

Two processes serve behind nginx, which repeats nothing. One after the other is told to stop (SIGTERM), and only 2 s
later nginx learns of it, as a platform's balancer does. Half of the requests are POST. Ends with status 1 if a request
failed. Needs nginx (Debian's nginx-light), and listens on loopback only.
"""

import argparse
import asyncio
import os
import shutil
import signal
import sys
import tempfile
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp

from local_azure.environment import LocalAzure, Ports
from local_azure.port_choice import free_port
from local_azure.service_process import ServiceProcess
from local_azure.service_process import environment as child_environment

LEARNS_AFTER_SECONDS = 2.0
CLIENTS = 8
PAUSE_SECONDS = 0.02
MOST_REQUESTS = 50_000

_CONFIGURATION = """\
daemon off;
pid {directory}/nginx.pid;
error_log {directory}/nginx-error.log;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    upstream service {{
        {servers}
        keepalive 32;
    }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://service;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_next_upstream off;
        }}
    }}
}}
"""


class Nginx:
    """nginx before the services on these ports; `lead_to` changes them by a reload."""

    def __init__(self, directory: Path, port: int) -> None:
        self._directory = directory
        self._port = port

    def _write(self, ports: list[int]) -> None:
        # max_fails=0: nginx leaves nobody out by itself, so that only what the service does counts.
        servers = "\n        ".join(f"server 127.0.0.1:{port} max_fails=0;" for port in ports)
        text = _CONFIGURATION.format(directory=self._directory, port=self._port, servers=servers)
        (self._directory / "nginx.conf").write_text(text)

    async def start(self, ports: list[int]) -> None:
        """Start it; `end` ends it."""
        self._write(ports)
        nginx = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
        if nginx is None:
            raise SystemExit("soak rolling needs nginx: install Debian's package nginx-light.")
        self._process = await asyncio.create_subprocess_exec(
            nginx, "-p", str(self._directory), "-c", str(self._directory / "nginx.conf")
        )

    async def lead_to(self, ports: list[int]) -> None:
        """Send new requests to these ports only."""
        self._write(ports)
        self._process.send_signal(signal.SIGHUP)

    async def end(self) -> None:
        """Stop it and wait for that."""
        self._process.terminate()
        await self._process.wait()


class Load:
    """Clients that send one request after the other, POST and GET in turn, until `stop` is set."""

    def __init__(self, url: str, local_azure: LocalAzure) -> None:
        self.stop = asyncio.Event()
        self.outcomes: Counter[str] = Counter()
        self.sent = 0
        self._url = url
        self._local_azure = local_azure

    async def run(self) -> None:
        """Send until told to stop, at most `MOST_REQUESTS`."""
        # nginx itself ends kept connections of its clients at a reload; what fails between it and the service is a 502.
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        async with aiohttp.ClientSession(self._url, connector=connector) as session, asyncio.TaskGroup() as clients:
            for number in range(CLIENTS):
                clients.create_task(self._client(session, ["alex", "megan", "pradeep", "zoe"][number % 4]))

    async def _client(self, session: aiohttp.ClientSession, user: str) -> None:
        headers = {"Authorization": f"Bearer {self._local_azure.entra.access_token(user)}"}
        method = "POST"
        while not self.stop.is_set() and self.sent < MOST_REQUESTS:
            self.sent += 1
            try:
                async with session.request(method, "/api/user", headers=headers) as answer:
                    await answer.read()
                    self.outcomes["served" if answer.status in (200, 201) else f"status {answer.status}"] += 1
            except aiohttp.ClientError as error:
                self.outcomes[type(error).__name__] += 1
            method = "GET" if method == "POST" else "POST"
            await asyncio.sleep(PAUSE_SECONDS)


async def replace_all(delay: float) -> Counter[str]:
    """What became of the requests while two processes were replaced one after the other."""
    async with AsyncExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        state = directory / "local-azure"
        state.mkdir()
        local_azure = await stack.enter_async_context(LocalAzure(state, Ports(0, 0, 0, 0)))
        replicas = []

        async def start() -> tuple[int, ServiceProcess]:
            port = free_port()
            settings = {
                **local_azure.service_environment(),
                "HOST": "127.0.0.1",
                "PORT": str(port),
                "STORAGE_BACKEND": "cosmos",
                "SHUTDOWN_DELAY_SECONDS": f"{delay:g}",
                "RATE_LIMIT_REQUESTS_PER_MINUTE": "0",
            }
            environment = child_environment(os.environ, settings)
            process = ServiceProcess(environment, directory, directory / f"service-{port}.log")
            await stack.enter_async_context(process)
            await process.ready("/health/ready")
            return port, process

        replicas = [await start(), await start()]
        public = free_port()
        nginx = Nginx(directory, public)
        await nginx.start([port for port, _ in replicas])
        stack.push_async_callback(nginx.end)
        async with aiohttp.ClientSession() as session:
            await _reachable(session, f"http://127.0.0.1:{public}/health/live")
        load = Load(f"http://127.0.0.1:{public}", local_azure)
        loading = asyncio.create_task(load.run())
        await asyncio.sleep(1)
        for _ in range(2):
            replicas.append(await start())
            await nginx.lead_to([port for port, _ in replicas])
            await asyncio.sleep(1)
            _, old = replicas.pop(0)
            old.process.send_signal(signal.SIGTERM)
            await asyncio.sleep(LEARNS_AFTER_SECONDS)
            await nginx.lead_to([port for port, _ in replicas])
            await old.process.wait()
        load.stop.set()
        await loading
        return load.outcomes


async def _reachable(session: aiohttp.ClientSession, url: str) -> None:
    for _ in range(200):
        try:
            async with session.get(url) as answer:
                if answer.status == 200:
                    return
        except aiohttp.ClientConnectionError:
            pass
        await asyncio.sleep(0.05)
    raise SystemExit("nginx did not get ready.")


def main(arguments: list[str]) -> int:
    """Run the command; its exit status is 1 if a request failed."""
    parser = argparse.ArgumentParser(prog="soak rolling", description="Replace two processes under load.")
    parser.add_argument("--delay", type=float, default=5.0, help="SHUTDOWN_DELAY_SECONDS, 0 to 10; by default 5")
    delay = parser.parse_args(arguments).delay
    outcomes = asyncio.run(replace_all(delay))
    failed = outcomes.total() - outcomes["served"]
    told = ", ".join(f"{name}: {count}" for name, count in sorted(outcomes.items()))
    print(f"SHUTDOWN_DELAY_SECONDS={delay:g}: {failed} of {outcomes.total()} requests failed ({told})")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
