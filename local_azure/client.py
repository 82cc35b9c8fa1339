"""How the command line talks to running stand-ins: HTTPS on loopback, trusting the state directory's authority."""

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

TIMEOUT_SECONDS = 10


class NotRunning(Exception):
    """No stand-in answers; the message says how to start it."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a stand-in answered: JSON as Python values, anything else as text."""

    status: int
    body: Any


@dataclass(frozen=True, slots=True)
class StandInClient:
    """Calls one stand-in's control routes. `port_option` is the command-line option that names its port."""

    name: str
    port: int
    port_option: str
    state_directory: Path

    async def call(self, method: str, path: str, body: Any = None) -> Answer:
        """Send one request, `body` as JSON. Raises `NotRunning`."""
        certificate = self.state_directory / "ca.pem"
        if not certificate.exists():
            raise NotRunning(
                f"There is no {certificate}: start the stand-ins with `acs-auth-local run`, "
                "or name their directory with --state-dir."
            )
        context = ssl.create_default_context(cafile=certificate)
        url = f"https://localhost:{self.port}{path}"
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.request(method, url, json=body, ssl=context) as response,
            ):
                is_json = response.content_type == "application/json"
                return Answer(response.status, await response.json() if is_json else (await response.text()).strip())
        except aiohttp.ClientSSLError as error:
            raise NotRunning(
                f"What answers on port {self.port} is not the {self.name} stand-in of {self.state_directory}: "
                f"give the right --state-dir or {self.port_option}."
            ) from error
        except (TimeoutError, aiohttp.ClientError) as error:
            raise NotRunning(
                f"The {self.name} stand-in does not answer on port {self.port}: start it with `acs-auth-local run`, "
                f"or name its port with {self.port_option}."
            ) from error
